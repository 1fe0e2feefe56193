"""The gauges of the workers, as they sign in at the queue's server."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from pipeline_platform.errors import PlatformError
from pipeline_platform.gateway.gauges import Gauges
from pipeline_platform.gateway.metrics import Metrics
from pipeline_platform.queue.workers import WorkerBoard, Workers


class WorkerGauges(Gauges):
    """NaN while nobody can know: 0 workers would be a different alarm than a queue that is away."""

    every = 1.0

    def __init__(self, board: WorkerBoard, metrics: Metrics, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock=clock)
        self._board, self._metrics = board, metrics

    def _read(self) -> None:
        found: Workers | None
        try:
            found = self._board.read()
        except PlatformError:
            found = None
        self._metrics.workers_alive.set(found.alive if found else math.nan)
        self._metrics.workers_busy.set(found.busy if found else math.nan)
        self._metrics.worker_slots.set(found.slots if found else math.nan)
        self._metrics.worker_slots_busy.set(found.slots_busy if found else math.nan)
