"""Is anybody executing this task? One question to all workers answers it for every run that is looked at soon after.

Knows neither Dagster nor Celery: asking, clock and sleep are arguments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum


class Health(Enum):
    """What is known about a task."""

    ALIVE = "a worker has it"
    UNSURE = "no worker says that it has it, for a moment now"
    GONE = "its worker answers and does not have it any more"
    SILENT = "no worker that answers has it"


# The tasks of each worker that answered. The argument: how many answers to wait for, None for all that come in time.
Ask = Callable[[int | None], Mapping[str, frozenset[str]]]


@dataclass
class _Seen:
    worker: str = ""
    missing_since: float | None = None
    looked_at: float = 0.0


@dataclass
class RunWatch:
    """Seconds: an answer is used for `fresh`; a worker may be silent for `silence`, after an outage for `outage`.

    The outage is of the broker: its workers need a moment to find it again, and are not dead because of it.
    """

    ask: Ask
    silence: float = 5.0
    fresh: float = 1.5
    outage: float = 45.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _tasks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    _asked_at: float = float("-inf")
    _complete: bool = False
    _failed_at: float = float("-inf")
    _error: Exception | None = None
    _seen: dict[str, _Seen] = field(default_factory=dict)

    def look(self, task: str) -> Health:
        """The health of a task that somebody should be executing. Raises what asking raises."""
        seen = self._seen.setdefault(task, _Seen())
        seen.looked_at = self.clock()
        self._forget()
        if self._found(task, seen, self.fresh):
            return Health.ALIVE
        if seen.worker in self._tasks:  # asked twice: it may have been between two lists
            self.sleep(1.0)
            if self._found(task, seen, 0.5):
                return Health.ALIVE
            if seen.worker in self._tasks:
                return Health.GONE
        if seen.missing_since is None:
            seen.missing_since = self._asked_at
        patience = self.outage if self._asked_at - self._failed_at < self.outage else self.silence
        return Health.SILENT if self._asked_at - seen.missing_since >= patience else Health.UNSURE

    def worker(self, task: str) -> str:
        """The worker that was last seen with the task, or an empty string."""
        return self._seen[task].worker if task in self._seen else ""

    def _found(self, task: str, seen: _Seen, fresh: float) -> bool:
        self._refresh(fresh, every=False)
        if self._note(task, seen):
            return True
        if self._complete:
            return False
        self._refresh(0.0, every=True)
        return self._note(task, seen)

    def _note(self, task: str, seen: _Seen) -> bool:
        for worker, tasks in self._tasks.items():
            if task in tasks:
                seen.worker, seen.missing_since = worker, None
                return True
        return False

    def _refresh(self, fresh: float, *, every: bool) -> None:
        """Asks unless the last answer is younger than `fresh`. As many answers as last time are enough, or `every`."""
        now = self.clock()
        if now - self._asked_at < fresh:
            return
        if self._error is not None and now - self._failed_at < self.fresh:
            raise self._error
        expected = None if every or not self._tasks else len(self._tasks)
        try:
            self._tasks = self.ask(expected)
        except Exception as error:
            self._error, self._failed_at = error, self.clock()
            for seen in self._seen.values():
                seen.missing_since = None
            raise
        self._error, self._asked_at, self._complete = None, now, expected is None

    def _forget(self) -> None:
        if len(self._seen) > 1_000:
            old = self.clock() - 600
            self._seen = {task: seen for task, seen in self._seen.items() if seen.looked_at > old}
