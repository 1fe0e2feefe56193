"""The gauges that come from the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import sqlalchemy as sa

from pipeline_platform.core.breaker import BreakerState
from pipeline_platform.errors import PlatformError
from pipeline_platform.gateway.gauges import Gauges, show
from pipeline_platform.gateway.metrics import Metrics
from pipeline_platform.warehouse.alert_views import open_counts
from pipeline_platform.warehouse.breakers import Breakers
from pipeline_platform.warehouse.stats import Stages, minute_stages

_OPEN = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 0.5, BreakerState.OPEN: 1.0}
_NONE = Stages(0, 0, 0, {})


class LedgerGauges(Gauges):
    """A warehouse that is away leaves them and sets `pipeline_warehouse_up` to 0."""

    def __init__(
        self,
        engine: sa.Engine,
        metrics: Metrics,
        streams: Iterable[str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(clock=clock)
        self._engine, self._metrics, self._streams = engine, metrics, tuple(streams)

    def _read(self) -> None:
        try:
            found, alerts = minute_stages(self._engine), open_counts(self._engine)
            breakers = Breakers(self._engine).all()
        except PlatformError:
            self._metrics.warehouse_up.set(0)
            return
        self._metrics.warehouse_up.set(1)
        for severity, count in alerts.items():
            self._metrics.alerts.labels(severity).set(count)
        stages: dict[tuple[str, ...], float] = {}
        for stream in self._streams:
            state = breakers[stream].state if stream in breakers else BreakerState.CLOSED
            self._metrics.breakers.labels(stream).set(_OPEN[state])
            figures = found.get(stream, _NONE)
            self._metrics.runs.labels(stream).set(figures.runs / 60)
            self._metrics.unsettled.labels(stream, "planned").set(figures.planned)
            self._metrics.unsettled.labels(stream, "failed").set(figures.failed)
            stages |= {(stream, stage): value for stage, value in figures.seconds.items()}
        show(self._metrics.stages, stages)
