"""A stack on servers of one's own, behind proxies: between gateway and queue, and between runs and warehouse."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline_platform.local.accounts import server_account
from pipeline_platform.local.databases import ensure_databases
from pipeline_platform.local.lock import open_state_dir
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.local.state import read_services
from pipeline_platform.local.supervisor import Supervisor
from pipeline_platform.local.valkey import ValkeyServer
from pipeline_platform_tests.faults.proxy import CALM, Proxy
from pipeline_platform_tests.faults.stand import Stand
from pipeline_platform_tests.planted import FOLDER


class ProxiedStand(Stand):
    """`queue` is between everybody and Redis, `warehouse` between runs, sensors and PostgreSQL.

    Celery's broker and Dagster's own database are reached directly. What `planted/` has is planted.
    """

    def __init__(self, seed: int) -> None:
        super().__init__("decode", "bugs", env={"PIPELINE_STREAMS_DIR": str(FOLDER / "streams")})
        self._folder = Path(tempfile.mkdtemp(prefix="pipeline-own-"))
        self._folder.chmod(0o755)
        self._state_dir = open_state_dir(self._folder / "state")
        self._postgres = PostgresServer.prepare(self._state_dir, server_account(), durable=False)
        self._valkey = ValkeyServer.prepare(self._state_dir, server_account(), max_memory=512 * 2**20)
        plan = [self._postgres.service(), self._valkey.service()]
        self._servers = Supervisor(plan, lambda name, line: None, self._state_dir)
        self.queue = Proxy(self._valkey.host, self._valkey.port, random.Random(f"{seed}/queue"))
        self.warehouse = Proxy(self._postgres.host, self._postgres.port, random.Random(f"{seed}/warehouse"))

    def start(self) -> Stand:
        """Starts the servers, and the stack on them."""
        self._servers.start()
        ensure_databases(self._postgres.url(), ["warehouse", "dagster"])
        self.up.env |= {
            "DATABASE_URL": self._postgres.url("warehouse"),
            "PIPELINE_LOADER_DATABASE_URL": _through(self._postgres.url("warehouse"), self._postgres, self.warehouse),
            "PIPELINE_DAGSTER_DATABASE_URL": self._postgres.url("dagster"),
            "REDIS_URL": _through(self._valkey.url(0), self._valkey, self.queue),
            "PIPELINE_BROKER_URL": self._valkey.url(1),
        }
        self.up.start()
        return self

    @contextmanager
    def without_postgres(self) -> Iterator[None]:
        """A server that is shut down during the block: every connection is refused, also Dagster's own."""
        (pid,) = (each.pid for each in read_services(self._state_dir) if each.name == "postgres")
        assert pid is not None
        os.kill(pid, signal.SIGINT)
        try:
            yield
        finally:
            until = time.monotonic() + 60.0
            while time.monotonic() < until and not self._postgres.service().ready():
                self._servers.watch_once()
                time.sleep(0.1)

    def calm(self) -> None:
        """Fair weather again; what was held open is reset."""
        for proxy in (self.queue, self.warehouse):
            proxy.weather = CALM
            proxy.thaw()

    def remove(self) -> None:
        """Ends the stack, the proxies and the servers."""
        super().remove()
        self.queue.close()
        self.warehouse.close()
        self._servers.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _through(url: str, server: PostgresServer | ValkeyServer, proxy: Proxy) -> str:
    return url.replace(f"@{server.host}:{server.port}/", f"@127.0.0.1:{proxy.port}/")
