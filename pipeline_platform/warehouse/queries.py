"""Questions to the aggregates, a page at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pipeline_platform.core.names import SHOWN
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.warehouse.engine import warehouse_errors


@dataclass(frozen=True, slots=True)
class PageKey:
    """The last row of a page: the next begins behind it."""

    window_start: datetime
    dimensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AggregateQuery:
    """Windows that start in [start, end), of the series whose dimensions are among the wanted values."""

    start: datetime
    end: datetime
    filters: Mapping[str, Sequence[str]]
    limit: int
    after: PageKey | None = None


@dataclass(frozen=True, slots=True)
class AggregatePage:
    """Rows ordered by window_start and dimensions, and where the next page begins, if there is one."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    next: PageKey | None


def aggregate_columns(spec: StreamSpec) -> tuple[str, ...]:
    """The columns of `<stream>_1m` in their order: window_start, dimensions, events, and each measure's statistics."""
    measures = [f"{measure}_{statistic}" for measure in spec.measures for statistic in SHOWN]
    return ("window_start", *spec.dimensions, "events", *measures)


def read_aggregates(engine: sa.Engine, spec: StreamSpec, query: AggregateQuery) -> AggregatePage:
    """One page of the one-minute aggregates. Raises WarehouseUnavailableError, TransientError or PermanentError."""
    columns = aggregate_columns(spec)
    view = sa.table(f"{spec.name}_1m", *(sa.column(sa.quoted_name(name, True)) for name in columns))
    order = [view.c.window_start, *(view.c[name] for name in spec.dimensions)]
    statement = (
        sa.select(*(view.c[name] for name in columns))
        .where(view.c.window_start >= _time(query.start), view.c.window_start < _time(query.end))
        .order_by(*order)
        .limit(query.limit + 1)
    )
    for name, values in query.filters.items():
        statement = statement.where(view.c[name] == sa.any_(sa.literal(list(values), sa.ARRAY(sa.Text))))
    if query.after is not None:
        key = sa.tuple_(_time(query.after.window_start), *(sa.literal(text) for text in query.after.dimensions))
        statement = statement.where(sa.tuple_(*order) > key, view.c.window_start >= _time(query.after.window_start))
    with warehouse_errors(), engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(statement)]
    more = len(rows) > query.limit
    rows = rows[: query.limit]
    width = len(spec.dimensions)
    key_of_last = PageKey(rows[-1][0], tuple(rows[-1][1 : 1 + width])) if more else None
    return AggregatePage(columns, rows, key_of_last)


def _time(moment: datetime) -> sa.BindParameter[datetime]:
    return sa.literal(moment, sa.TIMESTAMP(timezone=True))
