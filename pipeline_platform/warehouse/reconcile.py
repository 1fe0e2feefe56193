"""Do the parts of the warehouse agree? What the asset checks, `doctor` and the tests ask."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from pipeline_platform.core.rollups import Grain
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.stream_tables import quoted


@dataclass(frozen=True)
class Agreement:
    """The outcome of a comparison: how much was compared and up to ten differences, a sentence each."""

    compared: int
    differences: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def minutes_equal_facts(engine: sa.Engine, spec: StreamSpec, since: datetime, until: datetime) -> Agreement:
    """Compares the aggregates of the windows in [since, until) with a recomputation from the facts.

    Counts, extremes and first/last are compared exactly, sums and squared distances to 1e-9 of the sum of the
    magnitudes that went into them: the order of a floating-point sum is not fixed. One statement sees one snapshot,
    so running loads do not disturb it.
    """
    return _equal_facts(engine, spec, "minute", since, until)


def rollups_equal_facts(
    engine: sa.Engine, spec: StreamSpec, grain: Grain, since: datetime, until: datetime
) -> Agreement:
    """The same for the hours or days in [since, until), without those that are marked to be rolled up again."""
    return _equal_facts(engine, spec, grain.unit, since, until, unmarked=grain.value)


def _equal_facts(
    engine: sa.Engine, spec: StreamSpec, unit: str, since: datetime, until: datetime, *, unmarked: str = ""
) -> Agreement:
    sides = []
    for name in spec.measures:
        column, stored = f"e.{quoted(name)}", f"m.{quoted(name)}"[:-1]
        sides += [
            (f'{stored}_count"', f"count({column})", None),
            (f'{stored}_sum"', f"coalesce(sum({column}), 0)", f"sum(abs({column}))"),
            (f'{stored}_min"', f"min({column})", None),
            (f'{stored}_max"', f"max({column})", None),
            (f'{stored}_m2"', f"coalesce(var_pop({column}) * count({column}), 0)", f"sum({column} * {column})"),
            (
                f'{stored}_first"',
                f"(array_agg({column} order by e.ts, {column}) filter (where {column} is not null))[1]",
                None,
            ),
            (
                f'{stored}_last"',
                f"(array_agg({column} order by e.ts desc, {column} desc) filter (where {column} is not null))[1]",
                None,
            ),
        ]
    recomputed = ", ".join(f"{expression} as c{number}" for number, (_, expression, _) in enumerate(sides))
    recomputed += "".join(f", coalesce({size}, 0) as z{number}" for number, (_, _, size) in enumerate(sides) if size)
    stored_columns = ", ".join(f"{stored} as c{number}" for number, (stored, _, _) in enumerate(sides))
    unequal = " or ".join(
        f"abs(s.c{number} - f.c{number}) > 1e-9 * f.z{number}" if size else f"s.c{number} is distinct from f.c{number}"
        for number, (_, _, size) in enumerate(sides)
    )
    query = sa.text(
        f"with s as (select m.series_id, m.window_start, m.events, {stored_columns} "
        f'from "{spec.name}_{unit}s" m where m.window_start >= :since and m.window_start < :until), '
        f"f as (select e.series_id, date_trunc('{unit}', e.ts, 'UTC') as window_start, "
        f"count(*) as events, {recomputed} "
        f'from "{spec.name}_events" e where e.ts >= :since and e.ts < :until group by 1, 2) '
        f"select series_id, window_start, s.events, f.events, "
        f"(s.events is distinct from f.events or {unequal}) as differs "
        "from s full join f using (series_id, window_start) "
        "where :unmarked = '' or not exists (select from rollup_marks k where k.stream = :stream "
        "and k.grain = :unmarked and k.window_start = coalesce(s.window_start, f.window_start))"
    )
    place = {"since": since, "until": until, "unmarked": unmarked, "stream": spec.name}
    with warehouse_errors(), engine.connect() as connection:
        rows = connection.execute(query, place).all()
    differences = [
        f"series {row[0]}, window {row[1]:%Y-%m-%d %H:%M}: aggregates of {row[2]} events, facts of {row[3]}"
        for row in rows
        if row[4]
    ]
    return Agreement(len(rows), tuple(differences[:10]))


def facts_equal_ledger(engine: sa.Engine, spec: StreamSpec, since: datetime) -> Agreement:
    """Compares, for the batches loaded since `since`, the ledger's counts with the facts and dead letters there are.

    Whatever becomes of a dead letter, it stays with the batch that refused it first: a replay's batch has none.
    """
    query = sa.text(
        "with b as (select id, events_loaded, first_ts, last_ts, "
        "case kind when 'ingest' then events_rejected else 0 end as events_rejected from assets "
        # The first bound lets the index on planned_at find what was loaded lately, even after an outage of a week.
        "where planned_at >= cast(:since as timestamptz) - interval '7 days' and loaded_at >= :since "
        "and stream = :stream and kind in ('ingest', 'replay') and state in ('loaded', 'dead', 'replayed')), "
        "span as (select min(first_ts) as low, max(last_ts) as high, min(id) as first_id from b), "
        f'f as (select e.batch_id, count(*) as events from "{spec.name}_events" e, span '
        "where e.ts >= span.low and e.ts <= span.high and e.batch_id >= span.first_id group by 1), "
        "d as (select batch_id, count(*) as events from dead_letters where batch_id >= (select first_id from span) "
        "group by 1) "
        "select b.id, b.events_loaded, coalesce(f.events, 0), b.events_rejected, coalesce(d.events, 0) "
        "from b left join f on f.batch_id = b.id left join d on d.batch_id = b.id"
    )
    with warehouse_errors(), engine.connect() as connection:
        rows = connection.execute(query, {"stream": spec.name, "since": since}).all()
    differences = [
        f"batch {row[0]}: the ledger says {row[1]} loaded and {row[3]} rejected, there are {row[2]} and {row[4]}"
        for row in rows
        if row[1] != row[2] or row[3] != row[4]
    ]
    return Agreement(len(rows), tuple(differences[:10]))


def freshness(engine: sa.Engine, spec: StreamSpec) -> timedelta:
    """How long the oldest event of an unsettled batch has been waiting; zero when all that was planned is settled."""
    query = sa.text(
        "select coalesce(now() - to_timestamp(min(first_ms) / 1000.0), interval '0') from assets "
        "where stream = :stream and kind = 'ingest' and state in ('planned', 'failed')"
    )
    with warehouse_errors(), engine.connect() as connection:
        waited = connection.scalar(query, {"stream": spec.name})
    return waited if isinstance(waited, timedelta) else timedelta()
