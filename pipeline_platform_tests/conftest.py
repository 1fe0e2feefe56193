"""Real servers for every test that wants one: one PostgreSQL and one Valkey a session, a fresh database a test."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from pipeline_platform.local.accounts import server_account
from pipeline_platform.local.lock import open_state_dir
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.local.processes import Service
from pipeline_platform.local.supervisor import Supervisor
from pipeline_platform.local.valkey import ValkeyServer
from pipeline_platform_tests.sharing import SharedStackScheduling

VALKEY_MEMORY = 256 * 2**20
_redis_databases = itertools.cycle(range(2, 16))  # 0 and 1 are left to code that chooses its own


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharedStackScheduling:
    """How `pytest -n` hands out the tests."""
    return SharedStackScheduling(config, log)


def make_state_dir() -> Path:
    """A new state folder that the server account can reach; pytest's own tmp_path is closed to it when root."""
    folder = Path(tempfile.mkdtemp(prefix="pipeline-test-"))
    folder.chmod(0o755)
    return open_state_dir(folder / "state")


def running(service: Service, state_dir: Path) -> Iterator[None]:
    """Keep the service running while a fixture is in use; the reaper ends it even when pytest is killed."""
    supervisor = Supervisor([service], lambda name, line: None, state_dir)
    supervisor.start()
    try:
        yield
    finally:
        supervisor.stop()


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A state folder of the test's own."""
    folder = make_state_dir()
    yield folder
    shutil.rmtree(folder.parent)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running PostgreSQL, shared by the session; `.url()` is its superuser's. It skips fsync, for speed."""
    folder = make_state_dir()
    server = PostgresServer.prepare(folder, server_account(), durable=False)
    for _ in running(server.service(), folder):
        yield server
    shutil.rmtree(folder.parent)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    """A running Valkey, shared by the session, as durable as in production."""
    folder = make_state_dir()
    server = ValkeyServer.prepare(folder, server_account(), max_memory=VALKEY_MEMORY)
    for _ in running(server.service(), folder):
        yield server
    shutil.rmtree(folder.parent)


@pytest.fixture(scope="session")
def template_database() -> str | None:
    """The database that `database_url` clones. A folder's conftest overrides it with a migrated one."""
    return None


@pytest.fixture
def database_url(postgres_server: PostgresServer, template_database: str | None) -> Iterator[str]:
    """The libpq URL (postgresql://...) of a database of the test's own, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template_database or "template1")))
    yield postgres_server.url(name)
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def redis_url(valkey_server: ValkeyServer) -> str:
    """The URL of an empty database number. Channels of publish and subscribe are shared by all numbers."""
    url = valkey_server.url(next(_redis_databases))
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url
