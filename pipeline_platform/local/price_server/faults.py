"""What can go wrong with an answer, switched on by path: for tests of everything that asks sources."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Fault:
    """An answer of another kind. `times`: how often, then all is well again.

    `status` with `body` and `headers` replaces the answer; `change` makes another of the JSON data; `hang` keeps the
    asker waiting so many seconds; `keep` cuts the body to a share of its bytes, after announcing all of them unless
    `quiet`; `drop` closes the connection without an answer.
    """

    status: int | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    change: Callable[[Any], Any] | None = None
    hang: float = 0.0
    keep: float = 1.0
    quiet: bool = False
    drop: bool = False
    times: int | None = None


class Faults:
    """The faults that are switched on, by the beginning of a path; the one set last comes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: list[tuple[str, Fault, list[int | None]]] = []
        self.over = threading.Event()  # ends every hang

    def set(self, path: str, fault: Fault) -> None:
        """From now on."""
        with self._lock:
            self._left.insert(0, (path, fault, [fault.times]))

    def clear(self) -> None:
        """All is well again."""
        with self._lock:
            self._left.clear()

    def next(self, path: str) -> Fault:
        """The fault for one request."""
        with self._lock:
            for prefix, fault, left in self._left:
                if path.startswith(prefix) and left[0] != 0:
                    if left[0] is not None:
                        left[0] -= 1
                    return fault
        return Fault()
