"""Trivial runs through a sensor, our runtime beside stock Dagster: how many runs a second come to their end.

    python -m benchmarks.trivial [--requests 500] [--stock-requests 40]

A sensor requests all the runs at once; each has five ops that do nothing, executed in one process. Ours: the quick
daemon, pooled storage and one worker with two warm children (dagster.yaml as shipped). Stock: Dagster's own daemon,
PostgreSQL storage and launcher, a process a run (stock_dagster.yaml); it gets fewer requests, since its rate does not
depend on their number. Runs a second are counted from the first run created to the last one ended, by Dagster's tables.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import sqlalchemy as sa

from benchmarks.servers import Servers, servers
from pipeline_platform.local.databases import ensure_databases
from pipeline_platform.local.ports import free_port
from pipeline_platform.local.probes import daemon_beats, listens
from pipeline_platform.orchestration.runtime.daemon import CONTINUOUS
from pipeline_platform.orchestration.runtime.worker import ARGUMENTS
from pipeline_platform_tests.oracle import wait_for

ROOT = Path(__file__).resolve().parent.parent
JOBS = "benchmarks.trivial_jobs"
WARM_UP = 4
CHILDREN = 2


@dataclass(frozen=True)
class Kind:
    """One way to run Dagster. `{workspace}` and `{port}` in a command are filled in."""

    name: str
    settings: Path
    interval: int
    code_server: Sequence[str]
    daemon: Sequence[str]
    worker: Sequence[str] = ()


OURS = Kind(
    "ours",
    ROOT / "dagster.yaml",
    CONTINUOUS,
    ("pipeline_platform.orchestration.runtime.code_server",),
    ("pipeline_platform.orchestration.runtime.daemon",),
    ("celery", "--quiet", "-A", "benchmarks.trivial_worker", "worker", *ARGUMENTS, "--concurrency", str(CHILDREN)),
)
STOCK = Kind(
    "stock", ROOT / "benchmarks" / "stock_dagster.yaml", 1, ("dagster", "api", "grpc"), ("dagster._daemon", "run")
)


def measure(kind: Kind, where: Servers, folder: Path, requests: int) -> float:
    """Runs a second."""
    ensure_databases(where.database_url, [kind.name])
    database = where.database_url.rpartition("/")[0] + f"/{kind.name}"
    home, port = folder / kind.name, free_port()
    home.mkdir()
    shutil.copy(kind.settings, home / "dagster.yaml")
    workspace = home / "workspace.yaml"
    workspace.write_text(f"load_from:\n  - grpc_server: {{host: 127.0.0.1, port: {port}, location_name: trivial}}\n")
    wanted, ready = home / "wanted", home / "ready"
    storage = sa.make_url(database).set(drivername="postgresql+psycopg2")
    storage = storage.update_query_dict({"options": "-c synchronous_commit=off"})  # as `up` has it, for both
    environment = {
        "DAGSTER_HOME": str(home),
        "DAGSTER_POSTGRES_URL": storage.render_as_string(hide_password=False),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "PIPELINE_BROKER_URL": where.redis_url.rpartition("/")[0] + "/1",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "TRIVIAL_INTERVAL": str(kind.interval),
        "TRIVIAL_READY": str(ready),
        "TRIVIAL_REQUESTS": str(wanted),
    }
    code_server = [*kind.code_server, "--module-name", JOBS, "--host", "127.0.0.1", "--port", str(port)]
    commands = [[*code_server, "--location-name", "trivial", "--log-level", "warning"]]
    commands += [[*kind.worker, "--loglevel", "WARNING"]] if kind.worker else []
    with running(commands, home, environment):
        wait_for("the code server listens", listens("127.0.0.1", port), 60)
        if kind.worker:
            wait_for("the worker takes runs", ready.exists, 60)
        daemon = [*kind.daemon, "--workspace", str(workspace), "--log-level", "warning"]
        with running([daemon], home, environment):
            wait_for("the daemon beats", daemon_beats(database), 60)
            wanted.write_text(str(WARM_UP))
            wait_for("the warm-up is over", lambda: ended(database) == WARM_UP, 120)
            wanted.write_text(str(WARM_UP + requests))
            wait_for("all runs are over", lambda: ended(database) == WARM_UP + requests, 60 + requests)
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "select max(end_time), extract(epoch from min(create_timestamp) at time zone 'UTC'), "
            "count(*) filter (where status = 'SUCCESS') from (select * from runs order by id offset %s) r",
            [WARM_UP],
        ).fetchone()
    assert row is not None
    if row[2] != requests:
        raise SystemExit(f"{requests - row[2]} runs did not succeed")
    return requests / (float(row[0]) - float(row[1]))


def ended(database_url: str) -> int:
    """How many runs have come to their end."""
    query = "select count(*) from runs where status in ('SUCCESS', 'FAILURE', 'CANCELED')"
    with psycopg.connect(database_url) as connection:
        row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


@contextmanager
def running(commands: Sequence[Sequence[str]], folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """The modules as processes of their own, ended with the block; what they say is kept in the folder."""
    processes = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.log").open("ab") as log:
                argv = [sys.executable, "-m", *command]
                processes.append(
                    subprocess.Popen(argv, env=os.environ | environment, cwd=folder, stdout=log, stderr=log)
                )
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--stock-requests", type=int, default=40)
    options = parser.parse_args()
    print(f"{'':<8}{'requests':>10}{'runs/s':>10}", flush=True)
    rates = {}
    with servers() as where, tempfile.TemporaryDirectory(prefix="pipeline-bench-") as folder:
        for kind, requests in ((STOCK, options.stock_requests), (OURS, options.requests)):
            rates[kind.name] = measure(kind, where, Path(folder), requests)
            print(f"{kind.name:<8}{requests:>10}{rates[kind.name]:>10.1f}", flush=True)
    print(f"\nratio: {rates['ours'] / rates['stock']:.1f}")


if __name__ == "__main__":
    main()
