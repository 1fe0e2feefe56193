"""What the supervisor's loop knows of one service, and how long it waits after a death."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from pipeline_platform.local.processes import Child, Service
from pipeline_platform.local.service_logs import ServiceLog
from pipeline_platform.local.state import ServiceState, State

BACKOFF_FIRST, BACKOFF_LIMIT, HEALTHY_AFTER = 0.5, 30.0, 60.0  # seconds


def backoff(failures: int) -> float:
    """Seconds to wait after the n-th death in a row (n >= 1): 0.5, 1, 2, ... 30."""
    return min(BACKOFF_FIRST * 2.0 ** min(failures - 1, 16), BACKOFF_LIMIT)


def ending(code: int) -> str:
    """An exit code in words."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


@dataclass
class Unit:
    """One service as it goes. `child` is None while it waits to be started again."""

    service: Service
    log: ServiceLog
    child: Child | None = None
    state: State = "stopped"
    since: str = ""
    restarts: int = 0
    failures: int = 0  # deaths in a row, without a healthy minute between
    launched_at: float = 0.0
    due_at: float = 0.0

    def count_death(self, now: float) -> float:
        """Note a death, and the time of the next start; returns the seconds until then."""
        healthy = self.state == "ready" and now - self.launched_at >= HEALTHY_AFTER
        self.failures = 1 if healthy else self.failures + 1
        wait = backoff(self.failures)
        self.due_at = now + wait
        return wait

    def described(self) -> ServiceState:
        """The row of `services.json`."""
        child = self.child if self.state != "stopped" else None
        pid, started = (child.pid, child.started) if child is not None else (None, None)
        return ServiceState(self.service.name, pid, self.state, self.restarts, self.since, started)
