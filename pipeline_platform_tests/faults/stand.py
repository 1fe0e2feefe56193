"""The stack under test: `pipeline-platform up` as a process of its own, and what a fault needs to know of it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import psycopg
import redis

from pipeline_platform.core.streams import StreamSpec, load_specs
from pipeline_platform.local.connections import Connections, find_connections
from pipeline_platform.local.lock import open_state_dir
from pipeline_platform.local.process_table import everyone
from pipeline_platform.local.state import ServiceState, read_services
from pipeline_platform.settings import Settings
from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.faults import disks
from pipeline_platform_tests.faults.disks import Disk
from pipeline_platform_tests.oracle import Sent, wait_for
from pipeline_platform_tests.planted import FOLDER

SETTINGS = {
    # What was lost is looked for sooner than in production, and batches are small: more runs to hit, a shorter suite.
    "PIPELINE_LOST_RUN_AFTER": "10",
    "PIPELINE_BATCH_MAX_EVENTS": "5000",
    "PIPELINE_BACKLOG_MAX_EVENTS": "100000",
    "PIPELINE_QUEUE_MAX_MEMORY": str(512 * 2**20),
}


class Stand:
    """A running stack. `sent` is everything that was sent to it so far, by stream."""

    def __init__(self, *planted: str, env: dict[str, str] | None = None) -> None:
        # The supervisor's pauses are kept short (see planted/): 200 kills of a service would take two hours of waiting.
        path = os.pathsep.join([str(FOLDER), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        names = ",".join(["hasty", *planted])
        self.up = Up(env={**SETTINGS, "PYTHONPATH": path, "PYTHONPLANTED": names, **(env or {})})
        self.sent: dict[str, list[Sent]] = {}
        self.spoiled = False
        self.disks: dict[str, Disk] = {}

    def start(self) -> Stand:
        """Starts it, its servers on disks of their own where that is possible, and waits until it is up."""
        if not disks.missing():
            folder = open_state_dir(self.up.state_dir)
            for server in ("postgres", "valkey"):
                self.disks[server] = Disk.make(self.up.folder / f"{server}.ext4", folder / server)
        self.up.start()
        return self

    @property
    def where(self) -> Connections:
        """Its URLs and key."""
        return find_connections(Settings.load(state_dir=self.up.state_dir))

    def spec(self, stream: str) -> StreamSpec:
        """A stream's spec."""
        folder = self.up.env.get("PIPELINE_STREAMS_DIR")
        return load_specs(Path(folder) if folder else None)[stream]

    def services(self) -> dict[str, ServiceState]:
        """Its services by name, as they are."""
        return {service.name: service for service in read_services(self.up.state_dir)}

    def pid(self, service: str, patience: float = 60.0) -> int:
        """The process of a service, awaited until it is ready."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            found = self.services().get(service)
            if found is not None and found.state == "ready" and found.pid is not None:
                return found.pid
            time.sleep(0.05)
        raise AssertionError(f"{service} was not ready for {patience} s:\n{self.up.log[-4000:]}")

    def children(self, pid: int) -> list[int]:
        """The processes that `pid` has forked."""
        return [process.pid for process in everyone() if process.parent == pid]

    def restarts(self) -> int:
        """How often services were started again."""
        return sum(service.restarts for service in self.services().values())

    def wait_until_ready(self, patience: float = 120.0) -> float:
        """Waits until every service is ready; returns how long it took."""
        return wait_for(
            "every service is ready",
            lambda: {service.state for service in self.services().values()} == {"ready"},
            patience,
        )

    def database(self, database: str = "warehouse") -> psycopg.Connection[tuple[object, ...]]:
        """A connection as the superuser, who sees and ends everybody's; apart from the platform's own."""
        base = self.where.warehouse_url.rpartition("/")[0]
        secret = self.up.state_dir / "secrets" / "postgres"
        if secret.exists():  # not where the server is the test's own, whose superuser the owner is
            base = f"postgresql://postgres:{secret.read_text().strip()}@{base.rpartition('@')[2]}"
        url = f"{base}/{database}"
        return psycopg.connect(url, autocommit=True, connect_timeout=5, application_name="fault suite")

    def redis(self) -> redis.Redis:
        """A client of the queue's server, apart from the platform's own."""
        return redis.Redis.from_url(self.where.redis_url, socket_timeout=10)

    def remove(self) -> None:
        """Ends it and removes its folder."""
        self.up.end()
        for disk in self.disks.values():
            disk.remove()
        shutil.rmtree(self.up.folder, ignore_errors=True)
