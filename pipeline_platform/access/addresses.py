"""The client's address: the peer's, or what proxies that we trust say about it."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from pipeline_platform.errors import SettingError

Network = IPv4Network | IPv6Network
_MOST_HOPS = 20


class ClientAddresses:
    """Reads X-Forwarded-For from `trusted` networks only, so that nobody chooses the address they are limited by."""

    def __init__(self, trusted: tuple[str, ...]) -> None:
        try:
            self._trusted: tuple[Network, ...] = tuple(ip_network(text, strict=False) for text in trusted)
        except ValueError as error:
            raise SettingError(f"PIPELINE_TRUSTED_PROXIES: {error}.") from None

    def of(self, peer: str, forwarded: bytes) -> str:
        """The rightmost address that is not a trusted proxy's; IPv6 as its /64, which one client usually has whole."""
        if not self._trusted or not forwarded or not self.trusts(peer):
            return _bucket(peer)
        client = peer
        for hop in reversed(forwarded.decode("latin-1").split(",")[-_MOST_HOPS:]):
            address = _without_port(hop.strip())
            if _parsed(address) is None:
                break
            client = address
            if not self.trusts(address):
                break
        return _bucket(client)

    def trusts(self, text: str) -> bool:
        """Whether the address is a trusted proxy's."""
        address = _parsed(text)
        return address is not None and any(
            address in network for network in self._trusted if network.version == address.version
        )


@lru_cache(maxsize=4096)
def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


@lru_cache(maxsize=4096)
def _bucket(text: str) -> str:
    address = _parsed(text)
    if isinstance(address, IPv6Address):
        return str(ip_network(f"{address}/64", strict=False))
    return str(address) if address else "unknown"
