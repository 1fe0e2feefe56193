"""Fixtures of the command line's tests: a stack as `up` would leave it in a state folder."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from pipeline_platform.local.connections import Connections
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.keys import KeyStore
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse.engine import connect as connect_warehouse
from pipeline_platform.warehouse.migrate import migrate
from pipeline_platform_tests.integration.test_cli.kit import Network, network_before
from pipeline_platform_tests.integration.test_gateway.kit import SPECS, Pipeline, serving


@pytest.fixture(scope="session")
def template_database(postgres_server: PostgresServer) -> str:
    """A migrated database that each test's own is cloned from."""
    name = f"cli_template_{uuid.uuid4().hex}"  # other folders use this fixture in the same session
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    engine = connect_warehouse(postgres_server.url(name))
    migrate(engine, SPECS.values())
    engine.dispose()
    return name


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands find the stack by its folder, whatever the environment of the test run says."""
    for name in ("DATABASE_URL", "REDIS_URL", "PIPELINE_STREAMS_DIR", "PIPELINE_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)


@dataclass(frozen=True)
class Stack:
    """Servers that run, and the folder that says where; `pipeline` does by hand what Dagster does."""

    folder: Path
    where: Connections
    pipeline: Pipeline

    def values(self) -> list[float]:
        """Every value in the warehouse, after loading what waits."""
        self.pipeline.run()
        with self.pipeline.engine.connect() as connection:
            return sorted(connection.scalars(sa.text("select value from telemetry")))


@pytest.fixture
def servers(database_url: str, redis_url: str, state_dir: Path) -> Iterator[Stack]:
    """PostgreSQL and Valkey without a gateway."""
    client = connect_queue(redis_url)
    _, token = KeyStore(client).create("first", ("ingest", "read", "admin"))
    where = Connections(
        "http://127.0.0.1:9", "http://dagster.test:3000", database_url, database_url, database_url, database_url,
        redis_url, token,
    )  # fmt: skip
    where.save(state_dir)
    engine = connect_warehouse(database_url)
    yield Stack(state_dir, where, Pipeline(engine, RedisStreams(client)))
    engine.dispose()
    client.close()


@pytest.fixture
def stack(servers: Stack) -> Iterator[Stack]:
    """The servers and a gateway."""
    settings = Settings.load(
        database_url=servers.where.warehouse_url,
        redis_url=servers.where.redis_url,
        dagster_url="http://dagster.test:3000",
    )
    with serving(settings) as url:
        where = Connections(**{**servers.where.__dict__, "gateway_url": url})
        where.save(servers.folder)
        yield Stack(servers.folder, where, servers.pipeline)


@pytest.fixture
def network(stack: Stack) -> Iterator[Network]:
    """A network in front of the gateway that can be told to fail."""
    with network_before(stack.where.gateway_url) as network:
        yield network
