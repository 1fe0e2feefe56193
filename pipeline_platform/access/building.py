"""How both servers get their doorkeeper, from one value."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from pipeline_platform.access.addresses import ClientAddresses
from pipeline_platform.access.audit import Audit
from pipeline_platform.access.config import AccessConfig, OidcConfig
from pipeline_platform.access.doorkeeper import Doorkeeper
from pipeline_platform.access.roles import Role
from pipeline_platform.access.single_sign_on import Provider, SingleSignOn
from pipeline_platform.access.trusted_header import TrustedHeader
from pipeline_platform.access.user_book import UserBook
from pipeline_platform.errors import SettingError
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.key_uses import KeyUses
from pipeline_platform.queue.keys import KeyStore
from pipeline_platform.queue.sessions import SessionStore

_PATIENCE = 3.0  # seconds that a login waits for Redis


def build_doorkeeper(config: AccessConfig, audit: Audit, *, kind: type[Doorkeeper] = Doorkeeper) -> Doorkeeper:
    """The doorkeeper of one server process; Nothing need be up yet."""
    addresses = ClientAddresses(config.trusted_proxies)
    client = connect(config.redis_url, timeout=_PATIENCE, connections=8)
    sessions = SessionStore(client, absolute=config.session_seconds, idle=config.idle_seconds)
    return kind(
        sessions,
        KeyStore(client),
        config.names,
        audit=audit,
        users=UserBook.of(config.users_url) if config.users_url else None,
        addresses=addresses,
        headers=TrustedHeader(addresses, config.proxy_secret, config.group_roles) if config.proxy_secret else None,
        sign_on=SingleSignOn(_provider(config.oidc, config.group_roles), sessions) if config.oidc else None,
        uses=KeyUses(client),
        idle=config.idle_seconds,
    )


def _provider(config: OidcConfig, roles: Mapping[str, Role]) -> Provider:
    try:
        module = import_module("pipeline_platform.access.oidc")
    except ModuleNotFoundError as error:
        raise SettingError(
            f"PIPELINE_OIDC_ISSUER needs {error.name}, of an extra: pip install 'pipeline-platform[oidc]'."
        ) from None
    provider: Provider = module.OidcProvider(config, roles)
    return provider
