"""Rows of `assets` as people look at them: found by a filter, in pages, one in full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pipeline_platform.core.entries import Receipt
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.schema import UNSETTLED, assets, dead_letters
from pipeline_platform.warehouse.visible import VISIBLE_AT

FAILING = "failing"  # stands for several states in a filter
_NOT_LOADED = (*UNSETTLED, "dead")


@dataclass(frozen=True, slots=True)
class AssetFilter:
    """Which rows: those that match every part that is given.

    `states` may hold `failing`: failed at least once and not loaded, as the view assets_failed has it. A `run_id` may
    be that of any attempt. A `receipt` finds the batch of the request and the replays of its dead letters. `since` <=
    planned_at < `until`. `text` is looked for in the error's class and message, whatever the case.
    """

    kinds: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    asset_key: str | None = None
    partition: str | None = None
    states: tuple[str, ...] = ()
    job: str | None = None
    run_id: str | None = None
    receipt: Receipt | None = None
    replay_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class AssetRow:
    """One row of the ledger. Times are aware UTC datetimes. In a list `failures` and `visible_at` are left out."""

    id: int
    kind: str
    asset_key: str
    stream: str | None
    partition_key: str | None
    state: str
    attempt: int
    run_id: str | None
    run_ids: tuple[str, ...]
    op_retries: int
    replay_id: int | None
    job_name: str | None
    first_ms: int | None
    first_seq: int | None
    last_ms: int | None
    last_seq: int | None
    entries: int
    events_planned: int
    bytes_planned: int
    events_read: int
    events_loaded: int
    events_negative: int
    events_rejected: int
    events_duplicate: int
    events_late: int
    first_ts: datetime | None
    last_ts: datetime | None
    error_class: str | None
    error_message: str | None
    error_kind: str | None
    planned_at: datetime
    requested_at: datetime | None
    started_at: datetime | None
    failed_at: datetime | None
    not_before: datetime | None
    loaded_at: datetime | None
    visible_at: datetime | None = None  # where the server keeps it
    failures: tuple[Mapping[str, Any], ...] = ()

    @property
    def failing(self) -> bool:
        """Whether it failed at least once and is not loaded."""
        return self.failed_at is not None and self.state in _NOT_LOADED


@dataclass(frozen=True, slots=True)
class AssetPage:
    """Some rows, the newest first; `next` is the `below_id` of the page after it, None on the last one."""

    rows: tuple[AssetRow, ...]
    next: int | None


def list_assets(engine: sa.Engine, which: AssetFilter, *, limit: int, below_id: int | None = None) -> AssetPage:
    """A page of at most `limit` matching rows, the highest id first, below `below_id`."""
    query = sa.select(*_LISTED).where(_matches(which)).order_by(assets.c.id.desc()).limit(limit + 1)
    if below_id is not None:
        query = query.where(assets.c.id < below_id)
    with warehouse_errors(), engine.connect() as connection:
        rows = tuple(_row(row) for row in connection.execute(query))
    return AssetPage(rows[:limit], rows[limit - 1].id if len(rows) > limit else None)


def get_asset(engine: sa.Engine, asset_id: int) -> AssetRow | None:
    """The row with this number, with its failures."""
    visible = sa.literal_column(VISIBLE_AT, sa.DateTime(timezone=True)).label("visible_at")
    query = sa.select(*_LISTED, assets.c.failures, visible).where(assets.c.id == asset_id)
    with warehouse_errors(), engine.connect() as connection:
        row = connection.execute(query).one_or_none()
    return _row(row) if row is not None else None


def _matches(which: AssetFilter) -> sa.ColumnElement[bool]:
    """The filter as a condition on `assets`."""
    column = assets.c
    parts: list[sa.ColumnElement[bool]] = [sa.true()]
    for values, of in ((which.kinds, column.kind), (which.streams, column.stream)):
        if values:
            parts.append(of.in_(values))
    for value, of in (
        (which.asset_key, column.asset_key),
        (which.partition, column.partition_key),
        (which.job, column.job_name),
        (which.replay_id, column.replay_id),
    ):
        if value is not None:
            parts.append(of == value)
    if which.states:
        failing = sa.and_(column.failed_at.is_not(None), column.state.in_(_NOT_LOADED))
        plain = column.state.in_([state for state in which.states if state != FAILING])
        parts.append(sa.or_(plain, failing) if FAILING in which.states else plain)
    if which.run_id is not None:
        parts.append(column.run_ids.contains([which.run_id]))
    if which.receipt is not None:
        parts.append(_of_receipt(which.receipt))
    if which.since is not None:
        parts.append(column.planned_at >= which.since)
    if which.until is not None:
        parts.append(column.planned_at < which.until)
    if which.text:
        wanted = sa.func.lower(which.text)
        parts.append(
            sa.or_(
                *(sa.func.strpos(sa.func.lower(of), wanted) > 0 for of in (column.error_message, column.error_class))
            )
        )
    return sa.and_(*parts)


def _of_receipt(receipt: Receipt) -> sa.ColumnElement[bool]:
    """The batch whose range holds the request, and the batches of replays that took dead letters of it."""
    entry = sa.tuple_(receipt.entry.ms, receipt.entry.seq)
    holding = (
        sa.select(assets.c.id)
        .where(
            assets.c.stream == receipt.stream,
            assets.c.kind == "ingest",
            sa.tuple_(assets.c.first_ms, assets.c.first_seq) <= entry,
        )
        .order_by(assets.c.first_ms.desc(), assets.c.first_seq.desc())
        .limit(1)
        .scalar_subquery()
    )
    replaying = sa.select(dead_letters.c.replay_batch_id).where(dead_letters.c.receipt == str(receipt))
    return sa.or_(
        sa.and_(assets.c.id == holding, sa.tuple_(assets.c.last_ms, assets.c.last_seq) >= entry),
        assets.c.id.in_(replaying),
    )


_LISTED = tuple(
    assets.c[field.name] for field in fields(AssetRow) if field.name in assets.c and field.name != "failures"
)


def _row(row: Any) -> AssetRow:
    values = dict(row._mapping)
    lists = {name: tuple(values[name]) for name in ("run_ids", "failures") if name in values}
    return AssetRow(**(values | lists))
