"""Figures about the pipeline itself, from the ledger."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.visible import VISIBLE_AT

LATENCY_BATCHES = 50
_RECENT = "10 minutes"

# assets_by_time finds the recent ones: what was loaded in the last minute was planned in the last hour, or it is slow
# enough not to count for a rate.
_RATES = sa.text(
    """
    select stream,
        -- What a replay reads was read and rejected before.
        coalesce(sum(events_read) filter (where kind = 'ingest'), 0) as read,
        sum(events_loaded) as loaded,
        sum(events_negative) as negative,
        coalesce(sum(events_rejected) filter (where kind = 'ingest'), 0) as rejected
    from assets
    where planned_at > now() - interval '1 hour' and loaded_at > now() - interval '1 minute' and stream is not null
        and kind in ('ingest', 'replay')
    group by stream
    """
)
_STAGES = sa.text(
    f"""
    select stream,
        count(*) filter (where state = 'loaded' and loaded_at > now() - interval '1 minute') as runs,
        count(*) filter (where state = 'planned' and not_before is null) as planned,
        count(*) filter (where state in ('planned', 'failed') and not_before is not null) as failed,
        avg(extract(epoch from planned_at) - last_ms / 1000.0) as receive_to_plan,
        avg(extract(epoch from requested_at - planned_at)) filter (where attempt = 1) as plan_to_request,
        avg(extract(epoch from started_at - requested_at)) as request_to_start,
        avg(extract(epoch from loaded_at - started_at)) as start_to_load,
        avg(extract(epoch from {VISIBLE_AT} - loaded_at)) as load_to_visible
    from assets
    where stream is not null and kind = 'ingest' and planned_at > now() - interval '1 hour'
        and (state in ('planned', 'failed') or loaded_at > now() - interval '1 minute')
    group by stream
    """
)
_BATCHES = sa.text(
    f"""
    select id, stream from assets
    where planned_at > now() - interval '1 hour' and loaded_at > now() - interval '{_RECENT}' and stream is not null
        and kind = 'ingest'
    order by id desc limit {LATENCY_BATCHES}
    """
)
_LATENCIES = sa.text(
    """
    select a.id, a.stream,
        greatest(0, round((extract(epoch from a.loaded_at) * 1000 - u.ms) / 10))::bigint * 10 as latency_ms,
        sum(u.received)::bigint as events
    from assets a
        join batch_receipts r on r.batch_id = a.id,
        unnest(r.entry_ms, r.received) u(ms, received)
    where a.id = any(cast(:ids as bigint[]))
    group by 1, 2, 3
    """
)


@dataclass(frozen=True, slots=True)
class Rates:
    """Events a second over the last minute."""

    read: float
    loaded: float
    negative: float
    rejected: float


@dataclass(frozen=True, slots=True)
class Stages:
    """A stream's runs of the last minute: how many, what is unsettled, and average seconds a stage."""

    runs: int
    planned: int
    failed: int
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True)
class BatchLatencies:
    """One batch: received -> visible in milliseconds (to the nearest 10), with the events that took that long."""

    stream: str
    millis: tuple[int, ...]
    events: tuple[int, ...]


def minute_rates(engine: sa.Engine) -> dict[str, Rates]:
    """The rates of each stream that loaded anything within the last minute."""
    with warehouse_errors(), engine.connect() as connection:
        rows: list[Any] = list(connection.execute(_RATES))
    return {
        row.stream: Rates(*(float(value) / 60 for value in (row.read, row.loaded, row.negative, row.rejected)))
        for row in rows
    }


def minute_stages(engine: sa.Engine) -> dict[str, Stages]:
    """The runs of each stream that planned anything within the last hour."""
    names = ("receive_to_plan", "plan_to_request", "request_to_start", "start_to_load", "load_to_visible")
    with warehouse_errors(), engine.connect() as connection:
        rows: list[Any] = list(connection.execute(_STAGES))
    return {
        row.stream: Stages(
            row.runs,
            row.planned,
            row.failed,
            {name: float(value) for name in names if (value := getattr(row, name)) is not None},
        )
        for row in rows
    }


def recent_batches(engine: sa.Engine) -> dict[int, str]:
    """The batches that were loaded within the last minutes and their streams, the newest LATENCY_BATCHES."""
    with warehouse_errors(), engine.connect() as connection:
        return {row.id: row.stream for row in connection.execute(_BATCHES)}


def batch_latencies(engine: sa.Engine, ids: Collection[int]) -> dict[int, BatchLatencies]:
    """The latencies of these batches; a settled batch's never change."""
    if not ids:
        return {}
    found: dict[int, list[Any]] = {}
    with warehouse_errors(), engine.connect() as connection:
        for row in connection.execute(_LATENCIES, {"ids": list(ids)}):
            found.setdefault(row.id, []).append(row)
    return {
        batch: BatchLatencies(rows[0].stream, tuple(row.latency_ms for row in rows), tuple(row.events for row in rows))
        for batch, rows in found.items()
    }
