"""What the settings say of logins, as the one value that both web servers build their doorkeeper from."""

from __future__ import annotations

from pipeline_platform.access.config import AccessConfig, OidcConfig
from pipeline_platform.access.roles import Role
from pipeline_platform.settings import Settings, require


def access_config(settings: Settings, *, public_url: str | None, host: str, port: int) -> AccessConfig:
    """The value for one server: where people reach it (None: where it listens), and where it listens."""
    said = tuple(url for url in (public_url, *settings.public_urls) if url)
    return AccessConfig(
        redis_url=require(settings.redis_url, "REDIS_URL"),
        port=port,
        public_urls=said or (f"http://{host}:{port}",),
        users_url=settings.loader_database_url or settings.database_url,
        trusted_proxies=settings.trusted_proxies,
        proxy_secret=settings.proxy_secret or "",
        group_roles={group: Role(role) for group, role in settings.oidc_roles},
        oidc=_oidc(settings),
        session_seconds=settings.session_seconds,
        idle_seconds=settings.session_idle_seconds,
    )


def _oidc(settings: Settings) -> OidcConfig | None:
    if not settings.oidc_issuer:
        return None
    return OidcConfig(
        settings.oidc_issuer,
        require(settings.oidc_client_id, "PIPELINE_OIDC_CLIENT_ID"),
        settings.oidc_client_secret or "",
        settings.oidc_groups_claim,
        settings.oidc_scopes,
    )
