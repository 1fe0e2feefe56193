"""Dagster's daemons with a quick sensor loop: `python -m pipeline_platform.orchestration.runtime.daemon -w FILE`.

The stock loop looks at its sensors every 5 s. This one looks as soon as a tick ends, so a sensor whose
`minimum_interval_seconds` is `CONTINUOUS` ticks again at once; when nothing ends it looks every `sweep` seconds, which
is how late another sensor can be. Such a sensor should wait for its data inside the tick (a "long poll"): then it is
told of news at once and costs next to nothing without. Each of them holds one of the daemon's threads (`sensors:
num_workers` in dagster.yaml) and one of the code server's (`--max-workers`), so give both more than there are.

Everything else is Dagster's: the other daemons, heartbeats, ticks and their recovery.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from types import TracebackType
from typing import Any, cast

from dagster import DagsterInstance
from dagster._core.workspace.context import IWorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.backfill import execute_backfill_iteration_loop
from dagster._daemon.controller import create_daemon_of_type, daemon_controller_from_instance
from dagster._daemon.daemon import BackfillDaemon, DaemonIterator, DagsterDaemon, SensorDaemon
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._daemon.utils import DaemonErrorCapture
from dagster._utils.interrupts import capture_interrupts, setup_interrupt_handlers

from pipeline_platform.orchestration.runtime.code_token import present_token
from pipeline_platform.orchestration.runtime.patience import PatientExecutor

# For `minimum_interval_seconds`: an interval that has always passed. 0 would mean Dagster's default of 30 s.
CONTINUOUS = -1
CADENCE, SWEEP, GRACE = 0.05, 0.5, 3.0
AFTER_ERROR = 1.0
BACKFILL_SECONDS = 3.0
# A backfill reads events by their numbers, which become visible out of order: a run writes 366 materializations in one
# statement, and events with higher numbers are committed meanwhile. Without looking back this far Dagster may overlook
# some, and call their partitions failed: the likely cause of 252 such partitions in a backfill of 21,920.
LOOK_BACK = ("ASSET_BACKFILL_CURSOR_OFFSET", "2000")


class FastSensorDaemon(SensorDaemon):
    """Starts ticks when the last ones end. Times are seconds.

    `cadence` is the shortest time between two looks at the sensors, `sweep` the longest. At the end, ticks in flight
    get `grace` to finish; Dagster finds one that did not at the next start and skips it, or resumes its run requests.
    """

    def __init__(
        self, settings: Mapping[str, Any], cadence: float = CADENCE, sweep: float = SWEEP, grace: float = GRACE
    ) -> None:
        super().__init__({"num_workers": 8, **settings, "use_threads": True})
        self._cadence, self._sweep, self._grace = cadence, max(sweep, cadence), grace
        self._ticks: dict[str, Future[Any]] = {}  # by sensor, the last tick of each; filled by Dagster

    def core_loop(
        self, workspace_process_context: IWorkspaceProcessContext[Any], shutdown_event: threading.Event
    ) -> DaemonIterator:
        """Runs until closed; yields now and then so that the caller can send heartbeats."""
        assert self._threadpool_executor is not None  # use_threads
        executor = cast(ThreadPoolExecutor, PatientExecutor(self._threadpool_executor, shutdown_event.wait))
        try:
            while True:
                started = time.monotonic()
                settled = {tick for tick in self._ticks.values() if tick.done()}
                try:
                    yield from execute_sensor_iteration(
                        workspace_process_context,
                        self._logger,
                        threadpool_executor=executor,
                        submit_threadpool_executor=self._submit_threadpool_executor,
                        sensor_tick_futures=self._ticks,
                        instrument_elapsed=self.instrument_elapsed,
                    )
                except Exception:  # noqa: BLE001 - as in the stock loop: shown with the heartbeat, tried again
                    yield DaemonErrorCapture.process_exception(sys.exc_info(), self._logger, "Sensor loop failed")
                    shutdown_event.wait(AFTER_ERROR)
                shutdown_event.wait(max(0.0, started + self._cadence - time.monotonic()))
                self._wait_for_a_tick(settled, started + self._sweep, shutdown_event)
                yield None
        finally:
            if shutdown_event.is_set():
                self._finish()

    def _wait_for_a_tick(self, settled: set[Future[Any]], until: float, shutdown_event: threading.Event) -> None:
        """Returns when a tick that the last look did not see ended has ended, or at `until`."""
        left = max(0.0, until - time.monotonic())
        if unseen := set(self._ticks.values()) - settled:
            wait(unseen, left, FIRST_COMPLETED)
        else:
            shutdown_event.wait(left)

    def _finish(self) -> None:
        """Waits for ticks in flight while the workspace is still open to them."""
        if self._threadpool_executor is not None:
            self._threadpool_executor.shutdown(wait=False, cancel_futures=True)  # no new ones; runs may be submitted
        wait([tick for tick in self._ticks.values() if not tick.done()], self._grace)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stock would wait for every tick, however long."""
        if all(tick.done() for tick in self._ticks.values()):
            super().__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]


class _Impatient:
    """An event for a loop that waits on it too long: no wait is longer than `longest`."""

    def __init__(self, event: threading.Event, longest: float) -> None:
        self._event, self._longest = event, longest

    def wait(self, timeout: float | None = None) -> bool:
        """As the event's, but not as long."""
        return self._event.wait(self._longest if timeout is None else min(timeout, self._longest))

    def is_set(self) -> bool:
        """As the event's."""
        return self._event.is_set()


class FastBackfillDaemon(BackfillDaemon):
    """Looks at backfills every few seconds. Stock looks every 30 s: a backfill begins and ends up to that much late."""

    def core_loop(
        self, workspace_process_context: IWorkspaceProcessContext[Any], shutdown_event: threading.Event
    ) -> DaemonIterator:
        """Runs until closed."""
        yield from execute_backfill_iteration_loop(
            workspace_process_context,
            self._logger,
            cast(threading.Event, _Impatient(shutdown_event, BACKFILL_SECONDS)),
            threadpool_executor=self._threadpool_executor,
            submit_threadpool_executor=self._submit_threadpool_executor,
        )


def fast_daemons(instance: DagsterInstance, cadence: float = CADENCE, sweep: float = SWEEP) -> list[DagsterDaemon[Any]]:
    """The daemons that the instance needs, with ours for the sensors and the backfills."""
    ours = (SensorDaemon.daemon_type(), BackfillDaemon.daemon_type())
    stock = [kind for kind in instance.get_required_daemon_types() if kind not in ours]
    return [
        FastSensorDaemon(instance.get_sensor_settings(), cadence, sweep),
        FastBackfillDaemon(instance.get_backfill_settings()),
        *(create_daemon_of_type(kind, instance) for kind in stock),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the daemons of DAGSTER_HOME's instance until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="Run Dagster's daemons with a quick sensor loop.")
    parser.add_argument("-w", "--workspace", required=True, action="append", metavar="FILE", help="workspace.yaml")
    parser.add_argument("--cadence", type=float, default=CADENCE, help="least seconds between looks (%(default)s)")
    parser.add_argument("--sweep", type=float, default=SWEEP, help="most seconds between looks (%(default)s)")
    parser.add_argument("--log-level", default="info", choices=["critical", "error", "warning", "info", "debug"])
    given = parser.parse_args(arguments)
    os.environ.setdefault(*LOOK_BACK)
    if token := os.environ.get("PIPELINE_CODE_TOKEN"):
        present_token(token)
    setup_interrupt_handlers()  # SIGTERM is taken as SIGINT
    with (
        contextlib.suppress(KeyboardInterrupt),
        capture_interrupts(),
        DagsterInstance.get() as instance,
        daemon_controller_from_instance(
            instance,
            WorkspaceFileTarget(given.workspace),
            gen_daemons=partial(fast_daemons, cadence=given.cadence, sweep=given.sweep),
            log_level=given.log_level,
            code_server_log_level=given.log_level,
        ) as controller,
    ):
        controller.check_daemon_loop()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a plain end would join the thread of a tick that outlived its grace


if __name__ == "__main__":
    main()
