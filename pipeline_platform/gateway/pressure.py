"""How full the queue is, measured in the background, and how long a refused producer had better wait."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from pipeline_platform.errors import QueueRefusedError, TransientError
from pipeline_platform.gateway.problems import ProblemError, seconds
from pipeline_platform.queue.protocol import Position, Queue

REFRESH_SECONDS = 0.5
_HISTORY_SECONDS = 60.0
_FRESH_SECONDS = 5.0
_UNMEASURED_PAUSE = 5.0


class MeasuredQueue(Queue, Protocol):
    """A queue that knows how full its server is."""

    def memory_share(self) -> float:
        """The used share of the server's memory limit."""


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    accepted: int
    settled: int


class Pressure:
    """The latest position of every stream and the rates of the last minute. Times are the clock's seconds."""

    def __init__(
        self,
        queue: MeasuredQueue,
        streams: Iterable[str],
        *,
        backlog_max_events: int,
        memory_share: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self.streams = tuple(streams)
        self._backlog_max = backlog_max_events
        self._share_max = memory_share
        self._clock = clock
        self._history: dict[str, deque[_Sample]] = {name: deque() for name in self.streams}
        self.positions: dict[str, Position] = {}
        self.share = 0.0
        self.measured_at = float("-inf")

    def measure(self) -> None:
        """Asks the queue; blocking, for a worker thread. An unreachable queue leaves the last figures."""
        try:
            share = self._queue.memory_share()
            positions = {name: self._queue.position(name) for name in self.streams}
        except (TransientError, QueueRefusedError):
            return
        now = self._clock()
        for name, position in positions.items():
            history = self._history[name]
            history.append(_Sample(now, position.accepted_events, position.accepted_events - position.events))
            while len(history) > 2 and now - history[0].at > _HISTORY_SECONDS:
                history.popleft()
        self.share, self.positions, self.measured_at = share, positions, now

    @property
    def fresh(self) -> bool:
        """Whether the queue answered within the last seconds."""
        return self._clock() - self.measured_at < _FRESH_SECONDS

    def accepted_rate(self, stream: str) -> float:
        """Events accepted a second over the last minute."""
        return self._rate(stream, lambda sample: sample.accepted)

    def drain_rate(self, stream: str) -> float:
        """Events settled and trimmed a second over the last minute."""
        return self._rate(stream, lambda sample: sample.settled)

    def _rate(self, stream: str, of: Callable[[_Sample], int]) -> float:
        history = self._history[stream]
        if len(history) < 2 or history[-1].at <= history[0].at:
            return 0.0
        return max(0.0, (of(history[-1]) - of(history[0])) / (history[-1].at - history[0].at))

    def refuse_if_full(self, stream: str) -> None:
        """Raises the 503 problem when the stream's backlog or the server's memory is at its limit."""
        position = self.positions.get(stream)
        if position is not None and position.events >= self._backlog_max:
            raise self.full(stream, f"{stream} holds {position.events} events that are not loaded yet.")
        if self.share >= self._share_max:
            raise self.full(stream, "The queue's memory is at its limit.")

    def full(self, stream: str, detail: str) -> ProblemError:
        """The 503 problem with the seconds until the backlog is below its limit at the rate it drains."""
        return ProblemError("busy", detail, headers={"Retry-After": seconds(self.pause(stream))})

    def pause(self, stream: str) -> float:
        """Seconds until there is room again, as far as one can tell."""
        rate = self.drain_rate(stream)
        position = self.positions.get(stream)
        if position is None or len(self._history[stream]) < 2:
            return _UNMEASURED_PAUSE
        excess = position.events - self._backlog_max * 0.95
        if excess <= 0:  # it is the memory, which all streams share
            rate = sum(map(self.drain_rate, self.streams))
            held = sum(other.events for other in self.positions.values())
            excess = max(1.0, held * max(0.05, 1 - self._share_max / max(self.share, 1e-9)))
        return excess / rate if rate > 0 else 60.0
