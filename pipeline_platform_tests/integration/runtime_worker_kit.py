"""Jobs, a worker and an instance of Dagster for the tests of the fast runtime. The worker's processes import it too."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import dagster as dg
import sqlalchemy as sa
import yaml
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository

from pipeline_platform.orchestration.runtime.worker import ARGUMENTS, build_worker_app
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.workers import WorkerBoard

MODULE = "pipeline_platform_tests.integration.runtime_worker_kit"
ORDER = {"queue_order_strategy": "priority"}
QUEUES = ("ingest", "etl", "backfill")
CLONE = Path(__file__).resolve().parents[2]
loads = itertools.count(1)


@dg.op
def first() -> int:
    return 1


@dg.op
def after(number: int) -> int:
    return number + 1


@dg.job(executor_def=dg.in_process_executor)
def five() -> None:
    after.alias("e")(after.alias("d")(after.alias("c")(after.alias("b")(first()))))


@dg.job(executor_def=dg.in_process_executor)
def five_more() -> None:
    after.alias("e")(after.alias("d")(after.alias("c")(after.alias("b")(first()))))


@dg.op(config_schema={"seconds": float, "note": str})
def rest(context: dg.OpExecutionContext) -> None:
    """Leaves a line in the note when it starts and when it ends."""
    note = Path(context.op_config["note"])
    with note.open("a") as file:
        file.write(f"start {os.getpid()}\n")
    until = time.monotonic() + context.op_config["seconds"]
    while time.monotonic() < until:
        time.sleep(0.05)
    with note.open("a") as file:
        file.write("end\n")


@dg.job(executor_def=dg.in_process_executor)
def sleeper() -> None:
    rest()


@dg.repository
def location() -> list[dg.JobDefinition]:
    """Notes how often it is loaded, and in which process."""
    with Path(os.environ.get("KIT_LOADS", os.devnull)).open("a") as file:
        file.write(f"{os.getpid()} {next(loads)}\n")
    time.sleep(float(os.environ.get("KIT_LOAD_SECONDS", "0")))
    return [five, five_more, sleeper]


app: Any = None
if "KIT_BROKER" in os.environ:
    visibility = float(os.environ.get("KIT_VISIBILITY", "86400"))
    every_second = {"unacked_restore_interval": 1, "unacked_restore_throttle": 1}  # else every 100 s
    app = build_worker_app(
        os.environ["KIT_BROKER"],
        queues=QUEUES,
        locations=[f"{MODULE}:location"],
        max_tasks_per_child=int(os.environ.get("KIT_TASKS", "0")) or None,
        ready_file=Path(os.environ["KIT_READY"]),
        beat=WorkerBoard(connect(os.environ["KIT_BROKER"], timeout=0.5)).beat,
        settings={"broker_transport_options": {"visibility_timeout": visibility, **every_second, **ORDER}},
    )


def home(folder: Path, database: str, broker: str, extra: Mapping[str, Any] | None = None) -> Path:
    """A DAGSTER_HOME on the test's own servers."""
    url = sa.make_url(database).set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)
    settings: dict[str, Any] = {
        "storage": {"postgres": {"postgres_url": url}},
        "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
        "run_launcher": {
            "module": "pipeline_platform.orchestration.runtime.launcher",
            "class": "WarmCeleryRunLauncher",
            "config": {"broker": broker, "default_queue": QUEUES[0]},
        },
        "run_monitoring": {"enabled": True, "poll_interval_seconds": 2, "max_resume_run_attempts": 0},
        "compute_logs": {
            "module": "dagster._core.storage.noop_compute_log_manager",
            "class": "NoOpComputeLogManager",
        },
        "telemetry": {"enabled": False},
    }
    folder.mkdir(exist_ok=True)
    (folder / "dagster.yaml").write_text(yaml.safe_dump(settings | dict(extra or {})))
    return folder


class Worker:
    """A worker process with its children."""

    def __init__(
        self, folder: Path, broker: str, *, name: str = "one", children: int = 2, ready: bool = True, **env: str
    ) -> None:
        self._ready = folder / f"ready-{name}"
        self._ready.unlink(missing_ok=True)
        self.loads = folder / f"loads-{name}"
        self.log = folder / f"log-{name}"
        queues = env.pop("queues", ",".join(QUEUES))
        module = env.pop("module", MODULE)
        environment = os.environ | {
            "DAGSTER_HOME": str(folder),
            "KIT_BROKER": broker,
            "KIT_READY": str(self._ready),
            "KIT_LOADS": str(self.loads),
            "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": os.pathsep.join((str(CLONE), os.environ.get("PYTHONPATH", ""))),
        }
        argv = [sys.executable, "-m", "celery", "--quiet", "-A", module, "worker", *ARGUMENTS]
        argv += ["--concurrency", str(children), "--queues", queues, "--hostname", f"{name}@test"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, env=environment | env, stdout=log, stderr=log, cwd=folder)
        if ready:
            self.wait()

    def wait(self) -> None:
        """Returns when it takes tasks."""
        wait_until("the worker is ready", lambda: self._ready.exists() or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.log.read_text()

    def children(self) -> list[int]:
        """The processes that execute runs."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def kill(self) -> None:
        """SIGKILL of the parent; its children die with it."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """The polite way first."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


def submit(
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    run_config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Launches a run, as the daemon does; its id."""
    origin = ReconstructableJob(ReconstructableRepository.for_module(MODULE, "location"), job.name)
    run = instance.create_run_for_job(job, run_config=run_config, job_code_origin=origin.get_python_origin(), tags=tags)
    instance.launch_run(run.run_id, cast(Any, None))
    return run.run_id


def status(instance: dg.DagsterInstance, run_id: str) -> str:
    """The run's status by name."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status.value


def statuses(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """Every change of the run's status, in order."""
    kinds = {dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_CANCELED}
    return [
        str(entry.dagster_event_type and entry.dagster_event_type.value) for entry in instance.all_logs(run_id, kinds)
    ]


def wait_until(what: str, done: Callable[[], bool], seconds: float = 15.0) -> float:
    """How many seconds it took."""
    start = time.monotonic()
    while not done():
        if time.monotonic() - start > seconds:
            raise AssertionError(f"Not after {seconds} s: {what}.")
        time.sleep(0.05)
    return time.monotonic() - start


def monitored(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Dagster's own daemon, with its monitoring of runs."""
    log = (folder / "log-daemon").open("ab")
    argv = [sys.executable, "-m", "dagster._daemon", "run", "--empty-workspace", "--log-level", "info"]
    process = subprocess.Popen(
        argv, env=os.environ | {"DAGSTER_HOME": str(folder), "PYTHONWARNINGS": "ignore"}, stdout=log, stderr=log
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)
        log.close()
