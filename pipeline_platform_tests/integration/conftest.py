"""A migrated warehouse of the test's own, cloned from one that is migrated once a session."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from pipeline_platform.core.streams import load_specs
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.migrate import migrate
from pipeline_platform_tests.integration.batches import WIDE


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> str:
    """The name of a database with the shipped streams and WIDE; nobody stays connected to it."""
    name = f"template_{uuid.uuid4().hex}"
    _run(postgres_server, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    engine = connect(postgres_server.url(name))
    migrate(engine, [*load_specs().values(), WIDE])
    engine.dispose()
    return name


@pytest.fixture
def warehouse_url(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """The URL, as owner, of a migrated and empty warehouse."""
    name = f"warehouse_{uuid.uuid4().hex}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    _run(postgres_server, create.format(sql.Identifier(name), sql.Identifier(migrated_template)))
    yield postgres_server.url(name)
    _run(postgres_server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def engine(warehouse_url: str) -> Iterator[sa.Engine]:
    """The owner's engine, with room for a handful of threads."""
    engine = connect(warehouse_url, pool_size=8)
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(engine: sa.Engine) -> Ledger:
    """The ledger of that warehouse."""
    return Ledger(engine)


def _run(server: PostgresServer, statement: sql.Composed) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(statement)
