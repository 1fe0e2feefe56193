"""PostgreSQL and the queue's server for `up`: embedded, or one's own where the environment names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis
import sqlalchemy as sa

from pipeline_platform.errors import SettingError
from pipeline_platform.local.accounts import server_account
from pipeline_platform.local.connections import beside
from pipeline_platform.local.databases import ensure_databases
from pipeline_platform.local.logins import (
    AFTER_MIGRATIONS,
    ANALYST,
    BEFORE_MIGRATIONS,
    DAGSTER,
    DAGSTER_READER,
    LOADER,
    LOGINS,
    OWNER,
    READER,
    close_database,
    deny_connections,
    ensure_groups,
    settle_login,
)
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.local.processes import Service, Step
from pipeline_platform.local.rotation import former_passwords
from pipeline_platform.local.secret_files import secret
from pipeline_platform.local.superuser import hand_over, settle_superuser
from pipeline_platform.local.valkey import ValkeyServer
from pipeline_platform.local.valkey_users import RULES
from pipeline_platform.settings import Settings


@dataclass(frozen=True)
class Database:
    """Where the warehouse and Dagster's database are, and what has to be done before and after migrating.

    `reader_url` is the gateway's, `analyst_url` people's.
    """

    owner_url: str
    loader_url: str
    reader_url: str
    analyst_url: str
    dagster_url: str
    dagster_reader_url: str
    before: tuple[Service | Step, ...]
    after: tuple[Step, ...] = ()


@dataclass(frozen=True)
class QueueServer:
    """Where the queue is, as an admin and as the other users by name, and what has to be started for it."""

    url: str
    users: Mapping[str, str]
    before: tuple[Service | Step, ...]


def database(settings: Settings, state_dir: Path) -> Database:
    """The embedded PostgreSQL, or the server of DATABASE_URL."""
    if settings.database_url:
        return _own_database(settings, settings.database_url)
    server = PostgresServer.prepare(state_dir, server_account())
    passwords = {login.name: secret(state_dir, login.name) for login in LOGINS}

    def login_url(login: str, name: str) -> str:
        return server.url(name, login, passwords[login])

    def make() -> None:
        settle_superuser(server, former_passwords(state_dir, "postgres"))
        for login in BEFORE_MIGRATIONS:
            settle_login(server.url(), login, passwords[login.name])
        ensure_groups(server.url())
        ensure_databases(server.url(), ["warehouse", "dagster"])
        hand_over(server.url("warehouse"), OWNER)
        hand_over(server.url("dagster"), DAGSTER)

    def roles() -> None:
        for login in AFTER_MIGRATIONS:
            settle_login(server.url(), login, passwords[login.name])
        close_database(server.url("warehouse"), (LOADER, READER, ANALYST))
        close_database(server.url("dagster"), (DAGSTER_READER,))
        deny_connections(server.url(), ("postgres", "template1"))

    return Database(
        owner_url=login_url(OWNER, "warehouse"),
        loader_url=login_url(LOADER, "warehouse"),
        reader_url=login_url(READER, "warehouse"),
        analyst_url=login_url(ANALYST, "warehouse"),
        dagster_url=login_url(DAGSTER, "dagster"),
        dagster_reader_url=login_url(DAGSTER_READER, "dagster"),
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

    reader = settings.readonly_database_url or _text(reading)
    return Database(
        owner_url=_text(plain),
        loader_url=settings.loader_database_url or _text(plain),
        reader_url=reader,
        analyst_url=settings.analyst_database_url or reader,
        dagster_url=dagster,
        dagster_reader_url=dagster,
        before=(Step("DATABASE_URL", lambda: _reach_database(_text(plain))), Step("databases", make)),
    )


def queue_server(settings: Settings, state_dir: Path) -> QueueServer:
    """The embedded Valkey, or the server of REDIS_URL."""
    own = settings.redis_url
    if own:
        return QueueServer(own, {}, (Step("REDIS_URL", lambda: _reach_queue(own)),))
    server = ValkeyServer.prepare(state_dir, server_account(), max_memory=settings.queue_max_memory)
    return QueueServer(server.url(), {user: server.url(user=user) for user in RULES}, (server.service(),))


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
