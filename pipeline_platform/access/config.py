"""What both web servers are told about logins, as values: nothing here reads settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline_platform.access.names import OurNames
from pipeline_platform.access.roles import Role


@dataclass(frozen=True)
class OidcConfig:
    """An identity provider, and what we are to it."""

    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    groups_claim: str = "groups"
    scopes: str = "openid profile email"


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
    oidc: OidcConfig | None = None
    session_seconds: float = 8 * 3600
    idle_seconds: float = 3600

    @property
    def names(self) -> OurNames:
        """The names that the server answers under: the public ones, and loopback's with its port."""
        loopback = [f"http://{name}:{self.port}" for name in ("127.0.0.1", "localhost", "[::1]")]
        return OurNames([*loopback, *self.public_urls])
