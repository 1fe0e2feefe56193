"""Hours and days of a stream, rolled up from its minutes, or from its facts, a span of windows a transaction.

Every load marks the hours that it touched, in its own transaction. Rolling a window up takes its mark away first, and
waits for the loads that hold it: what they committed is in the sums, and what commits later marks the window again.
So a late event is never missing for longer than it takes to roll its hour and its day up once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from pipeline_platform.core.rollups import Grain, Span
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.stream_tables import MEASURE_COLUMNS, quoted


@dataclass(frozen=True)
class RolledUp:
    """What became of a span: events of its windows that have any, rows, and windows that were rolled up before."""

    by_window: Mapping[datetime, int]
    rows: int
    corrected: int

    @property
    def windows(self) -> int:
        """Windows with events."""
        return len(self.by_window)

    @property
    def events(self) -> int:
        """The events of all of them."""
        return sum(self.by_window.values())


def roll_up(engine: sa.Engine, spec: StreamSpec, grain: Grain, span: Span, *, recompute: bool = False) -> RolledUp:
    """Rolls the span's windows up, in one transaction; the same result however often.

    Hours come from the minutes and days from the hours; `recompute` takes both from the facts.
    """
    place = {"stream": spec.name, "grain": grain.value, "start": span.start, "end": span.end}
    within = "window_start >= :start and window_start < :end"
    target = f'"{spec.name}_{grain.unit}s"'
    with warehouse_errors(), engine.begin() as connection:
        connection.execute(sa.text("select pg_advisory_xact_lock(hashtext('rollup ' || :stream || :grain))"), place)
        # Waits for the loads that hold a mark; what follows then sees what they wrote.
        marks = f"delete from rollup_marks where stream = :stream and grain = :grain and {within}"
        connection.execute(sa.text(marks), place)
        origin, moment = _origin(spec, grain, recompute=recompute)
        # Windows without a source stay: theirs is past its retention.
        connection.execute(
            sa.text(
                f"delete from {target} where {within} and window_start in (select distinct "
                f"date_trunc('{grain.unit}', {moment}, 'UTC') from {origin} "
                f"where {moment} >= :start and {moment} < :end)"
            ),
            place,
        )
        source = _from_facts(spec, grain) if recompute else _from_finer(spec, grain, origin)
        names = ", ".join(quoted(name) for name in _columns(spec))
        done = connection.execute(
            sa.text(f"insert into {target} ({names}) {source}"),
            place,
        )
        rolled = connection.execute(
            sa.text(
                "insert into rollups as t (stream, grain, window_start, events) "
                f"select :stream, :grain, window_start, sum(events) from {target} where {within} group by window_start "
                "on conflict (stream, grain, window_start) do update set events = excluded.events, "
                "rolled_at = now(), times = t.times + 1 returning t.window_start, t.events, t.times"
            ),
            place,
        ).all()
        if grain is Grain.HOUR:
            connection.execute(
                sa.text(
                    "insert into rollup_marks (stream, grain, window_start) select distinct :stream, '1d', "
                    f"date_trunc('day', window_start, 'UTC') from {target} where {within} on conflict do nothing"
                ),
                place,
            )
            connection.execute(  # as in `mark_hours`: the day waits for this commit
                sa.text(
                    "select 1 from rollup_marks where stream = :stream and grain = '1d' and window_start >= "
                    "date_trunc('day', cast(:start as timestamptz), 'UTC') and window_start < :end for share"
                ),
                place,
            )
    by_window = {row.window_start.astimezone(UTC): int(row.events) for row in rolled}
    return RolledUp(by_window, done.rowcount, sum(row.times > 1 for row in rolled))


def _origin(spec: StreamSpec, grain: Grain, *, recompute: bool) -> tuple[str, str]:
    """The table that the windows come from, and its column of time."""
    if recompute:
        return f'"{spec.name}_events"', "ts"
    return f'"{spec.name}_{"minutes" if grain is Grain.HOUR else "hours"}"', "window_start"


def _columns(spec: StreamSpec) -> list[str]:
    names = ["series_id", "window_start", "events"]
    for measure in spec.measures:
        names += [f"{measure}_{suffix}" for suffix, _, _ in MEASURE_COLUMNS]
    return names


def _from_finer(spec: StreamSpec, grain: Grain, finer: str) -> str:
    """A SELECT that joins finer windows. Squared distances are joined around the whole window's mean."""
    window = f"date_trunc('{grain.unit}', window_start, 'UTC')"
    means, picks = [], []
    for name in spec.measures:
        count, total, m2 = (quoted(f"{name}_{suffix}") for suffix in ("count", "sum", "m2"))
        mean = quoted(f"{name}_mean")
        means.append(f"sum({total}) over w / nullif(sum({count}) over w, 0) as {mean}")
        distance = f"({total} / nullif({count}, 0) - {mean})"
        picks += [
            f"sum({count})",
            f"sum({total})",
            f"min({quoted(f'{name}_min')})",
            f"max({quoted(f'{name}_max')})",
            f"sum({m2} + coalesce({count} * {distance} * {distance}, 0))",
            *_edge(quoted(f"{name}_first"), quoted(f"{name}_first_ts"), ""),
            *_edge(quoted(f"{name}_last"), quoted(f"{name}_last_ts"), " desc"),
        ]
    return (
        f"select series_id, _bucket, sum(events), {', '.join(picks)} from ("
        f"select *, {window} as _bucket, {', '.join(means)} from {finer} "
        f"where window_start >= :start and window_start < :end window w as (partition by series_id, {window})) f "
        "group by series_id, _bucket"
    )


def _from_facts(spec: StreamSpec, grain: Grain) -> str:
    picks = []
    for name in spec.measures:
        value = quoted(name)
        picks += [
            f"count({value})",
            f"coalesce(sum({value}), 0)",
            f"min({value})",
            f"max({value})",
            f"coalesce(var_pop({value}) * count({value}), 0)",
            *_edge(value, f"case when {value} is not null then ts end", ""),
            *_edge(value, f"case when {value} is not null then ts end", " desc"),
        ]
    return (
        f"select series_id, date_trunc('{grain.unit}', ts, 'UTC') as _bucket, count(*), {', '.join(picks)} "
        f'from "{spec.name}_events" where ts >= :start and ts < :end group by series_id, _bucket'
    )


def _edge(value: str, moment: str, order: str) -> list[str]:
    """The value at the earliest or latest time, of equal times the smallest or largest value, and that time."""
    pick = "max" if order else "min"
    return [
        f"(array_agg({value} order by {moment}{order}, {value}{order}) filter (where {value} is not null))[1]",
        f"{pick}({moment})",
    ]
