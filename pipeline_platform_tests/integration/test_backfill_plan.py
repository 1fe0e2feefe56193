"""What a backfill says that it would do: partitions, candles, requests and runs, whole or of the gaps alone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa

from pipeline_platform.core.prices import Candle, Interval
from pipeline_platform.core.time_ranges import of_days
from pipeline_platform.errors import SettingError
from pipeline_platform.local.backfills import plan_candles
from pipeline_platform.sources.catalog import load_plan
from pipeline_platform.sources.plan import PricePlan
from pipeline_platform.warehouse.candles import upsert

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
FIRST, LAST = date(2023, 1, 1), date(2025, 12, 31)
DEMO = load_plan(None, "http://127.0.0.1:9")


def store(engine: sa.Engine, first: date, last: date, *, without: tuple[date, ...] = ()) -> None:
    """All hours and days of BTCUSDT but those of some days."""
    one = Decimal(1)
    upsert(
        engine,
        [
            Candle("demo", "BTCUSDT", interval, at, one, one, one, one, one, closed=True)
            for interval in (Interval.HOUR, Interval.DAY)
            for at in of_days(first, last).openings(interval)
            if at.date() not in without
        ],
        fetched_at=NOW,
    )


def test_three_years_of_an_instrument_are_three_runs_and_29_requests(engine: sa.Engine) -> None:
    work = plan_candles(engine, DEMO, FIRST, LAST, NOW, symbols=["BTC-USD"])
    assert len(work.partitions) == 1096
    assert (work.candles, work.requests, work.runs) == (1096 * 25, 27 + 2, 3)
    # 29 requests of weight 2 fit into the burst of the budget, so only the runs take time.
    assert work.seconds == 6.0


def test_the_budget_bounds_how_fast_it_can_be(engine: sa.Engine) -> None:
    sources = {"demo": DEMO.sources["demo"].model_copy(update={"intervals": (Interval.MINUTE,)})}
    work = plan_candles(engine, PricePlan.model_construct(sources=sources), FIRST, LAST, NOW)
    assert work.requests == 5 * 1579
    weight = 2 * 5 * 1579 - 800  # 200 of the burst are for live work
    assert work.seconds == pytest.approx(weight / ((6000 - 1000) / 60) + 2.0 * 15)


def test_only_gaps_are_days_with_a_gap_and_near_ones_are_one_run(engine: sa.Engine) -> None:
    first, last = date(2024, 1, 1), date(2024, 6, 30)
    holes = (date(2024, 2, 10), date(2024, 2, 29), date(2024, 6, 1))
    store(engine, first, last, without=holes)
    work = plan_candles(engine, DEMO, first, last, NOW, symbols=["BTCUSDT"], only_gaps=True)
    (each,) = work.work
    assert work.candles == 3 * 25
    assert (work.runs, len(work.partitions)) == (2, 20 + 1)  # from the first hole to the second, and the third
    assert each.partitions[0] == "2024-02-10|demo:BTCUSDT"
    assert each.partitions[19] == "2024-02-29|demo:BTCUSDT"
    # The first two holes are nearer to each other than half a page of hours, and all three than half a page of days.
    assert work.requests == 2 + 1


def test_what_is_complete_costs_nothing(engine: sa.Engine) -> None:
    day = date(2024, 2, 29)
    store(engine, day, day)
    work = plan_candles(engine, DEMO, day, day, NOW, symbols=["BTC-USD"], only_gaps=True)
    assert (work.partitions, work.candles, work.requests, work.runs, work.seconds) == ([], 0, 0, 0, 0.0)


def test_what_is_not_closed_yet_is_no_gap_and_the_future_is_not_asked_for(engine: sa.Engine) -> None:
    today = NOW.date()
    work = plan_candles(engine, DEMO, today, today + timedelta(days=3), NOW, symbols=["BTC-USD"], only_gaps=True)
    assert work.partitions == [f"{today}|demo:BTCUSDT"]
    assert work.candles == 11  # up to 11:00: the hour that ended at 12:00 may still change


def test_an_unknown_name_is_said_with_those_that_there_are(engine: sa.Engine) -> None:
    with pytest.raises(SettingError, match=r"'kraken' is not an enabled source\. There are: demo"):
        plan_candles(engine, DEMO, FIRST, LAST, NOW, sources=["kraken"])
    with pytest.raises(SettingError, match="'BTC' is not a symbol of the plan"):
        plan_candles(engine, DEMO, FIRST, LAST, NOW, symbols=["BTC"])
    with pytest.raises(SettingError, match="No source of prices is enabled"):
        plan_candles(engine, load_plan(), FIRST, LAST, NOW)
