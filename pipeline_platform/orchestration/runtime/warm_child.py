"""What a worker's child keeps between runs, and how it executes one: in its own process, by Dagster's own path."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

import dagster as dg
from dagster._cli.api import _execute_run_command_body, _should_start_metrics_thread
from dagster._core.events import DagsterEventType, EngineEventData
from dagster._grpc.impl import core_execute_run
from dagster._utils.interrupts import capture_interrupts

from pipeline_platform.orchestration.runtime.warm_jobs import ForeignCodeError, WarmJob

INTERNALS = (
    ("dagster._cli.api._execute_run_command_body", ("run_id", "instance", "write_stream_fn")),
    ("dagster._cli.api._should_start_metrics_thread", ("dagster_run",)),
    ("dagster._core.events.EngineEventData.in_process", ("pid",)),
    ("dagster._grpc.impl.core_execute_run", ("recon_job", "dagster_run", "instance", "inject_env_vars")),
    ("dagster._utils.interrupts.capture_interrupts", ()),
)
NO_RUN = "00000000-0000-0000-0000-000000000000"
WAITING = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING)

_log = logging.getLogger(__name__)


class WarmChild:
    """One child process: a Dagster instance that is opened after the fork and kept.

    `locations`: the code that it executes, "module:attribute" each, and no other. `patience` is how long, in seconds,
    a run waits for Dagster's storage before its task fails.
    """

    def __init__(
        self,
        patience: float = 30.0,
        *,
        locations: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._patience, self._clock, self._sleep = patience, clock, sleep
        self._locations = frozenset(locations)
        self._pid = 0
        self._instance: dg.DagsterInstance | None = None

    def warm(self) -> None:
        """Opens the instance and its first connection. Without a database the first run does it."""
        try:
            self.instance().get_run_by_id(NO_RUN)
        except Exception:  # noqa: BLE001  a child that cannot start would be started again and again
            _log.warning("Dagster's storage does not answer yet; the first run tries again.", exc_info=True)
            self.forget()

    def instance(self) -> dg.DagsterInstance:
        """This process's instance, from DAGSTER_HOME. One that a parent opened is never used."""
        if self._instance is None or self._pid != os.getpid():
            self._instance, self._pid = dg.DagsterInstance.get(), os.getpid()
        return self._instance

    def forget(self) -> None:
        """Gives up the instance: the next use opens another."""
        instance, self._instance = self._instance, None
        if instance is not None and self._pid == os.getpid():
            with suppress(Exception):
                instance.__exit__(None, None, None)

    def execute(self, run_id: str, *, redelivered: bool = False) -> int:
        """Executes the run unless it is over, canceled, unknown or somebody else's. 0, or 1 when it failed."""
        with _interruptible():
            run = self._find(run_id)
            if run is not None and redelivered:
                run = self._settled(run)
            if run is None or run.status not in WAITING:
                _log.warning("Run %s is %s: not executed.", run_id, run.status.value if run else "unknown")
                return 0
            return _execute(run, self.instance(), self._locations)

    def _find(self, run_id: str) -> dg.DagsterRun | None:
        """The run, over a new instance when the kept one no longer works."""
        until = self._clock() + self._patience
        while True:
            try:
                return self.instance().get_run_by_id(run_id)
            except Exception:
                self.forget()
                if self._clock() > until:
                    raise
                _log.warning("Dagster's storage does not answer; trying again.", exc_info=True)
                self._sleep(0.2)

    def _settled(self, run: dg.DagsterRun, seconds: float = 5.0) -> dg.DagsterRun | None:
        """A delivery again: whoever had it first may be about to start it, so it gets a moment to say so."""
        until = self._clock() + seconds
        found: dg.DagsterRun | None = run
        while found is not None and found.status in WAITING and self._clock() < until:
            self._sleep(0.2)
            found = self._find(run.run_id)
        return found


def _execute(run: dg.DagsterRun, instance: dg.DagsterInstance, locations: Collection[str]) -> int:
    """What `dagster api execute_run` does, with a job that stays loaded."""
    if run.job_code_origin is None:
        raise ValueError(f"Run {run.run_id} does not say where its code is; launch it from a code location.")
    try:
        job = WarmJob.from_origin(run.job_code_origin, locations)
    except ForeignCodeError as error:
        instance.report_run_failed(run, str(error))
        return 1
    if _should_start_metrics_thread(run):  # a tag asks for it: rare, and no place for a shortcut
        return _execute_run_command_body(run.run_id, instance, lambda _: None, set_exit_code_on_failure=True)
    pid = os.getpid()
    instance.report_engine_event(
        f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid), cls=WarmChild
    )
    failed = False
    try:
        for event in core_execute_run(job, run, instance, inject_env_vars=True):
            failed = failed or event.event_type == DagsterEventType.PIPELINE_FAILURE
    except BaseException:  # noqa: BLE001  it is in the event log by now, an interrupt too
        failed = True
    finally:
        instance.report_engine_event(f"Process for run exited (pid: {pid}).", run, cls=WarmChild)
    return int(failed)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM interrupts the run at Dagster's own checkpoints; afterwards it ends the process again.

    Dagster leaves SIGTERM as SIGINT was, which Celery's children ignore: they could not be stopped any more.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        with capture_interrupts():
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
