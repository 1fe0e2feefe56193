"""Where a webhook may lead: http or https to a public address, checked once and then connected to, name or no name."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

LONGEST = 2048
Resolve = Callable[[str, int], list[str]]
_Address = IPv4Address | IPv6Address

_PUBLIC_6 = IPv6Network("2000::/3")  # global unicast; everything else of IPv6 is local, multicast or reserved
# Where Python's `is_global` depends on its version, or an IPv4 address hides in an IPv6 one.
_CLOSED_4 = tuple(
    IPv4Network(each)
    for each in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
_CLOSED_6 = tuple(IPv6Network(each) for each in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))


class TargetError(Exception):
    """A URL that is not connected to; the message says why, without the URL's path, which is a secret."""


@dataclass(frozen=True)
class Target:
    """A checked URL: an address is connected to, `host` is what the server is asked for and has to prove with TLS."""

    scheme: str
    host: str
    port: int
    path: str
    addresses: tuple[str, ...]

    def url(self, address: str) -> str:
        """The URL of an address: there is no name left that could be resolved once more."""
        literal = f"[{address}]" if ":" in address else address
        return f"{self.scheme}://{literal}:{self.port}{self.path}"

    @property
    def host_header(self) -> str:
        """What goes into `Host`."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == {"http": 80, "https": 443}[self.scheme] else f"{name}:{self.port}"


def resolve(host: str, port: int) -> list[str]:
    """Every address of the name, as the system finds them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


def host_of(url: str) -> str:
    """The URL's host, for texts and for comparing; empty when there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def find_target(url: str, *, allow_private: bool, resolve: Resolve = resolve) -> Target:
    """The target of the URL. TargetError when the policy is against it, OSError when the name cannot be resolved.

    Every address of the name has to be public: a name with one private address is not half trusted.
    """
    if len(url) > LONGEST or not url.isascii() or any(sign <= " " or sign in "\\\x7f" for sign in url):
        raise TargetError("The URL is too long, or holds a space, a backslash or a letter that is not ASCII.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise TargetError("The URL cannot be read.") from None
    if parts.scheme not in ("http", "https"):
        raise TargetError("A webhook's URL begins with https:// or http://.")
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise TargetError("A webhook's URL has a host, and neither user name nor password.")
    host, port = parts.hostname, port or {"http": 80, "https": 443}[parts.scheme]
    addresses = resolve(host, port)
    if not addresses:
        raise OSError(f"{host} has no address.")
    closed = [address for address in addresses if not is_public(address)]
    if closed and not allow_private:
        raise TargetError(
            f"{host} is {closed[0]}, which is not a public address. If that is meant, "
            "set PIPELINE_ALERTS_ALLOW_PRIVATE=true."
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, host, port, path, tuple(addresses))


def is_public(text: str) -> bool:
    """Whether the address is one of the open internet, also when it is written as IPv6 and meant as IPv4."""
    try:
        address: _Address = ip_address(text.split("%", 1)[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_4)
    return address in _PUBLIC_6 and not any(address in network for network in _CLOSED_6)
