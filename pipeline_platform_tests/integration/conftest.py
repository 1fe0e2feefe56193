"""A migrated warehouse and Dagster's database, of the test's own, cloned from what is made once a session."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest
import sqlalchemy as sa
from dagster_postgres import DagsterPostgresStorage
from psycopg import sql

from pipeline_platform.core.streams import load_specs
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.memory import MemoryQueue
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.migrate import migrate
from pipeline_platform_tests.integration.batches import NOW_MS, UNIQUE, WIDE
from pipeline_platform_tests.integration.planning import World
from pipeline_platform_tests.integration.runtime_worker_kit import home

OTHERS_OUT = """
select pg_terminate_backend(pid, 5000) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
"""
# Streams stay registered, everything else goes: rows, numbers and partitions.
EMPTY = """
do $$
declare
    relation record;
begin
    for relation in
        select c.relname, c.relispartition from pg_class c
        where c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace
            and c.relname not in ('streams', 'pipeline_alembic_version')
        order by c.relispartition desc
    loop
        if relation.relispartition then
            execute format('drop table %I', relation.relname);
        else
            execute format('truncate %I restart identity cascade', relation.relname);
        end if;
    end loop;
end
$$
"""


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> str:
    """The name of a database with the shipped streams, WIDE and UNIQUE; nobody stays connected to it."""
    name = _clone(postgres_server, "template1")
    engine = connect(postgres_server.url(name))
    migrate(engine, [*load_specs().values(), WIDE, UNIQUE])
    engine.dispose()
    return name


@pytest.fixture(scope="session")
def shared_warehouse(postgres_server: PostgresServer, migrated_template: str) -> str:
    """The URL of a warehouse that tests take turns with; `warehouse_url` empties it for each."""
    return postgres_server.url(_clone(postgres_server, migrated_template))


@pytest.fixture
def warehouse_url(shared_warehouse: str) -> str:
    """The URL, as owner, of a migrated and empty warehouse. Its tables may be filled but not changed."""
    with psycopg.connect(shared_warehouse) as connection:
        connection.execute(OTHERS_OUT)
        connection.execute(EMPTY)
    return shared_warehouse


@pytest.fixture
def own_warehouse_url(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """The same for a test that changes tables or settings: slower, a database of its own."""
    yield from _own(postgres_server, migrated_template)


@pytest.fixture(scope="session")
def dagster_template(postgres_server: PostgresServer) -> str:
    """The name of a database with Dagster's tables; to make them takes a second."""
    name = _clone(postgres_server, "template1")
    url = sa.make_url(postgres_server.url(name)).set(drivername="postgresql+psycopg2")
    DagsterPostgresStorage(url.render_as_string(hide_password=False))  # makes them, and keeps no connection
    return name


@pytest.fixture
def dagster_url(postgres_server: PostgresServer, dagster_template: str) -> Iterator[str]:
    """The URL of a database of Dagster's without a run."""
    yield from _own(postgres_server, dagster_template)


@pytest.fixture
def dagster_home(tmp_path: Path, dagster_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DAGSTER_HOME whose runs go to the workers of runtime_worker_kit.py."""
    folder = home(tmp_path / "home", dagster_url, redis_url)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


@pytest.fixture
def instance(dagster_home: Path) -> Iterator[dg.DagsterInstance]:
    """The instance of that home."""
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def engine(warehouse_url: str) -> Iterator[sa.Engine]:
    """The owner's engine, with room for a handful of threads."""
    engine = connect(warehouse_url, pool_size=8)
    yield engine
    engine.dispose()


@pytest.fixture
def own_engine(own_warehouse_url: str) -> Iterator[sa.Engine]:
    """The owner's engine of the test's own database."""
    engine = connect(own_warehouse_url, pool_size=8)
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(engine: sa.Engine) -> Ledger:
    """The ledger of that warehouse."""
    return Ledger(engine)


def _clone(server: PostgresServer, template: str) -> str:
    name = f"clone_{uuid.uuid4().hex}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    _run(server, create.format(sql.Identifier(name), sql.Identifier(template)))
    return name


def _own(server: PostgresServer, template: str) -> Iterator[str]:
    """The URL of a clone that is dropped afterwards."""
    name = _clone(server, template)
    yield server.url(name)
    _run(server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _run(server: PostgresServer, statement: sql.Composed) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture(params=["memory", "redis"])
def world(request: pytest.FixtureRequest, engine: sa.Engine, ledger: Ledger) -> World:
    """An empty world, with either queue."""
    if request.param == "memory":
        return World(engine, MemoryQueue(lambda: NOW_MS), ledger)
    return World(engine, RedisStreams(connect_queue(request.getfixturevalue("redis_url"))), ledger)
