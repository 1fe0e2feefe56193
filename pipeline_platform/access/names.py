"""The names that one server answers under, and the origins that its pages have."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

_DEFAULT_PORTS = {"http": 80, "https": 443}


class OurNames:
    """Origins, as `scheme://host[:port]`, and the Host headers that go with them."""

    def __init__(self, urls: Iterable[str]) -> None:
        self._origins = frozenset(origin_of(url) for url in urls)
        self._hosts = frozenset(urlsplit(origin).netloc for origin in self._origins)
        self._tls = frozenset(urlsplit(origin).netloc for origin in self._origins if origin.startswith("https:"))

    def asked(self, conn: HTTPConnection) -> bool:
        """Whether the one Host header is one of ours: another one is DNS rebinding, or a mistake in the settings."""
        hosts = conn.headers.getlist("host")
        return len(hosts) == 1 and self._plain(hosts[0]) in self._hosts

    def sent_by_our_pages(self, conn: HTTPConnection) -> bool:
        """Whether the one Origin header is that of a page of ours. Browsers send it with whatever changes something."""
        origins = conn.headers.getlist("origin")
        return len(origins) == 1 and origins[0].lower() in self._origins

    def secure(self, conn: HTTPConnection) -> bool:
        """Whether the request was sent to a name that people reach by TLS only: its cookie is then for TLS only."""
        return self._plain(conn.headers.get("host", "")) in self._tls

    def _plain(self, host: str) -> str:
        host = host.lower()
        without = host.removesuffix(":443")
        return without if without in self._tls else host.removesuffix(":80")


def origin_of(url: str) -> str:
    """The URL's origin as browsers write it: lower case, without the scheme's own port."""
    parts = urlsplit(url)
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{name}{port}"
