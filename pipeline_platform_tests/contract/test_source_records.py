"""A record at odds is rejected, counted and named, and the others are given; a changed shape is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline_platform.core.prices import Interval
from pipeline_platform.errors import (
    SourceShapeError,
)
from pipeline_platform.local.price_server.faults import Fault
from pipeline_platform.local.price_server.server import PriceServer
from pipeline_platform.sources.protocol import Source
from pipeline_platform_tests.contract.price_cases import CASES, Case, Purse, Rejected, each_case

each_odd = pytest.mark.parametrize(
    ("case", "change", "words"),
    [pytest.param(case, *odd, id=f"{case.kind}-{number}") for case in CASES for number, odd in enumerate(case.odd)],
)


@each_odd
def test_one_record_at_odds_is_rejected_and_named_and_the_others_are_given(
    case: Case, change: Callable[[Any], Any], words: str, server: PriceServer, purse: Purse
) -> None:
    source, rejected, wanted = case.open(server, purse), Rejected(), case.range(30)

    def odd(body: Any) -> Any:
        rows = list(case.rows(body))
        rows[len(rows) // 2] = change(rows[len(rows) // 2])
        return case.with_rows(body, rows)

    case.misbehave(server, Fault(change=odd))
    candles = list(source.candles(case.symbol, case.interval, wanted, rejected))
    expected = case.expected(server.truth, wanted)
    [lost] = [each for each in expected if each not in candles]
    assert candles == [each for each in expected if each is not lost]
    [(at, why)] = rejected.found
    assert why.startswith(f"{case.symbol} {case.interval.value}")
    assert words in why
    assert at is None or case.interval.floor(at) == lost.open_time
    assert source.spent == 1
    source.close()


@pytest.mark.parametrize(
    ("case", "change", "words"),
    [
        pytest.param(case, *odd, id=f"{case.kind}-{number}")
        for case in CASES
        for number, odd in enumerate(case.odd)
        if (case.kind, odd[1]) != ("ecb", "should be an object")  # a last line of another length is cut off
    ],
)
def test_records_that_are_all_at_odds_are_another_shape(
    case: Case, change: Callable[[Any], Any], words: str, server: PriceServer, purse: Purse
) -> None:
    source, rejected = case.open(server, purse), Rejected()
    case.misbehave(server, Fault(change=lambda body: case.with_rows(body, list(map(change, case.rows(body))))))
    with pytest.raises(SourceShapeError) as caught:
        list(source.candles(case.symbol, case.interval, case.range(30), rejected))
    assert str(caught.value).startswith(f"{case.kind} answered with a shape we do not know: ")
    assert words.split(" -3")[0] in str(caught.value)
    assert rejected.found == []
    source.close()


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
    case.misbehave(server, Fault(change=change))
    with pytest.raises(SourceShapeError) as caught:
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    assert str(caught.value).startswith(f"{case.kind} answered with a shape we do not know: ")
    assert path in str(caught.value)
    assert source.spent == 1
    source.close()


@each_case
def test_a_record_at_odds_that_is_alone_is_rejected_too(case: Case, source: Source, server: PriceServer) -> None:
    """A gap of one candle is asked for by itself: the same record must not become another shape then."""
    change, words = case.odd[0] if case.interval is Interval.HOUR and case.kind != "coingecko" else case.odd[1]
    rejected, wanted = Rejected(), case.range(30)

    def only_one(body: Any) -> Any:
        rows = case.rows(body)
        return case.with_rows(body, [change(rows[len(rows) // 2])] if source.spent == 1 else [])

    case.misbehave(server, Fault(change=only_one))
    assert list(source.candles(case.symbol, case.interval, wanted, rejected)) == []
    assert [words in why for _, why in rejected.found] == [True]


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.kind in ("binance", "demo", "coinbase", "frankfurter", "ecb")],
    ids=lambda case: case.kind,
)
def test_a_record_that_is_given_twice_with_other_values_is_told(
    case: Case, source: Source, server: PriceServer
) -> None:
    rejected, wanted = Rejected(), case.range(30)

    def twice(body: Any) -> Any:
        rows = list(case.rows(body))
        row = rows[len(rows) // 2]
        if isinstance(row, str):
            other: Any = ",".join([*row.split(",")[:7], "9.5", *row.split(",")[8:]])
        else:
            other = {**row, "rate": 9.5} if isinstance(row, dict) else [*row[:5], type(row[5])(1.5), *row[6:]]
        return case.with_rows(body, [other, *rows])

    case.misbehave(server, Fault(change=twice))
    candles = list(source.candles(case.symbol, case.interval, wanted, rejected))
    assert candles == case.expected(server.truth, wanted)  # the later one counts
    assert ["is given twice" in why for _, why in rejected.found] == [True]


@pytest.mark.parametrize("kind", ["coinbase", "coingecko", "binance"])
def test_a_record_at_odds_at_the_edge_of_two_pages_is_told_once(kind: str, server: PriceServer, purse: Purse) -> None:
    """Some sources give a page's last record again with the next page."""
    case = next(each for each in CASES if each.kind == kind)
    source, rejected, wanted = case.open(server, purse), Rejected(), case.range(case.page * 2)
    edge = wanted.start + (case.page - 1) * case.interval.length
    odd = int(edge.timestamp()) * (1 if kind == "coinbase" else 1000)

    def spoil(body: Any) -> Any:
        return case.with_rows(
            body, [[*row[:1], None, *row[2:]] if 0 <= row[0] - odd < 100 else row for row in case.rows(body)]
        )

    case.misbehave(server, Fault(change=spoil))
    candles = list(source.candles(case.symbol, case.interval, wanted, rejected))
    assert len(candles) == 2 * case.page - 1
    assert [case.interval.floor(at) for at, _ in rejected.found if at] == [edge]
    source.close()
