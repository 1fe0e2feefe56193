"""The twin of `budgets` in memory: for tests, and for one process without Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pipeline_platform.core.budgets import FORGOTTEN, TOGETHER, Allowance, Failing, Priority
from pipeline_platform.queue.budgets import PATIENCE, wait_for


class MemoryBudget:
    """One source's budget for the threads of one process."""

    def __init__(
        self,
        source: str,
        allowance: Allowance,
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._source, self._allowance = source, allowance
        self._patience, self._clock, self._sleep = patience, clock, sleep
        self._lock = threading.Lock()
        self._tokens, self._at = allowance.burst, clock()
        self._paused = self._awaited = 0.0
        self._known: dict[str, tuple[int, float, float]] = {}  # name: failures, the first's time, the last's

    def take(self, weight: float, priority: Priority) -> None:
        """Spends `weight`, or waits for it; SourceUnavailableError when that would take longer than our patience."""
        wait_for(self._ask, self._source, self._allowance, weight, priority, self._patience, self._clock, self._sleep)

    def pause(self, seconds: float) -> None:
        """Lets nobody spend anything for `seconds`."""
        with self._lock:
            self._paused = max(self._paused, self._clock() + seconds)

    def failing(self, *names: str) -> list[Failing | None]:
        """The failures in a row under each name."""
        with self._lock:
            return [self._series(name) for name in names]

    def failed(self, *names: str) -> list[Failing]:
        """One more failure under each name."""
        with self._lock:
            now = self._clock()
            for name in names:
                if (there := self._series(name)) is None:
                    self._known[name] = (1, now, now)
                elif there.ago >= TOGETHER:
                    self._known[name] = (there.count + 1, self._known[name][1], now)
            return [each for name in names if (each := self._series(name))]

    def answered(self, *names: str) -> None:
        """The failures under these names are over."""
        with self._lock:
            for name in names:
                self._known.pop(name, None)

    def _series(self, name: str) -> Failing | None:
        count, first, last = self._known.get(name, (0, 0.0, 0.0))
        now = self._clock()
        return Failing(count, now - first, now - last) if count and now - last <= FORGOTTEN else None

    def _ask(self, weight: float, priority: Priority) -> float:
        live = priority is Priority.LIVE
        with self._lock:
            now = self._clock()
            self._tokens = min(self._allowance.burst, self._tokens + (now - self._at) * self._allowance.rate)
            self._at = now
            short = weight + self._allowance.floor(weight, priority) - self._tokens
            wait = max(0.0, short / self._allowance.rate, self._paused - now, 0.0 if live else self._awaited - now)
            if wait <= 0:
                self._tokens -= weight
                self._awaited = 0.0 if live else self._awaited
                return 0.0
            if live:
                self._awaited = max(self._awaited, now + wait + 1)
            return max(wait, 0.001)
