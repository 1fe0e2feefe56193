"""Refused requests for the audit: bounded, whatever is thrown at a server.

The first of an address and a reason is told at once; those that follow are told a minute later as one, with a count.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

WINDOW_SECONDS = 60.0
MOST_WINDOWS = 1000
OTHERS = "others"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Refusals of one kind: how many, and what the first of them was like."""

    event: str
    address: str
    reason: str
    actor: str = ""
    role: str = ""
    path: str = ""
    count: int = 1


class RefusalTally:
    """Counts refusals by address and reason. Beyond `most` of these in a minute the rest are told as one."""

    def __init__(self, clock: Callable[[], float], *, window: float = WINDOW_SECONDS, most: int = MOST_WINDOWS) -> None:
        self._clock, self._window, self._most = clock, window, most
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str, str], tuple[float, Refusal | None]] = {}

    def note(self, refusal: Refusal) -> Refusal | None:
        """The refusal when it is to be told now; None when it is counted for later."""
        with self._lock:
            key = (refusal.event, refusal.address, refusal.reason)
            if key not in self._windows and len(self._windows) >= self._most:
                refusal = Refusal(refusal.event, OTHERS, refusal.reason)
                key = (refusal.event, OTHERS, refusal.reason)
            if key not in self._windows:
                self._windows[key] = (self._clock() + self._window, None)
                return refusal
            ends, later = self._windows[key]
            self._windows[key] = (ends, replace(later, count=later.count + 1) if later else refusal)
            return None

    def due(self, *, all_of_them: bool = False) -> list[Refusal]:
        """What was counted in windows that are over; each begins a new one."""
        now = self._clock()
        told = []
        with self._lock:
            for key, (ends, later) in list(self._windows.items()):
                if ends > now and not all_of_them:
                    continue
                if later is None:
                    del self._windows[key]
                else:
                    self._windows[key] = (now + self._window, None)
                    told.append(later)
        return told

    @property
    def waiting(self) -> bool:
        """Whether anything is open."""
        return bool(self._windows)
