"""A Celery app that executes Dagster runs in warm children: `dagster-celery`'s task names, none of its start-up cost.

The parent imports and loads before it forks, so that every child, a replacement too, is born warm and shares the
memory. What must not cross a fork (connections, threads) is opened by the child. Prefork only: Dagster sets up
logging in every run, which deadlocks in a pool of threads.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import Celery, signals
from celery.worker import state as worker_state
from celery.worker.control import control_command, inspect_command
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import unpack_value
from dagster_celery.config import TASK_EXECUTE_JOB_NAME, TASK_RESUME_JOB_NAME
from kombu import Queue

from pipeline_platform.orchestration.runtime.warm_child import WarmChild
from pipeline_platform.orchestration.runtime.warm_jobs import load_location

INTERNALS = (
    ("dagster._grpc.types.ExecuteRunArgs", ("run_id",)),
    ("dagster._serdes.unpack_value", ("val", "as_type")),
    ("dagster_celery.config.TASK_EXECUTE_JOB_NAME", ()),
    ("dagster_celery.config.TASK_RESUME_JOB_NAME", ()),
)
# For `celery worker`, beside `--queues` and `--concurrency`.
ARGUMENTS = ("--pool", "prefork", "--without-gossip", "--without-mingle")
DAY = 86_400
REPLACE_INTERVAL, BEAT_INTERVAL = 0.1, 2.0  # seconds
RUNS_COMMAND, END_COMMAND = "dagster_runs", "dagster_end_task"
# Tells somebody that a worker lives: its name, the number of its children, and how many of them execute a run.
Beat = Callable[[str, int, int], object]

_log = logging.getLogger(__name__)


def celery_settings(visibility_timeout: float = DAY) -> dict[str, Any]:
    """What launcher and worker have to agree about. `visibility_timeout`: seconds, longer than any run."""
    return {
        "worker_prefetch_multiplier": 1,
        "task_acks_late": True,
        # In the order they are named, so that a waiting run of the first queue always goes first.
        "broker_transport_options": {
            "visibility_timeout": visibility_timeout,
            # How often deliveries older than that are looked for.
            "unacked_restore_interval": min(100.0, max(1.0, visibility_timeout / 10)),
            "unacked_restore_throttle": 1,
            "queue_order_strategy": "priority",
        },
        "broker_connection_retry_on_startup": True,
        # A run's outcome is in Dagster; only what Dagster cannot know, a child's death, is kept for the launcher.
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": True,
        "result_expires": 3_600,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_enable_remote_control": True,
        "worker_proc_alive_timeout": 60.0,
        "worker_lost_wait": 1.0,  # a killed child's run is known to be lost after so long; 10 by default
    }


def build_worker_app(
    broker: str,
    backend: str | None = None,
    *,
    queues: Sequence[str],
    preload: Sequence[str | Callable[[], object]] = (),
    locations: Sequence[str] = (),
    max_tasks_per_child: int | None = None,
    max_memory_per_child_kb: int | None = None,
    visibility_timeout: float = DAY,
    ready_file: Path | None = None,
    beat: Beat | None = None,
    patience: float = 30.0,
    settings: Mapping[str, Any] | None = None,
) -> Any:
    """The Celery app of a worker.

    `queues`: what it consumes unless `--queues` says otherwise, the most urgent first; a run's queue is its tag
    `dagster-celery/queue`. `preload`: modules, or functions to call, before the fork; they must open no connection and
    start no thread. `locations`: definitions to load before the fork, as "package.module:attribute"; a run of any other
    code is refused.
    `beat` is called every BEAT_INTERVAL by the loop that takes tasks: it has to be quick; a hanging worker is silent.
    `max_memory_per_child_kb` is of the peak of a child's resident memory, the memory shared with the parent included.
    """
    app = Celery("dagster", broker=broker, backend=backend or broker)
    app.conf.update(
        celery_settings(visibility_timeout)
        | {
            "task_queues": [Queue(name) for name in queues],
            "task_default_queue": queues[0],
            "worker_max_tasks_per_child": max_tasks_per_child,
            "worker_max_memory_per_child": max_memory_per_child_kb,
        }
        | dict(settings or {})
    )
    child = WarmChild(patience, locations=locations)
    _add_tasks(app, child)

    def before_fork(sender: Any, **_: object) -> None:
        if sender.app is app:
            preload_parent(preload, locations)

    def after_fork(**_: object) -> None:
        child.warm()

    def ready(sender: Any, **_: object) -> None:
        if sender.app is app:
            _replace_early(sender)
            if beat is not None:
                _beat_regularly(sender, beat)
            if ready_file is not None:
                ready_file.touch()

    signals.worker_init.connect(before_fork, weak=False)
    signals.worker_process_init.connect(after_fork, weak=False)
    signals.worker_ready.connect(ready, weak=False)
    return app


def preload_parent(preload: Sequence[str | Callable[[], object]], locations: Sequence[str]) -> None:
    """Imports and loads, then freezes what the children share. Complains about what does not survive a fork."""
    for item in preload:
        importlib.import_module(item) if isinstance(item, str) else item()
    for location in locations:
        module, _, attribute = location.partition(":")
        load_location(module, attribute or "defs")
    if threading.active_count() > 1:
        names = ", ".join(thread.name for thread in threading.enumerate()[1:])
        _log.warning("Preloading started threads, which the children will not have: %s. Start them in the run.", names)
    gc.collect()
    gc.freeze()  # the collector would otherwise touch, and so copy, every shared page


def _replace_early(consumer: Any) -> None:
    """Looks for exited children often. Celery does every 5 s, and when a child's pipe closes: often a moment early."""
    if consumer.hub is not None and not hasattr(consumer.pool, "replaces_early"):  # ready again after a reconnection
        consumer.pool.replaces_early = consumer.hub.call_repeatedly(REPLACE_INTERVAL, consumer.pool.maintain_pool)


def _beat_regularly(consumer: Any, beat: Beat) -> None:
    """Beats at once and then by the hub's timer, which a reconnection does not end."""

    def tell() -> None:
        try:
            beat(consumer.hostname, consumer.pool.num_processes, len(worker_state.active_requests))
        except Exception as error:  # noqa: BLE001  it works on without being counted
            _log.info("The worker could not say that it lives: %s", error)

    if consumer.hub is not None and not hasattr(consumer.pool, "beats"):
        consumer.pool.beats = consumer.hub.call_repeatedly(BEAT_INTERVAL, tell)
        tell()


def _add_tasks(app: Any, child: WarmChild) -> None:
    def execute_job(task: Any, execute_job_args_packed: Any) -> int:
        args = unpack_value(execute_job_args_packed, as_type=ExecuteRunArgs)
        redelivered = bool((task.request.delivery_info or {}).get("redelivered"))
        return child.execute(args.run_id, redelivered=redelivered)

    def resume_job(**_: object) -> int:
        raise NotImplementedError("Resuming a run is broken in dagster-celery: set max_resume_run_attempts to 0.")

    app.task(execute_job, bind=True, name=TASK_EXECUTE_JOB_NAME)
    app.task(resume_job, name=TASK_RESUME_JOB_NAME)


def _runs(_state: Any, **_: object) -> dict[str, Any]:
    """Tasks in this worker: the process of each that runs, and those that are here but not started."""
    active = {request.id: request.worker_pid for request in tuple(worker_state.active_requests)}
    waiting = [request.id for request in tuple(worker_state.reserved_requests) if request.id not in active]
    return {"active": active, "waiting": waiting}


def _end_task(_state: Any, task_id: str, signum: int = signal.SIGTERM, **_: object) -> dict[str, Any]:
    """Signals the child that runs the task, and drops the task if it arrives later."""
    worker_state.revoked.add(task_id)
    ended = [r.worker_pid for r in tuple(worker_state.active_requests) if r.id == task_id and r.worker_pid]
    for pid in ended:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
    return {"ended": ended}


# Celery keeps its commands for the whole process. What the launcher asks and tells:
inspect_command(name=RUNS_COMMAND)(_runs)
control_command(name=END_COMMAND)(_end_task)
