"""What is wrong with the prices of late, by SQL: each finding says how much was looked at and what to look into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import sqlalchemy as sa

from pipeline_platform.core.prices import Instrument
from pipeline_platform.warehouse.engine import warehouse_errors

TOLD = 10


@dataclass(frozen=True)
class Finding:
    """What a check found: `wrong` holds the first ten, in words."""

    looked_at: int
    wrong: tuple[str, ...]


def impossible_candles(engine: sa.Engine, since: datetime) -> Finding:
    """Candles whose high is not the highest or whose low is not the lowest, or that are negative."""
    return _find(
        engine,
        "from prices_candles where open_time >= :since",
        "not (low <= least(open, close) and high >= greatest(open, close) and low >= 0 and volume >= 0)",
        "source || ':' || symbol || ' ' || \"interval\" || ' ' || open_time",
        since=since,
    )


def disagreements(engine: sa.Engine, since: date, apart: float) -> Finding:
    """Days on which the sources' closes lie further apart than `apart` of the price."""
    return _find(
        engine,
        "from prices_daily where day >= :since and cardinality(sources) > 1",
        "spread > :apart",
        "symbol || ' ' || day || ': ' || round(spread * 100, 2) || ' % among ' || array_to_string(sources, ', ')",
        since=since,
        apart=apart,
    )


def old_quotes(engine: sa.Engine, now: datetime, asked: timedelta, oldest: Mapping[Instrument, datetime]) -> Finding:
    """Of these instruments the quotes that were fetched longer ago than `asked`, or whose price is older than that
    instrument's `oldest`: its source answers, and the price is frozen."""
    return _find(
        engine,
        "from prices_quotes q join unnest(cast(:sources as text[]), cast(:symbols as text[]), "
        "cast(:oldest as timestamptz[])) w (source, symbol, oldest) using (source, symbol)",
        "q.fetched_at < :before or q.at < w.oldest",
        "source || ':' || symbol || case when q.fetched_at < :before then ' was fetched last at ' || q.fetched_at "
        "else ' has a price of ' || q.at end",
        before=now - asked,
        sources=[each.source for each in oldest],
        symbols=[each.symbol for each in oldest],
        oldest=list(oldest.values()),
    )


def unpriced(engine: sa.Engine, since: date) -> Finding:
    """Orders without an amount in USD, by why."""
    return _find(
        engine,
        "from orders_usd_1d where day >= :since",
        "problem is not null",
        "problem || ' (' || day || ')'",
        since=since,
    )


def _find(engine: sa.Engine, rows: str, wrong: str, words: str, **values: object) -> Finding:
    count = sa.text(f"select count(*) {rows}")
    where = "and" if " where " in rows else "where"
    told = sa.text(f"select distinct {words} {rows} {where} ({wrong}) order by 1 limit {TOLD}")
    used = {name: value for name, value in values.items() if f":{name}" in rows}
    with warehouse_errors(), engine.connect() as connection:
        return Finding(
            connection.execute(count, used).scalar_one(), tuple(row[0] for row in connection.execute(told, values))
        )
