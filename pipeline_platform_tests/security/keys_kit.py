"""Fixtures for keys, receipts and the audit: a migrated warehouse with its logins, keys, a served app.

A test module takes those it wants by assignment (`engine = keys_kit.engine`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
import redis
import sqlalchemy as sa
from psycopg import sql

from pipeline_platform.local.logins import Login, settle_login
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.keys import KeyStore
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.migrate import migrate
from pipeline_platform_tests.integration.test_gateway.kit import SPECS, Client, Pipeline, serving

TEMPLATE = "keys_template"


@pytest.fixture(scope="session")
def template_database(postgres_server: PostgresServer) -> str:
    """A migrated database that each test's own is cloned from."""
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        there = connection.execute("select true from pg_database where datname = %s", [TEMPLATE]).fetchone()
        if there:  # by another module that took this fixture
            return TEMPLATE
        connection.execute(f"CREATE DATABASE {TEMPLATE}".encode())
    engine = connect(postgres_server.url(TEMPLATE))
    migrate(engine, SPECS.values())
    engine.dispose()
    return TEMPLATE


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """The test's warehouse, as its owner."""
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def login_url(database_url: str, postgres_server: PostgresServer) -> Iterator[Callable[[str], str]]:
    """Makes a login in a role and gives its URL."""
    names: list[str] = []

    def make(role: str) -> str:
        names.append(f"test_{uuid.uuid4().hex}")
        settle_login(database_url, Login(names[-1], member_of=role), "secret")
        url = sa.make_url(database_url).set(username=names[-1], password="secret")
        return url.render_as_string(hide_password=False)

    yield make
    for name in names:
        with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
            connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [name])
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def loader(login_url: Callable[[str], str]) -> Iterator[sa.Engine]:
    """The test's warehouse, as a loader."""
    engine = connect(login_url("pipeline_loader"))
    yield engine
    engine.dispose()


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """The test's Redis database."""
    client = connect_queue(redis_url)
    yield client
    client.close()


@pytest.fixture
def store(redis_client: redis.Redis) -> KeyStore:
    """The test's keys."""
    return KeyStore(redis_client)


@pytest.fixture
def settings(database_url: str, redis_url: str, login_url: Callable[[str], str]) -> Settings:
    """Settings for the test's servers, each database login as in production."""
    return Settings.load(
        database_url=database_url,
        loader_database_url=login_url("pipeline_loader"),
        readonly_database_url=login_url("pipeline_reader"),
        redis_url=redis_url,
        dagster_url="http://dagster.test:3000",
    )


@pytest.fixture
def pipeline(engine: sa.Engine, redis_client: redis.Redis) -> Pipeline:
    """The pipeline behind the gateway, by hand."""
    return Pipeline(engine, RedisStreams(redis_client))


@pytest.fixture
def base(settings: Settings) -> Iterator[str]:
    """A gateway."""
    with serving(settings) as url:
        yield url


@pytest.fixture
def connected(base: str, store: KeyStore) -> Iterator[Callable[..., Client]]:
    """Makes clients of the gateway with a key of these scopes and streams."""
    clients: list[Client] = []

    def make(*scopes: str, streams: tuple[str, ...] = ()) -> Client:
        clients.append(Client(base, store.create("test", scopes, streams=streams)[1] if scopes else ""))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
