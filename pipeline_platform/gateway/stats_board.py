"""The figures of /v1/stats, put together at most once a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
import sqlalchemy as sa
from pydantic import BaseModel, Field

from pipeline_platform.gateway.pressure import Pressure
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.stats import (
    BatchLatencies,
    Rates,
    batch_latencies,
    minute_rates,
    recent_batches,
)

_FRESH_SECONDS = 1.0
Figures = TypeVar("Figures", bound=BaseModel)


class Totals(BaseModel):
    """Events since the stream began; read = loaded + negative + rejected."""

    accepted: int = 0
    read: int = 0
    loaded: int = 0
    negative: int = 0
    rejected: int = 0


class RatesDocument(BaseModel):
    """Events a second over the last minute."""

    accepted: float = 0.0
    loaded: float = 0.0
    negative: float = 0.0
    rejected: float = 0.0


class Latency(BaseModel):
    """From receipt to visible in the warehouse, seconds, over the events of the last ten minutes' batches."""

    p50: float
    p95: float
    p99: float
    events: int


class StreamStats(BaseModel):
    """The figures of one stream, or of all together."""

    totals: Totals
    rates: RatesDocument
    backlog_events: int = Field(description="Accepted and not settled yet.")
    oldest_age_seconds: float = Field(description="Age of the oldest request that is not settled; 0 without one.")
    latency_seconds: Latency | None = Field(description="Null while nothing was loaded lately.")


class Stats(BaseModel):
    """The whole platform and each stream."""

    overall: StreamStats
    streams: dict[str, StreamStats]


class StatsBoard:
    """Blocking: for a worker thread. Concurrent askers share one computation."""

    def __init__(self, engine: sa.Engine, pressure: Pressure, *, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._ledger = Ledger(engine)
        self._pressure = pressure
        self._clock = clock
        self._lock = threading.Lock()
        self._made_at = float("-inf")
        self._stats: Stats | None = None
        self._latencies: dict[int, BatchLatencies] = {}

    def read(self) -> Stats:
        """The figures, at most a second old. Raises TransientError when the warehouse is away."""
        with self._lock:
            now = self._clock()
            if self._stats is None or not 0 <= now - self._made_at < _FRESH_SECONDS:
                self._stats = self._make(now)
                self._made_at = now
            return self._stats

    def _make(self, now: float) -> Stats:
        rates = minute_rates(self._engine)
        recent = recent_batches(self._engine)
        known = {batch: found for batch, found in self._latencies.items() if batch in recent}
        self._latencies = known | batch_latencies(self._engine, recent.keys() - known.keys())
        streams = {name: self._stream(name, rates.get(name), now) for name in self._pressure.streams}
        overall = StreamStats(
            totals=_sum(Totals, (stream.totals for stream in streams.values())),
            rates=_sum(RatesDocument, (stream.rates for stream in streams.values())),
            backlog_events=sum(stream.backlog_events for stream in streams.values()),
            oldest_age_seconds=max((stream.oldest_age_seconds for stream in streams.values()), default=0.0),
            latency_seconds=_latency(self._latencies.values()),
        )
        return Stats(overall=overall, streams=streams)

    def _stream(self, name: str, rates: Rates | None, now: float) -> StreamStats:
        totals = self._ledger.totals(name)
        position = self._pressure.positions.get(name)
        oldest = position.oldest_id if position else None
        return StreamStats(
            totals=Totals(
                accepted=position.accepted_events if position else totals.events_read,
                read=totals.events_read,
                loaded=totals.events_loaded,
                negative=totals.events_negative,
                rejected=totals.events_rejected,
            ),
            rates=RatesDocument(
                accepted=round(self._pressure.accepted_rate(name), 3),
                loaded=round(rates.loaded, 3) if rates else 0.0,
                negative=round(rates.negative, 3) if rates else 0.0,
                rejected=round(rates.rejected, 3) if rates else 0.0,
            ),
            backlog_events=position.events if position else 0,
            oldest_age_seconds=max(0.0, round(now - oldest.ms / 1000, 3)) if oldest else 0.0,
            latency_seconds=_latency(found for found in self._latencies.values() if found.stream == name),
        )


def _sum(kind: type[Figures], parts: Iterable[Figures]) -> Figures:
    each = list(parts)
    return kind(**{name: sum(getattr(part, name) for part in each) for name in kind.model_fields})


def _latency(batches: Iterable[BatchLatencies]) -> Latency | None:
    """Percentiles by events, not by batches."""
    found = list(batches)
    millis = np.array([value for batch in found for value in batch.millis], np.int64)
    events = np.array([value for batch in found for value in batch.events], np.int64)
    total = int(events.sum())
    if not total:
        return None
    order = np.argsort(millis)
    reached = np.cumsum(events[order])

    def percentile(share: float) -> float:
        return float(millis[order][np.searchsorted(reached, share * total)]) / 1000

    return Latency(p50=percentile(0.50), p95=percentile(0.95), p99=percentile(0.99), events=total)
