"""The quick daemon on a workspace of its own (`ticking.py`): who ticks when, health, ends and restarts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import dagster as dg
import psycopg
import pytest
import yaml
from dagster._daemon.controller import get_daemon_statuses
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pipeline_platform.gateway.dagster_gauges import DagsterGauges
from pipeline_platform.gateway.metrics import Metrics
from pipeline_platform.local.ports import free_port
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.local.probes import listens
from pipeline_platform.orchestration.runtime.storage import PooledPostgresStorage

CODE = "pipeline_platform_tests.integration.ticking"
TERMINATE = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s"
DAEMON = "pipeline_platform.orchestration.runtime.daemon"


class Home:
    """A DAGSTER_HOME with a code server and the daemon."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder, self.database_url, self.port = folder, database_url, free_port()
        self.started = 0.0
        self.notes = folder / "notes"
        self.notes.touch()
        config = {"postgres_url": database_url}
        custom = {"module": PooledPostgresStorage.__module__, "class": PooledPostgresStorage.__name__, "config": config}
        (folder / "dagster.yaml").write_text(
            yaml.safe_dump(
                {
                    "storage": {"custom": custom},
                    "sensors": {"use_threads": True, "num_workers": 8},
                    "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
                    "telemetry": {"enabled": False},
                }
            )
        )
        server = {"host": "127.0.0.1", "port": self.port, "location_name": "ticking"}
        (folder / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))

    @contextlib.contextmanager
    def process(self, argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
        """A Python module that runs meanwhile; its output goes to a file beside dagster.yaml."""
        env = {**os.environ, "DAGSTER_HOME": str(self.folder), "TICKING_NOTES": str(self.notes)}
        with (self.folder / f"{argv[0]}.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", *argv], env=env, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def code_server(self) -> Iterator[subprocess.Popen[bytes]]:
        argv = ["dagster", "api", "grpc", "--module-name", CODE, "--host", "127.0.0.1", "--port", str(self.port)]
        with self.process([*argv, "--location-name", "ticking", "--max-workers", "16"]) as process:
            until(listens("127.0.0.1", self.port), 60)
            yield process

    def daemon(self) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        return self.process([DAEMON, "--workspace", str(self.folder / "workspace.yaml"), "--log-level", "warning"])

    def times(self, name: str, since: float = 0.0) -> list[float]:
        """When it was asked after `since` and `started`, in seconds since the epoch."""
        lines = (line.split() for line in self.notes.read_text().splitlines())
        return [float(at) for who, at in lines if who == name and float(at) >= max(since, self.started)]

    def failures(self) -> int:
        """Failed ticks of all sensors."""
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute("select count(*) from job_ticks where status = 'FAILURE'").fetchone()
        return int(row[0]) if row else 0

    @contextlib.contextmanager
    def database_away(self) -> Iterator[None]:
        """Nobody can stay connected or connect anew."""
        database = str(conninfo_to_dict(self.database_url)["dbname"])
        name = sql.Identifier(database)
        admin = make_conninfo(self.database_url, dbname="postgres")
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(sql.SQL("alter database {} allow_connections false").format(name))
            connection.execute(TERMINATE, [database])
            yield
            connection.execute(sql.SQL("alter database {} allow_connections true").format(name))

    def log(self) -> str:
        return (self.folder / f"{DAEMON}.log").read_text()


def until(true: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.05)


def gaps(times: Sequence[float]) -> list[float]:
    return sorted(after - before for before, after in pairwise(times))


def make_home(server: PostgresServer, folder: Path) -> Home:
    name = f"daemon_{uuid.uuid4().hex}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f'create database "{name}"'.encode())
    return Home(folder, server.url(name))


@pytest.fixture
def home(postgres_server: PostgresServer, tmp_path: Path) -> Home:
    """Nothing of it runs yet."""
    return make_home(postgres_server, tmp_path)


@pytest.fixture(scope="module")
def busy(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A daemon that has been at work for some seconds; `started` is the moment of its first ticks."""
    home = make_home(postgres_server, tmp_path_factory.mktemp("dagster"))
    with home.code_server(), home.daemon():
        until(lambda: home.times("slow"), 60)
        home.started = time.time()
        time.sleep(12)
        yield home


def test_continuous_sensors_tick_at_the_cadence_beside_a_slow_one(busy: Home) -> None:
    slow = busy.times("slow")
    assert slow
    beside = [at for at in busy.times("fast") if slow[0] < at < slow[0] + 3]
    assert len(beside) >= 15  # 0.05 s apart at best, and a tick takes time of two busy cores
    between = gaps(busy.times("waiting"))
    assert between[0] >= 0.5  # one in flight
    assert between[len(between) // 2] < 0.8  # and the next starts at once


def test_other_sensors_keep_their_interval(busy: Home) -> None:
    between = gaps(busy.times("ordinary"))
    assert between[0] >= 1.95
    assert between[-1] < 3.2
    assert gaps(busy.times("slow"))[0] >= 3


def test_heartbeats_are_healthy(busy: Home) -> None:
    with dg.DagsterInstance.from_config(str(busy.folder)) as instance:
        kinds = instance.get_required_daemon_types()
        statuses = get_daemon_statuses(instance, kinds)
    assert {"SENSOR", "SCHEDULER", "BACKFILL", "ASSET"} <= set(kinds)
    assert [kind for kind, status in statuses.items() if not status.healthy] == []


def test_metrics_tell_of_its_ticks_and_heartbeats(busy: Home) -> None:
    """Of the sensors in `ticking.py` one waits half a second in each tick, one sleeps for three."""
    metrics = Metrics()
    gauges = DagsterGauges(busy.database_url, metrics)
    gauges.refresh()
    gauges.close()

    def value(name: str, **labels: str) -> float:
        return metrics.registry.get_sample_value(f"pipeline_{name}", labels) or 0.0

    assert 0 < value("tick_average_seconds", sensor="fast") < 0.5
    assert 0.5 < value("tick_average_seconds", sensor="waiting") < 1
    assert 3 < value("tick_average_seconds", sensor="slow") <= value("tick_max_seconds", sensor="slow") < 5
    noted = len(busy.times("fast", time.time() - 60)) / 60
    assert value("ticks_per_second", sensor="fast", status="skipped") == pytest.approx(noted, rel=0.3)
    assert not value("tick_average_seconds", sensor="minutely")  # a schedule
    for daemon in ("SENSOR", "SCHEDULER", "BACKFILL", "ASSET"):
        assert time.time() - 60 < value("daemon_heartbeat_timestamp_seconds", daemon=daemon) <= time.time()
    assert value("event_log_bytes") > 0
    assert value("dagster_up") == 1


def test_a_schedule_fires_on_its_minute(busy: Home) -> None:
    until(lambda: busy.times("minutely"), 75)
    assert busy.times("minutely")[0] % 60 < 5


def test_survives_the_code_server_and_the_database(home: Home) -> None:
    with home.code_server() as first, home.daemon() as daemon:
        until(lambda: home.times("fast", time.time() - 1), 60)
        first.kill()
        first.wait()
        time.sleep(5)
        assert home.failures() <= 4 * 4  # each of the sensors a few times, not twenty times a second
        with home.code_server():
            back = time.time()
            until(lambda: len(home.times("fast", back)) > 20, 30)
            with home.database_away():
                time.sleep(3)
            back = time.time()
            until(lambda: len(home.times("fast", back)) > 20, 30)
            assert daemon.poll() is None


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_ends_soon_also_beside_a_slow_tick(home: Home, stop: signal.Signals) -> None:
    with home.code_server(), home.daemon() as daemon:
        until(lambda: home.times("slow"), 60)
        asked = time.monotonic()
        daemon.send_signal(stop)
        assert daemon.wait(10) == 0
        assert time.monotonic() - asked < 5
    assert "Traceback" not in home.log()
