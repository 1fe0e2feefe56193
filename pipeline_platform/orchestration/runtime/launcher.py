"""A launcher for warm workers: it asks them how a run is doing, and what it terminates is canceled, not failed.

A run's Celery task has the run's id, so that nothing about it has to be stored to find it again.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.launcher.base import RunLauncher
from dagster._core.storage.tags import BACKFILL_ID_TAG
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClassData, pack_value
from dagster_celery.config import TASK_EXECUTE_JOB_NAME
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_QUEUE_TAG, DAGSTER_CELERY_RUN_PRIORITY_TAG

from pipeline_platform.orchestration.runtime.run_watch import Health, RunWatch
from pipeline_platform.orchestration.runtime.worker import END_COMMAND, RUNS_COMMAND, celery_settings

INTERNALS = (
    ("dagster._core.launcher.CheckRunHealthResult", ("status", "msg")),
    ("dagster._core.launcher.LaunchRunContext", ("dagster_run", "workspace")),
    ("dagster._core.launcher.WorkerStatus", ()),
    ("dagster._core.storage.tags.BACKFILL_ID_TAG", ()),
    ("dagster._grpc.types.ExecuteRunArgs", ("job_origin", "run_id", "instance_ref", "set_exit_code_on_failure")),
    ("dagster._serdes.pack_value", ("val",)),
    ("dagster_celery.launcher.CeleryRunLauncher", ("default_queue", "broker", "backend", "config_source", "inst_data")),
)
ENDED_STATES = ("FAILURE", "REVOKED", "REJECTED")


class WarmCeleryRunLauncher(CeleryRunLauncher):  # type: ignore[misc]
    """The stock launcher's configuration, and four more.

    `backfill_queue`: where a backfill's runs go that name no queue; without it they go to the default. In seconds:

    `worker_silence_seconds`: a worker that does not answer for so long is dead. `inspect_timeout_seconds`: how long it
    has for an answer. `terminate_grace_seconds`: how long a run may take to end itself before its process is killed;
    a cancel ends it within 5 s, asking and killing included.
    """

    def __init__(
        self,
        default_queue: str,
        broker: str | None = None,
        backend: str | None = None,
        include: list[str] | None = None,
        config_source: dict[str, Any] | None = None,
        worker_silence_seconds: float = 5.0,
        inspect_timeout_seconds: float = 1.0,
        terminate_grace_seconds: float = 3.0,
        backfill_queue: str | None = None,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        super().__init__(
            default_queue=default_queue,
            broker=broker,
            backend=backend if backend not in (None, "rpc://") else broker,
            include=include,
            config_source=celery_settings() | (config_source or {}),
            inst_data=inst_data,
        )
        self.celery.conf.update(task_routes=None, task_queues=None)  # the queue is named at every launch
        self._backfill_queue = backfill_queue or default_queue
        self._timeout, self._grace = inspect_timeout_seconds, terminate_grace_seconds
        self._watch = RunWatch(self._ask, silence=worker_silence_seconds)

    @classmethod
    def config_type(cls) -> Any:
        extra = {
            "worker_silence_seconds": (5.0, "A worker that does not answer for so long is dead."),
            "inspect_timeout_seconds": (1.0, "How long workers have for an answer."),
            "terminate_grace_seconds": (3.0, "How long a terminated run may take to end before it is killed."),
        }
        fields = {
            name: dg.Field(float, is_required=False, default_value=value, description=text)
            for name, (value, text) in extra.items()
        }
        queue = dg.Field(str, is_required=False, description="Where a backfill's runs go that name no queue.")
        return {**super().config_type(), **fields, "backfill_queue": queue}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Any:
        return cls(inst_data=inst_data, **config_value)

    # Launching

    def launch_run(self, context: LaunchRunContext) -> None:
        """Puts the run into its queue: one event, one command on a pooled connection.

        A run that cannot be put there has failed at once. Dagster itself would leave it STARTING for its start timeout.
        """
        run = context.dagster_run
        if run.job_code_origin is None:
            raise ValueError(f"Run {run.run_id} does not say where its code is; launch it from a code location.")
        args = ExecuteRunArgs(
            job_origin=run.job_code_origin,
            run_id=run.run_id,
            instance_ref=None,  # a worker has its own DAGSTER_HOME
            set_exit_code_on_failure=True,
        )
        default = self._backfill_queue if BACKFILL_ID_TAG in run.tags else self.default_queue
        queue = run.tags.get(DAGSTER_CELERY_QUEUE_TAG, default)
        with contextlib.suppress(Exception):  # it only tells people: a full disk there must not keep the run here
            self._instance.report_engine_event(f"Sending the run to the queue {queue}.", run, cls=type(self))
        try:
            self.celery.send_task(
                TASK_EXECUTE_JOB_NAME,
                kwargs={"execute_job_args_packed": pack_value(args)},
                task_id=run.run_id,
                queue=queue,
                priority=_priority(run),
                ignore_result=True,
            )
        except Exception as error:
            with contextlib.suppress(Exception):  # otherwise the start timeout tells
                self._instance.report_run_failed(run, f"The queue did not take the run: {type(error).__name__}.")
            raise

    @property
    def supports_resume_run(self) -> bool:
        return False

    def resume_run(self, context: Any) -> None:
        RunLauncher.resume_run(self, context)  # says what to set

    # Health

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether a worker is executing the run. Dagster's monitoring asks for runs that have started."""
        try:
            health = self._watch.look(run.run_id)
            if health is Health.ALIVE:
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            state = self.celery.AsyncResult(run.run_id).state
            if health is Health.SILENT:
                self._end(run.run_id, signal.SIGKILL, limit=1)  # a worker that wakes up late is told to drop it
        except Exception as error:  # noqa: BLE001  of whatever kind: it says something about the broker, not the run
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"The workers cannot be asked: {error}")
        if state in ENDED_STATES:
            return CheckRunHealthResult(WorkerStatus.FAILED, f"The process of the run has died (task {state}).")
        if health is Health.UNSURE:
            return CheckRunHealthResult(WorkerStatus.RUNNING, health.value)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"The run is lost: {health.value}.")

    def is_lost(self, run: dg.DagsterRun) -> bool:
        """Whether a run that was sent and has not started never will: its process has died, or nobody has it at all.

        For runs that were sent a while ago; who asks may be new and remember nothing. False where that cannot be found
        out: the start timeout of Dagster's monitoring has the last word. A worker that is silent for now and has the
        run drops it when it wakes, because the run is over by then.
        """
        try:
            if self.celery.AsyncResult(run.run_id).state in ENDED_STATES:
                return True
            with self.celery.connection_for_read() as connection:
                if connection.default_channel._size(run.tags.get(DAGSTER_CELERY_QUEUE_TAG, self.default_queue)):
                    return False  # it may be among those that wait
            return self._watch.look(run.run_id) is not Health.ALIVE
        except Exception:  # noqa: BLE001  of whatever kind: it says something about the broker, not the run
            return False

    def get_run_worker_debug_info(self, run: dg.DagsterRun, *_: object, **__: object) -> str | None:
        worker = self._watch.worker(run.run_id)
        return f"Celery task {run.run_id}, last seen on worker {worker}." if worker else None

    def _ask(self, expected: int | None) -> dict[str, frozenset[str]]:
        replies = self.celery.control.broadcast(RUNS_COMMAND, reply=True, timeout=self._timeout, limit=expected)
        found: dict[str, frozenset[str]] = {}
        for reply in replies or ():
            for worker, answer in reply.items():
                if "active" in answer:  # two workers may have been given one name
                    found[worker] = found.get(worker, frozenset()) | {*answer["active"], *answer["waiting"]}
        return found

    # Terminating

    def terminate(self, run_id: str) -> bool:
        """Ends a run that is waiting or executing; it is CANCELED when this returns True. False when it was over."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if run.status != dg.DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run)
        # Asked twice: a task may be on its way from the queue into a process, and is in neither.
        if self._end(run_id, signal.SIGTERM) or self._end(run_id, signal.SIGTERM):
            self._await_end(run_id)
        if self._unfinished(run_id):
            self._end(run_id, signal.SIGKILL)
        if rest := self._unfinished(run_id):
            self._instance.report_run_canceled(rest)
        return True

    def _end(self, task_id: str, signum: signal.Signals, limit: int | None = None) -> bool:
        """Tells all workers; True when one of them was executing it."""
        arguments = {"task_id": task_id, "signum": int(signum)}
        replies = self.celery.control.broadcast(
            END_COMMAND, arguments=arguments, reply=True, timeout=self._timeout, limit=limit
        )
        return any(answer.get("ended") for reply in replies or () for answer in reply.values())

    def _await_end(self, run_id: str) -> None:
        until = time.monotonic() + self._grace
        while time.monotonic() < until and self._unfinished(run_id):
            time.sleep(0.1)

    def _unfinished(self, run_id: str) -> dg.DagsterRun | None:
        run = self._instance.get_run_by_id(run_id)
        return None if run is None or run.is_finished else run


def _priority(run: dg.DagsterRun) -> int:
    """The run's tag, lower numbers first on Redis; 0 without one."""
    try:
        return int(run.tags.get(DAGSTER_CELERY_RUN_PRIORITY_TAG, "0"))
    except ValueError:
        return 0
