"""What every Source does, against a real server with the APIs' shapes: the truth, or a clear failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from pipeline_platform.core.budgets import Priority
from pipeline_platform.core.prices import Interval, faults
from pipeline_platform.core.time_ranges import TimeRange, cost
from pipeline_platform.errors import SettingError, SourceRefusedError, SourceShapeError, SourceUnavailableError
from pipeline_platform.local.price_server.faults import Fault
from pipeline_platform.local.price_server.server import PriceServer, serving
from pipeline_platform.sources.protocol import Quotes, Source
from pipeline_platform_tests.contract.price_cases import CASES, NOW, Case, Purse, Rejected, quoted

each_case = pytest.mark.parametrize("case", CASES, ids=[case.kind for case in CASES])
with_pages = pytest.mark.parametrize(
    "case", [case for case in CASES if case.kind != "kraken"], ids=lambda case: case.kind
)


@pytest.fixture(scope="module")
def running() -> Iterator[PriceServer]:
    """One server for the module; its clock stands still."""
    with serving(clock=lambda: NOW) as server:
        yield server


@pytest.fixture
def server(running: PriceServer) -> PriceServer:
    """The server, well-behaved and with its counters at zero."""
    running.faults.clear()
    running.requests.clear()
    running.asked = []
    return running


@pytest.fixture
def purse() -> Purse:
    """A budget without limits."""
    return Purse()


@pytest.fixture
def source(case: Case, server: PriceServer, purse: Purse) -> Iterator[Source]:
    """The source of the case."""
    source = case.open(server, purse)
    yield source
    source.close()


def _misbehave(server: PriceServer, case: Case, fault: Fault) -> None:
    server.faults.set(case.path, fault)


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
    _misbehave(server, case, Fault(change=lambda body: case.with_rows(body, [])))
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

    _misbehave(server, case, Fault(change=without))
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

    _misbehave(server, case, Fault(change=shuffled))
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

    _misbehave(server, case, Fault(change=finer))
    assert list(source.candles(case.symbol, case.interval, wanted, Rejected())) == case.expected(server.truth, wanted)


@pytest.mark.parametrize(
    ("case", "change", "path"),
    [
        pytest.param(case, change, path, id=f"{case.kind}-{number}-{path}")
        for case in CASES
        for number, (change, path) in enumerate(case.broken)
    ],
)
def test_a_changed_shape_is_permanent_and_names_source_and_field(
    case: Case, change: Callable[[Any], Any], path: str, server: PriceServer, purse: Purse
) -> None:
    source = case.open(server, purse)
    _misbehave(server, case, Fault(change=change))
    with pytest.raises(SourceShapeError) as caught:
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    assert str(caught.value).startswith(f"{case.kind} answered with a shape we do not know: ")
    assert path in str(caught.value)
    assert source.spent == 1
    source.close()


@each_case
@pytest.mark.parametrize("status", [429, 418])
def test_too_many_requests_pause_everybody_for_as_long_as_the_source_says(
    case: Case, status: int, source: Source, server: PriceServer, purse: Purse
) -> None:
    body = {"code": -1003, "msg": "Too many requests."}
    _misbehave(server, case, Fault(status=status, body=body, headers={"Retry-After": "37"}))
    with pytest.raises(SourceUnavailableError, match="Too many requests") as caught:
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    assert caught.value.retry_after == 37
    assert purse.pauses == [37]
    assert source.spent == 1


@each_case
@pytest.mark.parametrize(("status", "seconds"), [(429, 10), (418, 120)])
def test_without_retry_after_the_pause_is_ours(
    case: Case, status: int, seconds: float, source: Source, server: PriceServer, purse: Purse
) -> None:
    _misbehave(server, case, Fault(status=status, body="slow down"))
    with pytest.raises(SourceUnavailableError, match="slow down"):
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    assert purse.pauses == [seconds]


@each_case
@pytest.mark.parametrize("status", [500, 502, 503, 504, 520])
def test_failures_of_the_server_are_transient_and_left_to_the_asker(
    case: Case, status: int, source: Source, server: PriceServer, purse: Purse
) -> None:
    _misbehave(server, case, Fault(status=status, body="<html>Bad Gateway</html>", times=1))
    with pytest.raises(SourceUnavailableError, match=str(status)):
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    assert (purse.pauses, source.spent) == ([], 1)
    assert list(source.candles(case.symbol, case.interval, case.range(30), Rejected())) == case.expected(
        server.truth, case.range(30)
    )


@each_case
@pytest.mark.parametrize("status", [301, 400, 401, 403, 410, 451])
def test_refusals_are_permanent(case: Case, status: int, source: Source, server: PriceServer) -> None:
    _misbehave(server, case, Fault(status=status, body={"message": "not you"}, headers={"Location": "/elsewhere"}))
    with pytest.raises(SourceRefusedError, match="not you" if status != 301 else "301") as caught:
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    assert caught.value.status == status
    assert source.spent == 1


@each_case
def test_a_server_that_hangs_is_given_up(case: Case, server: PriceServer, purse: Purse) -> None:
    source = case.open(server, purse, patience=0.3)
    _misbehave(server, case, Fault(hang=30, times=1))
    begun = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="in time"):
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    assert time.monotonic() - begun < 3
    source.close()


@each_case
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_body_is_transient(case: Case, keep: float, source: Source, server: PriceServer) -> None:
    _misbehave(server, case, Fault(keep=keep))
    with pytest.raises(SourceUnavailableError, match="broke off"):
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))


@each_case
@pytest.mark.parametrize("keep", [0.55, 0.95])
def test_a_body_cut_by_a_proxy_that_says_nothing_is_transient(
    case: Case, keep: float, source: Source, server: PriceServer
) -> None:
    _misbehave(server, case, Fault(keep=keep, quiet=True))
    with pytest.raises(SourceUnavailableError, match="not whole"):
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))


@each_case
def test_a_connection_that_was_dropped_once_is_made_again(case: Case, source: Source, server: PriceServer) -> None:
    _misbehave(server, case, Fault(drop=True, times=1))
    wanted = case.range(30)
    assert list(source.candles(case.symbol, case.interval, wanted, Rejected())) == case.expected(server.truth, wanted)


@each_case
def test_a_server_that_drops_every_connection_is_unavailable(case: Case, source: Source, server: PriceServer) -> None:
    _misbehave(server, case, Fault(drop=True))
    with pytest.raises(SourceUnavailableError, match="cannot be reached"):
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    assert sum(server.requests.values()) == 2


@each_case
def test_a_failure_in_the_middle_keeps_the_pages_before_it(case: Case, source: Source, server: PriceServer) -> None:
    if case.kind == "kraken":
        pytest.skip("Kraken's reach is one page")
    wanted = case.range(case.page * 2)
    reading = source.candles(case.symbol, case.interval, wanted, Rejected())
    first = [next(reading)]
    _misbehave(server, case, Fault(status=503))
    with pytest.raises(SourceUnavailableError):
        first.extend(reading)
    assert first == case.expected(server.truth, wanted)[: len(first)]
    assert len(first) > case.page // 2


@each_case
def test_an_unknown_symbol_is_refused(case: Case, source: Source, server: PriceServer) -> None:
    if case.kind == "ecb":  # which says 404 both for that and for a range without rates
        assert list(source.candles(case.unknown, case.interval, case.range(30), Rejected())) == []
    else:
        with pytest.raises(SourceRefusedError, match=r"prices\.yaml"):
            list(source.candles(case.unknown, case.interval, case.range(30), Rejected()))
    with pytest.raises(SourceRefusedError, match=r"prices\.yaml"):
        source.quotes([case.unknown])


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
def test_quotes_are_the_latest_prices_in_the_order_asked(case: Case, source: Source, server: PriceServer) -> None:
    quotes = source.quotes([case.other, case.symbol]).found
    assert [each.symbol for each in quotes] == [case.other, case.symbol]
    assert quotes[1] == quoted(case, server.truth)
    assert source.quotes([]) == Quotes()


@each_case
def test_quotes_of_a_changed_shape_are_refused(case: Case, source: Source, server: PriceServer) -> None:
    def changed(body: Any) -> Any:
        return body.replace("OBS_VALUE", "VALUE") if isinstance(body, str) else {"nothing": 1}

    server.faults.set(case.quotes_path, Fault(change=changed))
    with pytest.raises((SourceShapeError, SourceRefusedError), match=case.kind):
        source.quotes([case.symbol])


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
