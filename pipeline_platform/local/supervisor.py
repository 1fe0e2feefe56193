"""Starts services in order, keeps them running, and stops them in reverse; leaves together. What `up` does.

Threads only read output; all decisions are made in one loop that polls, because polling `Popen` is the one way of
waiting that neither loses an exit nor fights with other code over SIGCHLD.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from pipeline_platform.access.audit_log import MARK, AuditLog
from pipeline_platform.errors import PlatformError
from pipeline_platform.local.processes import Child, Service, Step
from pipeline_platform.local.reaper import Reaper
from pipeline_platform.local.service_logs import ServiceLog
from pipeline_platform.local.state import State, write_services
from pipeline_platform.local.units import Unit, ending

OWN_NAME = "up"
POLL_SECONDS = 0.05


class Supervisor:
    """Runs a plan of services and steps. `emit(name, line)` gets every line of output, one at a time.

    Use it from one thread, best the main one (see `Child`). `request_stop` alone may be called from anywhere.
    """

    def __init__(
        self,
        plan: Sequence[Service | Step],
        emit: Callable[[str, str], None],
        state_dir: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._plan, self._emit, self._state_dir = plan, emit, state_dir
        self._clock, self._sleep = clock, sleep
        self._units: dict[str, Unit] = {}
        self._emitting = threading.Lock()
        self._reaper: Reaper | None = None
        self._audit = AuditLog(state_dir / "logs" / "audit.log")
        self._stops = 0  # a plain number, because a signal handler may not take locks

    def run(self) -> None:
        """Start, watch until SIGINT, SIGTERM or SIGHUP, stop. A second signal stops without patience."""
        with self._signals():
            try:
                if self.start():
                    self.watch()
            finally:
                self.stop()

    def request_stop(self) -> None:
        """Ask `start` and `watch` to return; a second call makes `stop` kill at once."""
        self._stops += 1

    def start(self) -> bool:
        """Start everything in order, each service awaited, leaves together; False when a stop was asked for meanwhile.

        PlatformError, with its last lines, when a service does not become ready; the others are stopped by then.
        """
        leaves: list[Unit] = []
        try:
            for item in self._plan:
                if self._stops:
                    return False
                if isinstance(item, Service):
                    leaves.append(self._new(item))
                    if item.leaf:
                        continue
                    self._await([leaves.pop()])
                else:
                    self._await(leaves)
                    leaves = []
                    if not self._stops:
                        item.run()
            self._await(leaves)
        except BaseException:
            self.stop()
            raise
        return not self._stops

    def watch(self) -> None:
        """Restart what dies, until a stop is asked for. PlatformError when a critical service dies."""
        while not self._stops:
            self.watch_once()
            self._sleep(POLL_SECONDS)

    def watch_once(self) -> None:
        """One look at every service; for callers with a loop of their own."""
        if self._reaper:
            self._reaper.ensure()
        for unit in self._units.values():
            self._look_after(unit)

    def stop(self) -> None:
        """Stop everything, the leaves at once, then the last started first. Can be called again."""
        for unit in self._units.values():
            if unit.child is not None and unit.service.leaf:
                unit.child.ask()
        for unit in reversed(list(self._units.values())):
            if unit.child is not None:
                unit.child.stop(lambda: self._stops > 1, self._clock, self._sleep)
                unit.child = None
            if unit.state not in ("stopped", "failed"):
                self._enter(unit, "stopped")
            unit.log.close()
        if self._reaper is not None:
            self._reaper.close()
            self._reaper = None

    def _new(self, service: Service) -> Unit:
        unit = Unit(service, ServiceLog(self._state_dir / "logs" / f"{service.name}.log"))
        self._units[service.name] = unit
        self._launch(unit)
        return unit

    def _await(self, units: Sequence[Unit]) -> None:
        """Waits until all of them are ready, or a stop is asked for."""
        waiting = list(units)
        while waiting and not self._stops:
            waiting = [unit for unit in waiting if not self._is_up(unit)]
            if waiting:
                self._sleep(POLL_SECONDS)

    def _is_up(self, unit: Unit) -> bool:
        """Whether it is ready now; PlatformError when it never will be."""
        service, child = unit.service, unit.child
        assert child is not None
        code = child.exit_code()
        if code is None and service.ready():
            self._enter(unit, "ready")
            self._say(f"{service.name} is ready after {self._clock() - unit.launched_at:.1f} s")
            return True
        if code is not None or self._late(unit):
            child.sweep()
            self._enter(unit, "failed")
            what = ending(code) if code is not None else f"was not ready after {service.start_timeout:g} s"
            tail = "".join(f"\n  {line}" for line in child.tail) or " (none)"
            raise PlatformError(f"{service.name} {what}. Its last lines:{tail}")
        return False

    def _launch(self, unit: Unit) -> Child:
        self._reaper = self._reaper or Reaper()
        unit.launched_at = self._clock()
        unit.child = Child(unit.service, self._reaper, lambda line: self._write(unit, line))
        self._enter(unit, "starting")
        return unit.child

    def _look_after(self, unit: Unit) -> None:
        if unit.child is None:
            if unit.state == "backoff" and self._clock() >= unit.due_at:
                unit.restarts += 1
                try:
                    self._launch(unit)
                except PlatformError as error:
                    self._back_off(unit, str(error))
            return
        code = unit.child.exit_code()
        if code is not None:
            self._back_off(unit, f"{unit.service.name} {ending(code)}")
        elif unit.state == "starting" and unit.service.ready():
            self._enter(unit, "ready")
            self._say(f"{unit.service.name} is ready again")
        elif unit.state == "starting" and self._late(unit):
            self._back_off(unit, f"{unit.service.name} was not ready after {unit.service.start_timeout:g} s")

    def _back_off(self, unit: Unit, what: str) -> None:
        if unit.child is not None:
            unit.child.sweep()
            unit.child = None
        if unit.service.critical:
            self._enter(unit, "failed")
            raise PlatformError(f"{what}; everything else is stopped because it cannot work without it.")
        wait = unit.count_death(self._clock())
        self._enter(unit, "backoff")
        self._say(f"{what}; starting it again in {wait:g} s")

    def _late(self, unit: Unit) -> bool:
        return self._clock() - unit.launched_at >= unit.service.start_timeout

    def _enter(self, unit: Unit, state: State) -> None:
        unit.state, unit.since = state, datetime.now(UTC).isoformat(timespec="milliseconds")
        with contextlib.suppress(OSError):  # a full disk must not take the services with it
            write_services(self._state_dir, [known.described() for known in self._units.values()])

    def _write(self, unit: Unit, line: str) -> None:
        if line.startswith(MARK) and unit.service.audited:
            with contextlib.suppress(OSError):  # the table has it, too
                self._audit.append(line.removeprefix(MARK).encode() + b"\n")
            return
        unit.log.write(line)
        with self._emitting:
            self._emit(unit.service.name, line)

    def _say(self, line: str) -> None:
        with self._emitting, contextlib.suppress(OSError, ValueError):
            self._emit(OWN_NAME, line)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def ask(_signum: int, _frame: FrameType | None) -> None:
            self.request_stop()

        before = {each: signal.signal(each, ask) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
