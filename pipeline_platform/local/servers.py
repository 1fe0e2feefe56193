"""PostgreSQL and the queue's server for `up`: embedded, or one's own where the environment names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis
import sqlalchemy as sa

from pipeline_platform.errors import SettingError
from pipeline_platform.local.accounts import server_account
from pipeline_platform.local.connections import beside
from pipeline_platform.local.databases import ensure_databases, ensure_login
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.local.processes import Service, Step
from pipeline_platform.local.secret_files import secret
from pipeline_platform.local.valkey import ValkeyServer
from pipeline_platform.settings import Settings

READER_TIMEOUT_MS = 30_000


@dataclass(frozen=True)
class Database:
    """Where the warehouse and Dagster's database are, and what has to be done before and after migrating."""

    owner_url: str
    loader_url: str
    readonly_url: str
    dagster_url: str
    before: tuple[Service | Step, ...]
    after: tuple[Step, ...] = ()


@dataclass(frozen=True)
class QueueServer:
    """Where the queue is, and what has to be started for it."""

    url: str
    before: tuple[Service | Step, ...]


def database(settings: Settings, state_dir: Path) -> Database:
    """The embedded PostgreSQL, or the server of DATABASE_URL."""
    if settings.database_url:
        return _own_database(settings, settings.database_url)
    server = PostgresServer.prepare(state_dir, server_account())
    loader, reader = secret(state_dir, "loader"), secret(state_dir, "reader")

    def make() -> None:
        ensure_databases(server.url(), ["warehouse", "dagster"])

    def roles() -> None:
        ensure_login(server.url("warehouse"), "loader", loader, "pipeline_loader")
        ensure_login(server.url("warehouse"), "reader", reader, "pipeline_reader", READER_TIMEOUT_MS)

    return Database(
        owner_url=server.url("warehouse"),
        loader_url=server.url("warehouse", "loader", loader),
        readonly_url=server.url("warehouse", "reader", reader),
        dagster_url=server.url("dagster"),
        before=(server.service(), Step("databases", make)),
        after=(Step("roles", roles),),
    )


def _own_database(settings: Settings, owner: str) -> Database:
    url = sa.make_url(owner)
    plain = url.set(drivername="postgresql")
    dagster = settings.dagster_database_url or beside(owner)
    # Without a role of its own the reader is the owner who may not write.
    reading = plain.update_query_dict({"options": "-c default_transaction_read_only=on"})

    def make() -> None:
        if settings.dagster_database_url is None:
            ensure_databases(_text(plain), [str(sa.make_url(dagster).database)])

    return Database(
        owner_url=_text(plain),
        loader_url=settings.loader_database_url or _text(plain),
        readonly_url=settings.readonly_database_url or _text(reading),
        dagster_url=dagster,
        before=(Step("DATABASE_URL", lambda: _reach_database(_text(plain))), Step("databases", make)),
    )


def queue_server(settings: Settings, state_dir: Path) -> QueueServer:
    """The embedded Valkey, or the server of REDIS_URL."""
    own = settings.redis_url
    if own:
        return QueueServer(own, (Step("REDIS_URL", lambda: _reach_queue(own)),))
    server = ValkeyServer.prepare(state_dir, server_account(), max_memory=settings.queue_max_memory)
    return QueueServer(server.url(0), (server.service(),))


def _text(url: sa.URL) -> str:
    return url.render_as_string(hide_password=False)


def _reach_database(url: str) -> None:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.Error as error:
        raise SettingError(f"The server of DATABASE_URL cannot be used: {str(error).strip().splitlines()[0]}") from None


def _reach_queue(url: str) -> None:
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=5) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        raise SettingError(f"The server of REDIS_URL cannot be used: {error}") from None
