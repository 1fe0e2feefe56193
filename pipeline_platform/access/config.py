"""What both web servers are told about logins, as values: nothing here reads settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pipeline_platform.access.roles import Role

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class AccessConfig:
    """Logins of one server. `public_urls` are where people reach it, `port` where it listens on loopback.

    `users_url` is a warehouse login that may read `users`; without it there are API keys only. Times are seconds.
    """

    redis_url: str = field(repr=False)
    port: int
    public_urls: tuple[str, ...] = ()
    users_url: str | None = field(default=None, repr=False)
    trusted_proxies: tuple[str, ...] = ()
    proxy_secret: str = field(default="", repr=False)
    group_roles: Mapping[str, Role] = field(default_factory=dict)
    session_seconds: float = 8 * 3600
    idle_seconds: float = 3600

    @property
    def origins(self) -> frozenset[str]:
        """The origins that browsers may send requests from: our own."""
        return frozenset(
            [f"http://{name}:{self.port}" for name in ("127.0.0.1", "localhost", "[::1]")]
            + [origin_of(url) for url in self.public_urls]
        )

    @property
    def secure(self) -> bool:
        """Whether people reach the server by TLS only, so that its cookie may be for TLS only."""
        return bool(self.public_urls) and all(urlsplit(url).scheme == "https" for url in self.public_urls)


def origin_of(url: str) -> str:
    """`scheme://host[:port]` as browsers write it: lower case, without the scheme's own port."""
    parts = urlsplit(url)
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{name}{port}"
