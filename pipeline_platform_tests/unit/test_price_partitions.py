"""Partition arithmetic: days of instruments from ranges and back, over leap days and the hours when clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.automation_tick_evaluation_context import build_run_requests_with_backfill_policies
from dagster._core.definitions.events import AssetKeyPartitionKey
from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.core.price_partitions import (
    Cell,
    cell_of,
    day_ranges,
    days_of,
    instrument_key,
    keys_of,
    ranges_of,
)
from pipeline_platform.core.prices import Instrument, Interval
from pipeline_platform.core.time_ranges import TimeRange, of_day
from pipeline_platform.orchestration.partition_ranges import range_tags
from pipeline_platform.orchestration.prices.assets import price_assets
from pipeline_platform.orchestration.prices.keys import CANDLES
from pipeline_platform.orchestration.prices.partitions import days
from pipeline_platform.orchestration.prices.planned import days_of_sources, expected_candles
from pipeline_platform.orchestration.prices.schedules import days_to_look_at
from pipeline_platform.sources.catalog import KINDS, load_plan
from pipeline_platform.sources.plan import PricePlan

DAYS = st.dates(date(2019, 12, 1), date(2028, 3, 31))
INSTRUMENTS = st.sampled_from([Instrument("demo", "BTCUSDT"), Instrument("kraken", "XBTUSD"), Instrument("a", "b:c/d")])
CELLS = st.builds(Cell, DAYS, INSTRUMENTS)
BERLIN = ZoneInfo("Europe/Berlin")


@given(CELLS)
def test_a_cell_is_its_key(cell: Cell) -> None:
    assert cell_of(cell.key) == cell
    assert dg.MultiPartitionKey({"instrument": instrument_key(cell.instrument), "day": str(cell.day)}) == cell.key


@given(st.sets(CELLS, min_size=1, max_size=60))
def test_ranges_hold_exactly_the_days_that_were_asked_for(cells: set[Cell]) -> None:
    ranges = ranges_of(cell.key for cell in cells)
    again = {key for instrument, spans in ranges.items() for key in keys_of(instrument, spans)}
    assert again == {cell.key for cell in cells}
    for spans in ranges.values():
        assert all(before.end < after.start for before, after in pairwise(spans))
    hours = sum(each.candles(Interval.HOUR) for spans in ranges.values() for each in spans)
    assert hours == 24 * len(cells)  # also on leap days, and when clocks change


@given(DAYS, st.integers(0, 400))
def test_the_days_of_a_range_are_consecutive_and_as_many_as_there_are(first: date, more: int) -> None:
    last = first + timedelta(days=more)
    found = list(days_of(TimeRange(of_day(first).start, of_day(last).end)))
    assert found == [first + timedelta(days=number) for number in range(more + 1)]
    assert day_ranges([of_day(day) for day in reversed(found)]) == [(first, last)]


def test_a_leap_day_is_a_day() -> None:
    assert [str(day) for day in days_of(TimeRange(of_day(date(2024, 2, 28)).start, of_day(date(2024, 3, 1)).end))] == [
        "2024-02-28",
        "2024-02-29",
        "2024-03-01",
    ]
    keys = days(date(2024, 2, 1)).get_partition_keys()
    assert "2024-02-29" in keys
    assert "2023-02-29" not in keys


@pytest.mark.parametrize("changes", [date(2026, 3, 29), date(2026, 10, 25)])
def test_days_on_which_clocks_change_have_24_hours_and_one_tick_each(changes: date) -> None:
    assert of_day(changes).candles(Interval.HOUR) == 24
    window = days(changes - timedelta(days=3)).time_window_for_partition_key(str(changes))
    assert window.end - window.start == timedelta(days=1)
    # What a tick looks at depends on UTC alone, wherever its clock says it is.
    for hour in range(24):
        at = datetime(changes.year, changes.month, changes.day, hour, 1, tzinfo=UTC)
        assert days_to_look_at(at) == days_to_look_at(at.astimezone(BERLIN).astimezone(UTC))
        assert days_to_look_at(at)[1] == changes


def test_days_near_to_each_other_are_one_run() -> None:
    spans = [of_day(date(2024, 1, day)) for day in (1, 2, 9, 20)]
    assert day_ranges(spans, 6) == [(date(2024, 1, 1), date(2024, 1, 9)), (date(2024, 1, 20), date(2024, 1, 20))]


def plan(instruments: int) -> PricePlan:
    """A plan of the source demo alone."""
    shipped = load_plan(None, "http://127.0.0.1:9")
    names = {f"C{number:02}-USD": f"C{number:02}USDT" for number in range(instruments)}
    demo = shipped.sources["demo"].model_copy(update={"instruments": names})
    return PricePlan.model_construct(sources={"demo": demo})


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_three_years_of_twenty_instruments_are_sixty_runs() -> None:
    graph = AssetGraph.from_assets(price_assets(plan(20), date(2023, 1, 1)))
    wanted = [
        AssetKeyPartitionKey(
            CANDLES, Cell(date(2023, 1, 1) + timedelta(days=day), Instrument("demo", f"C{n:02}USDT")).key
        )
        for day in range(1096)
        for n in range(20)
    ]
    with dg.DagsterInstance.ephemeral() as instance:
        requests = build_run_requests_with_backfill_policies(wanted, graph, instance)
    assert len(requests) == 60
    partitions = graph.get(CANDLES).partitions_def
    assert partitions is not None
    covered = [
        key
        for each in requests
        for key in partitions.get_partition_keys_in_range(
            dg.PartitionKeyRange(*(each.tags[name] for name in range_tags("", "")))
        )
    ]
    assert len(covered) == len(set(covered)) == len(wanted)
    assert set(covered) == {each.partition_key for each in wanted}


def test_what_is_expected_of_a_day_follows_calendar_and_time() -> None:
    now = datetime(2024, 3, 1, 5, 30, tzinfo=UTC)
    always, ecb = KINDS["binance"], KINDS["ecb"]
    assert expected_candles(date(2024, 2, 29), Interval.HOUR, always.calendar, always.grace, now) == 24
    assert expected_candles(date(2024, 3, 1), Interval.HOUR, always.calendar, always.grace, now) == 5
    assert expected_candles(date(2024, 3, 2), Interval.HOUR, always.calendar, always.grace, now) == 0
    assert expected_candles(date(2024, 2, 24), Interval.DAY, ecb.calendar, ecb.grace, now) == 0  # a Saturday
    assert expected_candles(date(2024, 2, 26), Interval.DAY, ecb.calendar, ecb.grace, now) == 1


def test_made_up_prices_are_never_beside_real_ones() -> None:
    shipped = load_plan()
    both = PricePlan.model_construct(
        sources={name: shipped.sources[name].model_copy(update={"enabled": True}) for name in ("binance", "demo")}
    )
    day = date(2024, 3, 1)
    rows = list(days_of_sources(both, day, day, datetime(2024, 3, 5, tzinfo=UTC)))
    by_symbol = {(each.canonical, each.instrument.source) for each in rows}
    assert ("BTC-USD", "binance") in by_symbol
    assert ("BTC-USD", "demo") not in by_symbol
    assert ("EUR-USD", "demo") in by_symbol
