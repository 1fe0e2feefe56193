"""Marks on the windows that have to be rolled up, set by the loads that touched them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import psycopg
import sqlalchemy as sa

from pipeline_platform.core.rollups import Grain
from pipeline_platform.core.transforms import Aggregates
from pipeline_platform.core.windows import HOUR_US, floor_to, to_datetime
from pipeline_platform.warehouse.engine import warehouse_errors

_MARK = b"""
insert into rollup_marks (stream, grain, window_start)
select %s, '1h', w from unnest(%s::timestamptz[]) w order by w on conflict do nothing
"""
# Locked until the load's commit: whoever rolls the hours up waits for it.
_HOLD = b"""
select from rollup_marks where stream = %s and grain = '1h' and window_start = any(%s::timestamptz[])
order by window_start for share
"""
_ROLLED = (
    b"select window_start from rollups where stream = %s and grain = '1h' and window_start = any(%s::timestamptz[])"
)
_MARKED = sa.text(
    """
    select m.stream, m.window_start, r.stream is not null as late
    from rollup_marks m left join rollups r using (stream, grain, window_start)
    where m.grain = :grain and m.window_start <= :last
    order by m.stream, m.window_start limit :limit
    """
)


@dataclass(frozen=True)
class Mark:
    """A window that has to be rolled up, again where it is `late`."""

    stream: str
    grain: Grain
    window_start: datetime
    late: bool


def mark_hours(cursor: psycopg.Cursor[tuple[object, ...]], stream: str, aggregates: Aggregates) -> int:
    """Marks the hours that a load touched, in its transaction; the events in hours that had been rolled up already."""
    frame = aggregates.frame
    if not len(frame):
        return 0
    hours, code = np.unique(floor_to(frame["window_us"].to_numpy(), HOUR_US), return_inverse=True)
    events = np.bincount(code, weights=frame["events"].to_numpy())
    starts = [to_datetime(int(hour)) for hour in hours]
    cursor.execute(_MARK, [stream, starts])
    cursor.execute(_HOLD, [stream, starts])
    cursor.execute(_ROLLED, [stream, starts])
    rolled = {row[0] for row in cursor.fetchall()}
    return int(sum(count for start, count in zip(starts, events, strict=True) if start in rolled))


def marked(engine: sa.Engine, grain: Grain, before: datetime, *, limit: int = 10_000) -> list[Mark]:
    """The marked windows that end at `before` or earlier, of all streams, oldest first."""
    parameters = {"grain": grain.value, "last": before - grain.width, "limit": limit}
    with warehouse_errors(), engine.connect() as connection:
        rows = connection.execute(_MARKED, parameters)
        return [Mark(row.stream, grain, row.window_start, row.late) for row in rows]
