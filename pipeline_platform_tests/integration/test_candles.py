"""Candles in the warehouse: only what is newer is written, in any order of runs, and gaps are found by SQL."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline_platform.core.calendars import Calendar
from pipeline_platform.core.prices import Candle, Instrument, Interval
from pipeline_platform.core.time_ranges import TimeRange, missing
from pipeline_platform.warehouse.candle_gaps import Wanted, find_gaps
from pipeline_platform.warehouse.candles import Written, upsert

T0 = datetime(2024, 2, 28, tzinfo=UTC)
HOUR = timedelta(hours=1)
BTC = Instrument("demo", "BTCUSDT")


def candle(hour: int, close: str = "10", volume: str = "1", *, closed: bool = True) -> Candle:
    """An hour's candle."""
    price = Decimal(close)
    low, high = min(price, Decimal(5)), max(price, Decimal(15))
    return Candle(
        BTC.source, BTC.symbol, Interval.HOUR, T0 + hour * HOUR, Decimal(10), high, low, price, Decimal(volume), closed
    )


def rows(engine: sa.Engine, columns: str = "open_time, close, volume, closed, xmin, ctid") -> list[Any]:
    """What is there, with the row versions."""
    with engine.connect() as connection:
        return list(connection.execute(sa.text(f"select {columns} from price_candles order by open_time")))


def store(engine: sa.Engine, *candles: Candle, at: int = 0) -> Written:
    """Stores an answer that was asked for `at` minutes after T0."""
    return upsert(engine, candles, fetched_at=T0 + timedelta(minutes=at), run_id=f"r{at}")


def test_a_rerun_touches_no_row(engine: sa.Engine) -> None:
    answer = [candle(0), candle(1), candle(2, closed=False)]
    assert store(engine, *answer, at=1) == Written(inserted=3)
    before = rows(engine)
    assert store(engine, *answer, at=2) == Written(unchanged=3)
    assert rows(engine) == before


def test_an_open_candle_never_replaces_a_closed_one(engine: sa.Engine) -> None:
    store(engine, candle(0, "12", "3"), at=1)
    assert store(engine, candle(0, "11", "2", closed=False), at=9) == Written(unchanged=1)
    assert rows(engine, "close, closed") == [(12, True)]


def test_a_closed_candle_replaces_an_open_one_that_was_fetched_later(engine: sa.Engine) -> None:
    store(engine, candle(0, "11", "2", closed=False), at=9)
    assert store(engine, candle(0, "12", "3"), at=1) == Written(updated=1)
    assert rows(engine, "close, closed") == [(12, True)]


def test_of_two_open_candles_the_later_fetch_wins(engine: sa.Engine) -> None:
    store(engine, candle(0, "11", "2", closed=False), at=5)
    assert store(engine, candle(0, "10", "1", closed=False), at=4) == Written(unchanged=1)
    assert store(engine, candle(0, "13", "3", closed=False), at=6) == Written(updated=1)
    assert rows(engine, "close") == [(13,)]


def test_numbers_are_kept_to_the_last_digit(engine: sa.Engine) -> None:
    exact = "0.12345678901234567890123456789"
    store(engine, candle(0, "10", exact))
    assert rows(engine, "volume") == [(Decimal(exact),)]


# A source's history of one candle: open with growing volume, then closed, perhaps corrected once. Each run saw it at
# some moment. Whatever order the runs write in, the rows are those of the latest look.
HISTORIES = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 30)), min_size=1, max_size=25
)  # (which candle, when it was looked at)


def seen(hour: int, at: int) -> Candle:
    """What the source said at minute `at` of the candle: open up to 10, closed from 10, corrected at 20."""
    if at < 10:
        return candle(hour, str(7 + at % 5), str(1 + at), closed=False)
    return candle(hour, "9" if at < 20 else "8", "50" if at < 20 else "51")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HISTORIES, st.randoms(use_true_random=False))
def test_any_order_of_runs_makes_the_same_rows(
    engine: sa.Engine, looks: list[tuple[int, int]], rng: random.Random
) -> None:
    found = []
    for order in (sorted(looks, key=lambda look: look[1]), looks, rng.sample(looks, len(looks))):
        with engine.begin() as connection:
            connection.execute(sa.text("truncate price_candles"))
        for hour, at in order:
            store(engine, seen(hour, at), at=at)
        found.append(rows(engine, "open_time, open, high, low, close, volume, closed"))
    latest = {hour: max(at for one, at in looks if one == hour) for hour, _ in looks}
    expected = [
        (c.open_time, c.open, c.high, c.low, c.close, c.volume, c.closed)
        for c in (seen(hour, at) for hour, at in sorted(latest.items()))
    ]
    assert found[0] == found[1] == found[2] == expected


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 71)), st.sets(st.integers(0, 71)), st.integers(1, 72))
def test_gaps_by_sql_are_the_gaps_by_hand(engine: sa.Engine, closed: set[int], opened: set[int], until: int) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("truncate price_candles"))
    store(engine, *(candle(hour) for hour in closed))
    store(engine, *(candle(hour, closed=False) for hour in opened - closed), at=1)
    within = TimeRange(T0, T0 + 72 * HOUR)
    (gaps,) = find_gaps(engine, [Wanted(BTC, Interval.HOUR, per_request=10)], within, T0 + until * HOUR)
    looked_at = TimeRange(T0, T0 + until * HOUR)
    assert list(gaps.ranges) == missing(looked_at, Interval.HOUR, [T0 + hour * HOUR for hour in closed])
    assert gaps.candles == until - len({hour for hour in closed if hour < until})
    assert gaps.requests == sum(-(-each.candles(Interval.HOUR) // 10) for each in gaps.ranges)


def test_weekends_and_holidays_are_no_gaps(engine: sa.Engine) -> None:
    week = TimeRange(datetime(2024, 3, 25, tzinfo=UTC), datetime(2024, 4, 8, tzinfo=UTC))  # Easter is 31 March
    euro = Instrument("ecb", "EUR-USD")
    wanted = Wanted(euro, Interval.DAY, Calendar.ECB)
    (gaps,) = find_gaps(engine, [wanted], week, week.end)
    assert gaps.candles == 8  # ten weekdays but Good Friday and Easter Monday
    there = [day for day in week.openings(Interval.DAY) if Calendar.ECB.expects(day) and day.day != 3]
    one = Decimal(1)
    upsert(
        engine,
        [Candle("ecb", "EUR-USD", Interval.DAY, day, one, one, one, one, Decimal(0), True) for day in there],
        fetched_at=T0,
    )
    (gaps,) = find_gaps(engine, [wanted], week, week.end)
    assert [each.start for each in gaps.ranges] == [datetime(2024, 4, 3, tzinfo=UTC)]


def test_a_year_of_minutes_is_looked_through_quickly(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                'insert into price_candles (source, symbol, "interval", open_time, open, high, low, close, volume, '
                "closed, fetched_at) select 'demo', 'BTCUSDT', '1m', t, 1, 1, 1, 1, 0, true, now() "
                "from generate_series('2023-01-01'::timestamptz, '2023-03-01', '1 minute') t "
                "where t <> '2023-02-01 12:34Z'"
            )
        )
    within = TimeRange(datetime(2023, 1, 1, tzinfo=UTC), datetime(2023, 3, 1, tzinfo=UTC))
    began = datetime.now(UTC)
    (gaps,) = find_gaps(engine, [Wanted(BTC, Interval.MINUTE)], within, within.end)
    assert [(each.start, each.candles(Interval.MINUTE)) for each in gaps.ranges] == [
        (datetime(2023, 2, 1, 12, 34, tzinfo=UTC), 1)
    ]
    assert datetime.now(UTC) - began < timedelta(seconds=2)


def test_a_candle_of_another_interval_is_not_a_gap(engine: sa.Engine) -> None:
    with pytest.raises(ValueError, match="ends after"):
        TimeRange(T0, T0)
    (gaps,) = find_gaps(engine, [Wanted(BTC, Interval.DAY)], TimeRange(T0, T0 + HOUR), T0 + HOUR)
    assert gaps.ranges == ()
