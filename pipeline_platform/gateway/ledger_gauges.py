"""The gauges that come from the ledger: asked when somebody scrapes, at most every few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import sqlalchemy as sa

from pipeline_platform.errors import PlatformError
from pipeline_platform.gateway.metrics import Metrics
from pipeline_platform.warehouse.stats import Stages, minute_stages

EVERY_SECONDS = 5.0
_NONE = Stages(0, 0, 0, {})


class LedgerGauges:
    """Brings the gauges up to date. A warehouse that is away leaves them and sets `pipeline_warehouse_up` to 0."""

    def __init__(
        self,
        engine: sa.Engine,
        metrics: Metrics,
        streams: Iterable[str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._metrics, self._streams = engine, metrics, tuple(streams)
        self._clock = clock
        self._asked_at = float("-inf")
        self._asking = threading.Lock()

    def refresh(self) -> None:
        """Asks the ledger unless that was done a moment ago; blocking, for a worker thread."""
        with self._asking:
            if self._clock() - self._asked_at < EVERY_SECONDS:
                return
            self._asked_at = self._clock()
            try:
                found = minute_stages(self._engine)
            except PlatformError:
                self._metrics.warehouse_up.set(0)
                return
            self._metrics.warehouse_up.set(1)
            for stream in self._streams:
                self._show(stream, found.get(stream, _NONE))

    def _show(self, stream: str, stages: Stages) -> None:
        self._metrics.runs.labels(stream).set(stages.runs / 60)
        self._metrics.unsettled.labels(stream, "planned").set(stages.planned)
        self._metrics.unsettled.labels(stream, "failed").set(stages.failed)
        for stage, value in stages.seconds.items():
            self._metrics.stages.labels(stream, stage).set(value)
