"""Servers for a measurement: embedded ones, durable, in a temporary folder, and a gateway; stopped at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline_platform.core.streams import load_specs
from pipeline_platform.local.accounts import server_account
from pipeline_platform.local.databases import ensure_databases
from pipeline_platform.local.lock import hold
from pipeline_platform.local.ports import free_port
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.local.supervisor import Supervisor
from pipeline_platform.local.valkey import ValkeyServer
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.migrate import migrate

HERE = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Servers:
    """The URLs of a migrated warehouse and an empty queue."""

    database_url: str
    redis_url: str


@contextmanager
def gateway(where: Servers, checkout: Path = HERE) -> Iterator[tuple[int, int]]:
    """The gateway of a checkout in a process of its own: its port and pid."""
    port = free_port()
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "REDIS_URL": where.redis_url,
        "DATABASE_URL": where.database_url,
        "PIPELINE_HOST": HOST,
        "PIPELINE_PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "pipeline_platform.gateway"], env=environment, cwd=checkout)
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://{HOST}:{port}/healthz", timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def servers(max_memory: int = 4 * 2**30) -> Iterator[Servers]:
    """Starts PostgreSQL and Valkey as `up` does, with full durability."""
    folder = Path(tempfile.mkdtemp(prefix="pipeline-bench-"))
    folder.chmod(0o755)
    try:
        with hold(folder / "state") as state:
            postgres = PostgresServer.prepare(state, server_account())
            valkey = ValkeyServer.prepare(state, server_account(), max_memory=max_memory)
            supervisor = Supervisor([postgres.service(), valkey.service()], lambda *_: None, state)
            supervisor.start()
            try:
                ensure_databases(postgres.url(), ["warehouse"])
                engine = connect(postgres.url("warehouse"))
                migrate(engine, load_specs().values())
                engine.dispose()
                yield Servers(postgres.url("warehouse"), valkey.url(0))
            finally:
                supervisor.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
