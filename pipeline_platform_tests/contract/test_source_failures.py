"""Failures of sources: what passes, with which pauses, and what is final."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pipeline_platform.errors import (
    QuestionRefusedError,
    SourceRefusedError,
    SourceUnavailableError,
    UnknownSymbolError,
)
from pipeline_platform.local.price_server.faults import Fault
from pipeline_platform.local.price_server.server import PriceServer
from pipeline_platform.sources.protocol import Source
from pipeline_platform_tests.contract.price_cases import CASES, Case, Purse, Rejected, each_case


@each_case
@pytest.mark.parametrize("status", [429, 418])
def test_too_many_requests_pause_everybody_for_as_long_as_the_source_says(
    case: Case, status: int, source: Source, server: PriceServer, purse: Purse
) -> None:
    body = {"code": -1003, "msg": "Too many requests."}
    case.misbehave(server, Fault(status=status, body=body, headers={"Retry-After": "37"}))
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
    case.misbehave(server, Fault(status=status, body="slow down"))
    with pytest.raises(SourceUnavailableError, match="slow down"):
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    assert purse.pauses == [seconds]


@each_case
@pytest.mark.parametrize("status", [500, 502, 503, 504, 520])
def test_failures_of_the_server_are_transient_and_left_to_the_asker(
    case: Case, status: int, source: Source, server: PriceServer, purse: Purse
) -> None:
    case.misbehave(server, Fault(status=status, body="<html>Bad Gateway</html>", times=1))
    with pytest.raises(SourceUnavailableError, match=str(status)):
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    assert (purse.pauses, source.spent) == ([], 1)
    assert list(source.candles(case.symbol, case.interval, case.range(30), Rejected())) == case.expected(
        server.truth, case.range(30)
    )


PAGE = "<!DOCTYPE html>\n<html><head><title>403 ERROR</title></head><body>Request blocked.</body></html>"


@each_case
@pytest.mark.parametrize(
    ("status", "body", "pauses"),
    [
        pytest.param(301, "", [5, 10], id="moved"),
        pytest.param(401, {"message": "not you"}, [60, 120, 240], id="unauthorized"),
        pytest.param(403, PAGE, [60, 120, 240], id="a firewall"),
        pytest.param(404, PAGE, [5, 10], id="a proxy's page"),
        pytest.param(404, "404 page not found", [5, 10], id="a proxy's line"),
        pytest.param(418, "", [120, 240, 480], id="a ban"),
        pytest.param(429, "error code: 1015", [10, 20, 40], id="cloudflare 1015"),
        pytest.param(451, {"code": 0, "msg": "Service unavailable from a restricted location"}, [600, 1200, 2400]),
        pytest.param(200, PAGE, [5, 10], id="a page for an answer"),
        pytest.param(500, {"message": "oops"}, [5, 10]),
        pytest.param(520, PAGE, [5, 10], id="cloudflare 520"),
        pytest.param(503, "", [5, 10]),
    ],
)
def test_failures_of_somebody_else_pass_with_pauses_that_grow(
    case: Case, status: int, body: Any, pauses: list[float], source: Source, server: PriceServer, purse: Purse
) -> None:
    case.misbehave(server, Fault(status=status, body=body, headers={"Location": "/elsewhere"}))
    for _ in range(3):
        with pytest.raises(SourceUnavailableError, match=f"{case.kind} answered"):
            list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    assert purse.pauses == pauses
    server.faults.clear()
    assert list(source.candles(case.symbol, case.interval, case.range(30), Rejected())) != []
    assert purse.known == {}  # a good answer ends the series


@each_case
@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(400, {"code": -1000, "msg": "An unknown error occurred"}),
        pytest.param(404, {"message": "no Route matched with those values"}),
        pytest.param(410, {"error": "gone"}),
        pytest.param(422, {"message": "not today"}),
        pytest.param(200, {"message": "maintenance"}),
        pytest.param(200, {"status": {"error_code": 10007, "error_message": "later"}}),
    ],
)
def test_a_question_that_is_refused_for_no_known_reason_waits_by_itself(
    case: Case, status: int, body: Any, source: Source, server: PriceServer, purse: Purse
) -> None:
    if case.kind == "ecb" and status == 200:
        status = 404  # it is asked for CSV
    case.misbehave(server, Fault(status=status, body=body))
    for spent, later in [(1, 9), (1, 2), (2, 19), (2, 2), (3, 0)]:  # every second time it is not even asked
        with pytest.raises(QuestionRefusedError):
            list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
        assert source.spent == spent
        purse.later(later)
    assert purse.pauses == []
    assert purse.known[f"candles of {case.symbol}, refused"].count == 3
    server.faults.clear()
    other = case.other if case.kind not in ("frankfurter", "frankfurter_v1") else "EUR-GBP"
    assert list(source.candles(other, case.interval, case.range(30), Rejected())) != []


@each_case
@pytest.mark.parametrize(
    ("status", "body", "symbol"),
    [
        (403, PAGE, False),
        (451, {"msg": "restricted"}, False),
        (400, {"msg": "An unknown error"}, True),
        (502, "", False),
    ],
)
def test_what_has_failed_for_a_day_is_permanent(
    case: Case, status: int, body: Any, symbol: bool, source: Source, server: PriceServer, purse: Purse
) -> None:
    case.misbehave(server, Fault(status=status, body=body))
    with pytest.raises(SourceUnavailableError):
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    purse.since = 25 * 3600.0
    purse.later(3600)
    with pytest.raises(SourceRefusedError, match=r"for 25 hours: check .* prices\.yaml") as caught:
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    assert caught.value.symbol == (case.symbol if symbol else None)
    if symbol:  # its pause is not over, and it is not told as passing meanwhile
        spent = source.spent
        with pytest.raises(SourceRefusedError, match=r"is not asked for .* for 25 hours"):
            list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
        assert source.spent == spent


@each_case
def test_a_server_that_hangs_is_given_up(case: Case, server: PriceServer, purse: Purse) -> None:
    source = case.open(server, purse, patience=0.3)
    case.misbehave(server, Fault(hang=30, times=1))
    begun = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="in time"):
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    assert time.monotonic() - begun < 3
    source.close()


@each_case
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_body_is_transient(case: Case, keep: float, source: Source, server: PriceServer) -> None:
    case.misbehave(server, Fault(keep=keep))
    with pytest.raises(SourceUnavailableError, match="broke off"):
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))


@each_case
@pytest.mark.parametrize("keep", [0.55, 0.95])
def test_a_body_cut_by_a_proxy_that_says_nothing_is_transient(
    case: Case, keep: float, source: Source, server: PriceServer
) -> None:
    case.misbehave(server, Fault(keep=keep, quiet=True))
    with pytest.raises(SourceUnavailableError, match="not whole"):
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))


@each_case
def test_a_connection_that_was_dropped_once_is_made_again(case: Case, source: Source, server: PriceServer) -> None:
    case.misbehave(server, Fault(drop=True, times=1))
    wanted = case.range(30)
    assert list(source.candles(case.symbol, case.interval, wanted, Rejected())) == case.expected(server.truth, wanted)


@each_case
def test_a_server_that_drops_every_connection_is_unavailable(case: Case, source: Source, server: PriceServer) -> None:
    case.misbehave(server, Fault(drop=True))
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
    case.misbehave(server, Fault(status=503))
    with pytest.raises(SourceUnavailableError):
        first.extend(reading)
    assert first == case.expected(server.truth, wanted)[: len(first)]
    assert len(first) > case.page // 2


BY_KIND = {case.kind: case for case in CASES}
ILLEGAL = "Illegal characters found in parameter '{}'; legal range is '^[A-Z0-9-_.]{{1,20}}$'."


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("binance", 400, {"code": -1121, "msg": "Invalid symbol."}),
        ("binance", 400, {"code": -1100, "msg": ILLEGAL.format("symbol")}),
        ("binance", 200, {"code": -1121, "msg": "Invalid symbol."}),
        ("demo", 400, {"code": -1121, "msg": "Invalid symbol."}),
        ("coinbase", 404, {"message": "NotFound"}),
        ("coinbase", 404, {"message": "Product not found"}),
        ("coinbase", 400, {"message": "Not allowed for delisted products"}),
        ("kraken", 200, {"error": ["EQuery:Unknown asset pair"]}),
        ("kraken", 200, {"error": ["WGeneral:Danger", "EQuery:Unknown asset pair"]}),
        ("coingecko", 404, {"error": "coin not found"}),
        ("coingecko", 400, {"error": "invalid vs_currency"}),
        ("frankfurter", 422, {"status": 422, "message": "invalid currency: USD"}),
        ("frankfurter", 404, {"status": 404, "message": "not found"}),
        ("frankfurter_v1", 404, {"message": "not found"}),
        ("frankfurter_v1", 422, {"message": "bad currency pair"}),
        ("ecb", 404, {"title": "Not Found", "status": 404, "detail": "No results found."}),
        ("ecb", 404, "No results found."),
    ],
)
def test_only_the_answers_that_are_documented_for_it_are_an_unknown_symbol(
    kind: str, status: int, body: Any, server: PriceServer, purse: Purse
) -> None:
    case = BY_KIND[kind]
    source = case.open(server, purse)
    server.faults.set("/", Fault(status=status, body=body))
    with pytest.raises(UnknownSymbolError) as caught:
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    assert caught.value.symbol == case.symbol
    assert list(source.quotes([case.symbol]).refused) == [case.symbol]
    assert (purse.pauses, purse.known) == ([], {})
    source.close()


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("binance", 400, {"code": -1100, "msg": ILLEGAL.format("endTime")}),
        ("binance", 400, {"code": -1120, "msg": "Invalid interval."}),
        ("binance", 403, "<html><body>-1121 Invalid symbol</body></html>"),
        ("coinbase", 404, {"message": "Route not found"}),
        ("coinbase", 400, {"message": "Unsupported granularity"}),
        ("kraken", 200, {"error": ["EGeneral:Invalid arguments"]}),
        ("kraken", 520, {"error": ["EQuery:Unknown asset pair"]}),
        ("coingecko", 404, {"error": "Not Found"}),
        ("coingecko", 401, {"error": {"status": {"error_code": 10012, "error_message": "coin not found in range"}}}),
        ("frankfurter", 422, {"message": "date range exceeds 5 years"}),
        ("frankfurter_v1", 422, {"message": "invalid date"}),
        ("ecb", 404, {"status": 404, "error": "Not Found", "path": "/service/data/EXR"}),
        ("ecb", 400, {"detail": "No results found."}),
    ],
)
def test_what_is_near_to_that_passes(kind: str, status: int, body: Any, server: PriceServer, purse: Purse) -> None:
    case = BY_KIND[kind]
    source = case.open(server, purse)
    server.faults.set("/", Fault(status=status, body=body))
    with pytest.raises(SourceUnavailableError):
        list(source.candles(case.symbol, case.interval, case.range(30), Rejected()))
    source.close()
