"""Fixtures of the gateway's tests: a migrated warehouse, keys, a served app."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
import redis
import sqlalchemy as sa

from pipeline_platform.gateway import fresh
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.local.valkey import ValkeyServer
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.keys import KeyStore
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse.engine import connect as connect_warehouse
from pipeline_platform.warehouse.migrate import migrate
from pipeline_platform_tests.integration.test_gateway.kit import ROOMY, SPECS, Client, Pipeline, Shared, serving


@pytest.fixture(autouse=True)
def _nothing_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests ask for is as it is now."""
    monkeypatch.setattr(fresh, "FRESH_SECONDS", 0.0)


@pytest.fixture(scope="session")
def template_database(postgres_server: PostgresServer) -> str:
    """A migrated database that each test's own is cloned from."""
    name = f"gateway_template_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    engine = connect_warehouse(postgres_server.url(name))
    migrate(engine, SPECS.values())
    engine.dispose()
    return name


@pytest.fixture(scope="session")
def shared(postgres_server: PostgresServer, valkey_server: ValkeyServer, template_database: str) -> Iterator[Shared]:
    """A gateway for all tests that do not count what others did."""
    name = f"gateway_shared_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}".encode())
    database_url, redis_url = postgres_server.url(name), valkey_server.url(1)
    engine, redis_client = connect_warehouse(database_url), connect_queue(redis_url)
    redis_client.flushdb()
    _, token = KeyStore(redis_client).create("shared", ["admin"])
    with serving(Settings.load(database_url=database_url, redis_url=redis_url, **ROOMY)) as base:
        client = Client(base, token)
        yield Shared(client, Pipeline(engine, RedisStreams(redis_client)))
        client.close()
    redis_client.close()
    engine.dispose()


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """The test's warehouse, as its owner."""
    engine = connect_warehouse(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """The test's Redis database."""
    client = connect_queue(redis_url)
    yield client
    client.close()


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """Settings for the test's servers."""
    return Settings.load(
        database_url=database_url, redis_url=redis_url, dagster_url="http://dagster.test:3000", **ROOMY
    )


@pytest.fixture
def pipeline(engine: sa.Engine, redis_client: redis.Redis) -> Pipeline:
    """The pipeline behind the gateway, by hand."""
    return Pipeline(engine, RedisStreams(redis_client))


@pytest.fixture
def token_for(redis_client: redis.Redis) -> Callable[..., str]:
    """Makes a key with the scopes and gives its token."""
    return lambda *scopes: KeyStore(redis_client).create("test", scopes)[1]


@pytest.fixture
def connected(token_for: Callable[..., str]) -> Iterator[Callable[..., Client]]:
    """Makes clients of a base URL with a key of these scopes."""
    clients: list[Client] = []

    def make(base: str, *scopes: str) -> Client:
        clients.append(Client(base, token_for(*scopes) if scopes else ""))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def base(settings: Settings) -> Iterator[str]:
    """A gateway with these settings."""
    with serving(settings) as url:
        yield url


@pytest.fixture
def client(base: str, connected: Callable[..., Client]) -> Client:
    """An admin of that gateway."""
    return connected(base, "admin")
