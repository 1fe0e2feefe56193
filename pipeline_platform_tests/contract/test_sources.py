"""What every Source does, against a real server with the APIs' shapes: the truth, or a clear failure."""

from __future__ import annotations

import threading
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from pipeline_platform.core.budgets import Priority
from pipeline_platform.core.prices import Interval, faults
from pipeline_platform.core.time_ranges import TimeRange, cost
from pipeline_platform.errors import (
    SettingError,
    SourceUnavailableError,
    UnknownSymbolError,
)
from pipeline_platform.local.price_server.faults import Fault
from pipeline_platform.local.price_server.server import PriceServer
from pipeline_platform.sources.protocol import Source
from pipeline_platform_tests.contract.price_cases import CASES, NOW, Case, Purse, Rejected, each_case

with_pages = pytest.mark.parametrize(
    "case", [case for case in CASES if case.kind != "kraken"], ids=lambda case: case.kind
)


@each_case
def test_candles_are_the_truth_ascending_and_only_of_the_range(case: Case, source: Source, server: PriceServer) -> None:
    wanted = case.range(30)
    candles = list(source.candles(case.symbol, case.interval, wanted, Rejected()))
    assert candles == case.expected(server.truth, wanted)
    assert len(candles) >= 20
    assert all(each.closed for each in candles)
    assert [each for candle in candles for each in faults(candle)] == []


@each_case
def test_a_range_that_begins_and_ends_within_candles_gives_those_that_open_in_it(
    case: Case, source: Source, server: PriceServer
) -> None:
    whole = case.range(30)
    wanted = TimeRange(whole.start + timedelta(minutes=7), whole.end - timedelta(minutes=7))
    expected = [each for each in case.expected(server.truth, whole) if each.open_time in wanted]
    assert list(source.candles(case.symbol, case.interval, wanted, Rejected())) == expected


@with_pages
def test_long_ranges_are_asked_for_by_pages_of_the_sources_size(
    case: Case, source: Source, server: PriceServer, purse: Purse
) -> None:
    wanted = case.range(case.page * 2 + case.page // 3)
    candles = list(source.candles(case.symbol, case.interval, wanted, Rejected()))
    assert candles == case.expected(server.truth, wanted)
    assert source.spent == len(purse.taken) == sum(server.requests.values()) == 3
    assert cost([wanted], case.interval, source.max_candles_per_request(case.interval)) == 3


@each_case
def test_a_range_of_exactly_one_page_is_one_request(case: Case, source: Source, server: PriceServer) -> None:
    page = case.page - (0 if case.kind != "kraken" else 20)
    wanted = case.range(page)
    assert list(source.candles(case.symbol, case.interval, wanted, Rejected())) == case.expected(server.truth, wanted)
    assert source.spent == 1


@each_case
def test_the_candle_that_is_not_over_is_open(case: Case, source: Source, server: PriceServer) -> None:
    wanted = TimeRange(case.interval.floor(NOW) - 5 * case.interval.length, NOW + timedelta(days=3))
    candles = list(source.candles(case.symbol, case.interval, wanted, Rejected()))
    assert candles == case.expected(server.truth, wanted)
    assert [each.open_time for each in candles if not each.closed][-1] == case.interval.floor(NOW)
    assert all(each.closed for each in candles[:-2])


@each_case
def test_the_future_is_not_asked_for(case: Case, source: Source, purse: Purse) -> None:
    wanted = TimeRange(NOW + timedelta(days=1), NOW + timedelta(days=9))
    assert list(source.candles(case.symbol, case.interval, wanted, Rejected())) == []
    assert purse.taken == []


@each_case
def test_what_is_beyond_reach_is_not_asked_for(case: Case, source: Source, purse: Purse) -> None:
    reach = source.reach(case.interval, NOW)
    assert reach < NOW - timedelta(days=20)
    assert (
        list(source.candles(case.symbol, case.interval, TimeRange(reach - timedelta(days=900), reach), Rejected()))
        == []
    )
    assert purse.taken == []


@each_case
def test_everything_within_reach_is_there(case: Case, source: Source, server: PriceServer) -> None:
    reach = source.reach(case.interval, NOW)
    wanted = TimeRange(reach - timedelta(days=3), reach + 40 * case.interval.length)
    candles = list(source.candles(case.symbol, case.interval, wanted, Rejected()))
    if case.kind not in ("binance", "demo", "coinbase"):  # whose history begins when they opened
        assert candles[0].open_time == reach
        assert len(candles) >= 20
    assert all(reach <= each.open_time < wanted.end for each in candles)


@each_case
def test_an_empty_answer_is_no_candles(case: Case, source: Source, server: PriceServer) -> None:
    case.misbehave(server, Fault(change=lambda body: case.with_rows(body, [])))
    assert list(source.candles(case.symbol, case.interval, case.range(30), Rejected())) == []


@each_case
def test_a_gap_is_left_as_it_is(case: Case, source: Source, server: PriceServer) -> None:
    wanted = case.range(30)
    expected = case.expected(server.truth, wanted)
    gone = {each.open_time for each in expected[5:9]}
    times = [each.open_time for each in expected]

    def without(body: Any) -> Any:
        rows = case.rows(body)
        return case.with_rows(body, [row for row in rows if not _is_of(case, row, gone)])

    case.misbehave(server, Fault(change=without))
    there = [each.open_time for each in source.candles(case.symbol, case.interval, wanted, Rejected())]
    assert there == [at for at in times if at not in gone]


def _is_of(case: Case, row: Any, times: set[Any]) -> bool:
    """Whether a row of an answer belongs to a candle that opened at one of `times`."""
    for at in times:
        day = at.date().isoformat()
        if isinstance(row, str | dict):
            if day in str(row):
                return True
        elif isinstance(row[0], str):
            if row[0] == day:
                return True
        elif case.interval.floor(_time(case, row[0])) == at:
            return True
    return False


def _time(case: Case, number: int) -> Any:
    return NOW - timedelta(seconds=1) * (NOW.timestamp() - number * case.to_microseconds / 1_000_000)


@each_case
def test_the_order_and_repetition_of_an_answer_do_not_matter(case: Case, source: Source, server: PriceServer) -> None:
    wanted = case.range(30)

    def shuffled(body: Any) -> Any:
        rows = list(case.rows(body))
        last = rows[-1:] if case.kind == "kraken" else []  # which is the open one
        mixed = rows[::2][::-1] + rows[1::2] + rows[:3]
        return case.with_rows(body, [*mixed, *last])

    case.misbehave(server, Fault(change=shuffled))
    candles = list(source.candles(case.symbol, case.interval, wanted, Rejected()))
    assert candles == case.expected(server.truth, wanted)
    assert all(one.open_time < other.open_time for one, other in pairwise(candles))


@pytest.mark.parametrize("case", [case for case in CASES if case.to_microseconds], ids=lambda case: case.kind)
def test_timestamps_in_microseconds_are_the_same_times(case: Case, source: Source, server: PriceServer) -> None:
    wanted = case.range(30)

    def finer(body: Any) -> Any:
        for row in case.rows(body):
            row[0] *= case.to_microseconds
        return body

    case.misbehave(server, Fault(change=finer))
    assert list(source.candles(case.symbol, case.interval, wanted, Rejected())) == case.expected(server.truth, wanted)


@each_case
def test_an_unknown_symbol_is_refused_and_named(case: Case, source: Source, server: PriceServer) -> None:
    with pytest.raises(UnknownSymbolError, match=r"prices\.yaml") as caught:
        list(source.candles(case.unknown, case.interval, case.range(30), Rejected()))
    assert caught.value.symbol == case.unknown
    answer = source.quotes([case.unknown])
    assert (answer.found, list(answer.refused)) == ([], [case.unknown])
    assert "prices.yaml" in answer.refused[case.unknown]


@each_case
def test_an_interval_that_the_source_does_not_have_is_a_wrong_setting(case: Case, source: Source) -> None:
    for interval in set(Interval) - source.intervals:
        with pytest.raises(SettingError, match=r"prices\.yaml"):
            source.candles(case.symbol, interval, case.range(3), Rejected())


@each_case
def test_every_interval_that_the_source_has_is_the_truth(case: Case, source: Source, server: PriceServer) -> None:
    for interval in source.intervals:
        end = interval.floor(NOW) - interval.length
        wanted = TimeRange(end - 7 * interval.length, end)
        expected = case.expect(server.truth, case.kind, interval, wanted)
        assert list(source.candles(case.symbol, interval, wanted, Rejected())) == expected


@each_case
def test_every_request_says_who_asks_and_is_paid_for(
    case: Case, source: Source, server: PriceServer, purse: Purse
) -> None:
    list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    source.quotes([case.symbol])
    assert server.asked is not None
    assert len(server.asked) == len(purse.taken) == source.spent == 2
    assert all(headers["User-Agent"].startswith("pipeline-platform/") for _, _, headers in server.asked)
    assert {priority for _, priority in purse.taken} == {Priority.LIVE}


@each_case
def test_nothing_is_asked_without_the_budgets_leave(case: Case, server: PriceServer) -> None:
    class Empty(Purse):
        def take(self, weight: float, priority: Priority) -> None:
            raise SourceUnavailableError("spent", retry_after=5)

    source = case.open(server, Empty())
    with pytest.raises(SourceUnavailableError, match="spent"):
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    with pytest.raises(SourceUnavailableError, match="spent"):
        source.quotes([case.symbol])
    assert sum(server.requests.values()) == 0
    source.close()


@each_case
def test_two_sources_at_once_do_not_touch_each_other(case: Case, server: PriceServer, purse: Purse) -> None:
    wanted = case.range(60)
    found: list[object] = []

    def read() -> None:
        source = case.open(server, purse)
        found.append(list(source.candles(case.symbol, case.interval, wanted, Rejected())))
        source.close()

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [case.expected(server.truth, wanted)] * 4
