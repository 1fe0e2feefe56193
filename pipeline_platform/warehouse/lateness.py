"""What came late to a stream, and what became of the hours and days that it touched."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from pipeline_platform.warehouse.engine import warehouse_errors

_LATELY = sa.text(
    """
    select coalesce(sum(events_late), 0), coalesce(sum(events_behind), 0)
    from assets
    where stream = :stream and kind in ('ingest', 'replay') and state in ('loaded', 'dead')
        and planned_at > now() - interval '24 hours'
    """
)
_WAITING = sa.text(
    """
    select count(*) filter (where r.stream is null), count(*) filter (where r.stream is not null)
    from rollup_marks m left join rollups r using (stream, grain, window_start)
    where m.stream = :stream
    """
)
_CORRECTED = sa.text(
    "select count(*) from rollups where stream = :stream and times > 1 and rolled_at > now() - interval '24 hours'"
)


@dataclass(frozen=True)
class Lateness:
    """Of the last 24 hours: events that were `late` by the stream's policy, events `behind` a rolled-up hour, and
    windows `corrected`. Of now: windows that wait to be rolled up, for the first time or for a correction."""

    late: int
    behind: int
    corrected: int
    marked: int
    to_correct: int


def lateness(engine: sa.Engine, stream: str) -> Lateness:
    """The stream's late events and windows."""
    parameters = {"stream": stream}
    with warehouse_errors(), engine.connect() as connection:
        late, behind = connection.execute(_LATELY, parameters).one()
        marked, to_correct = connection.execute(_WAITING, parameters).one()
        corrected = connection.execute(_CORRECTED, parameters).scalar_one()
    return Lateness(int(late), int(behind), corrected, marked, to_correct)
