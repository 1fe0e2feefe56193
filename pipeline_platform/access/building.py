"""How both servers get their doorkeeper, from one value."""

from __future__ import annotations

from pipeline_platform.access.addresses import ClientAddresses
from pipeline_platform.access.config import AccessConfig
from pipeline_platform.access.doorkeeper import Doorkeeper, Record, Refused
from pipeline_platform.access.trusted_header import TrustedHeader
from pipeline_platform.access.user_book import UserBook
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.keys import KeyStore
from pipeline_platform.queue.sessions import SessionStore

_PATIENCE = 3.0  # seconds that a login waits for Redis


def build_doorkeeper(
    config: AccessConfig, record: Record, refused: Refused | None = None, *, kind: type[Doorkeeper] = Doorkeeper
) -> Doorkeeper:
    """The doorkeeper of one server process; `record` and `refused` are the audit's. Nothing need be up yet."""
    addresses = ClientAddresses(config.trusted_proxies)
    client = connect(config.redis_url, timeout=_PATIENCE, connections=8)
    return kind(
        SessionStore(client, absolute=config.session_seconds, idle=config.idle_seconds),
        KeyStore(client),
        config.names,
        record=record,
        refused=refused,
        users=UserBook.of(config.users_url) if config.users_url else None,
        addresses=addresses,
        headers=TrustedHeader(addresses, config.proxy_secret, config.group_roles) if config.proxy_secret else None,
        idle=config.idle_seconds,
    )
