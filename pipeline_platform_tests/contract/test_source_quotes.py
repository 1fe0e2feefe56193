"""Quotes: at the time of the fact, and of every symbol apart from the others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from pipeline_platform.errors import SourceShapeError, SourceUnavailableError
from pipeline_platform.local.price_server.faults import Fault
from pipeline_platform.local.price_server.server import PriceServer
from pipeline_platform.sources.protocol import Quotes, Source
from pipeline_platform_tests.contract.price_cases import CASES, NOW, Case, Purse, each_case, quoted

BY_KIND = {case.kind: case for case in CASES}
TRADED = ["binance", "coinbase", "kraken", "coingecko"]
RATES = ["frankfurter", "frankfurter_v1", "ecb"]
COINS = ("BTC", "ETH", "SOL", "XRP", "ADA", "EUR", "GBP")
MANY = {
    "binance": [f"{each}USDT" for each in COINS],
    "demo": [f"{each}USDT" for each in COINS],
    "coinbase": [f"{each}-USD" for each in COINS],
    "kraken": ["XBTUSD", "ETHUSD", "XRPUSD", "SOLUSD", "ADAUSD"],
    "coingecko": ["bitcoin", "ethereum", "solana", "ripple", "cardano"],
    "frankfurter": ["EUR-USD", "EUR-GBP", "GBP-USD", "USD-EUR", "GBP-EUR"],
    "frankfurter_v1": ["EUR-USD", "EUR-GBP", "GBP-USD", "USD-EUR", "GBP-EUR"],
    "ecb": ["EUR-USD", "EUR-GBP"],
}
ODD_SYMBOLS = {  # of a source whose symbols have a form: what it cannot even be asked for
    **dict.fromkeys(("frankfurter", "frankfurter_v1"), "EURUSD"),
    "ecb": "GBP-USD",
}


def of_kinds(kinds: list[str]) -> pytest.MarkDecorator:
    """Each of these sources."""
    return pytest.mark.parametrize("case", [BY_KIND[kind] for kind in kinds], ids=kinds)


@each_case
def test_quotes_are_the_latest_prices_in_the_order_asked(case: Case, source: Source, server: PriceServer) -> None:
    quotes = source.quotes([case.other, case.symbol, case.other]).found
    assert [each.symbol for each in quotes] == [case.other, case.symbol]
    assert quotes[1] == quoted(case, server.truth)
    assert source.quotes([]) == Quotes()


@each_case
@pytest.mark.parametrize("places", [(0,), (-1,), (1, 2), (0, 1, -1)], ids=str)
def test_symbols_that_are_not_known_are_named_and_lose_no_other_quote(
    case: Case, places: tuple[int, ...], source: Source, server: PriceServer
) -> None:
    asked = list(MANY[case.kind])
    unknown = [_unknown(case, number) for number in range(len(places))]
    for place, symbol in zip(places, unknown, strict=True):
        asked.insert(place if place >= 0 else len(asked), symbol)
    answer = source.quotes(asked)
    assert [each.symbol for each in answer.found] == [each for each in asked if each not in unknown]
    assert sorted(answer.refused) == sorted(unknown)
    assert all("prices.yaml" in words for words in answer.refused.values())
    assert (answer.rejected, answer.trouble) == ([], None)
    assert source.spent <= 2 * len(asked)


def _unknown(case: Case, number: int) -> str:
    if number == 1 and case.kind in ODD_SYMBOLS:
        return ODD_SYMBOLS[case.kind]
    letters = "XYZ"[number]
    return case.unknown.replace("NOPE", f"NO{letters}E").replace("XXX", f"XX{letters}").replace("nope", f"no{letters}")


def test_a_batch_that_is_refused_is_halved_until_the_refusal_is_about_one(server: PriceServer, purse: Purse) -> None:
    source = BY_KIND["binance"].open(server, purse)
    asked = [f"{each}USDT" for each in COINS] + [f"NO{number}USDT" for number in range(30)]
    answer = source.quotes(asked)
    assert [each.symbol for each in answer.found] == asked[: len(COINS)]
    assert list(answer.refused) == asked[len(COINS) :]
    assert source.spent <= 2 * len(asked)
    assert {weight for weight, _ in purse.taken} == {2}  # so many at once that a request costs least
    before = source.spent
    assert len(source.quotes(asked[: len(COINS)]).found) == len(COINS)
    assert source.spent == before + 1
    one = [*(f"{each}USDT" for each in COINS), "NOPEUSDT"]
    assert list(source.quotes(one).refused) == ["NOPEUSDT"]
    assert source.spent == before + 1 + 7  # eight, four and four, two and two, one and one
    source.close()


def test_frankfurter_says_which_currency_it_does_not_know_and_is_asked_twice(server: PriceServer, purse: Purse) -> None:
    source = BY_KIND["frankfurter"].open(server, purse)
    answer = source.quotes(["EUR-USD", "EUR-XXX", "EUR-GBP", "EUR-YYY"])
    assert [each.symbol for each in answer.found] == ["EUR-USD", "EUR-GBP"]
    assert list(answer.refused) == ["EUR-XXX", "EUR-YYY"]
    assert source.spent == 2
    source.close()


@of_kinds(["coinbase", "kraken", "ecb"])
@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        pytest.param(400, {"message": "who knows"}, "who knows", id="refused for no known reason"),
        pytest.param(200, {"message": "who knows"}, "who knows", id="an error with status 200"),
        pytest.param(422, {"error": "who knows"}, "who knows"),
    ],
)
def test_a_symbol_that_is_refused_for_no_known_reason_is_named_and_the_others_are_given(
    case: Case, status: int, body: Any, words: str, source: Source, server: PriceServer, purse: Purse
) -> None:
    if case.kind == "ecb" and status == 200:
        body, words = '"', "not whole"
    server.faults.set(case.quotes_path, Fault(status=status, body=body, times=1))
    answer = source.quotes([case.symbol, case.other])
    assert [each.symbol for each in answer.found] == [case.other]
    told = answer.rejected if not answer.trouble else [str(answer.trouble)]
    assert [words in each for each in told] == [True]
    assert answer.refused == {}


@of_kinds(["coinbase", "kraken", "ecb"])
@pytest.mark.parametrize(("status", "requests"), [(429, 1), (403, 1), (503, 2)])
def test_a_source_that_is_away_is_not_asked_for_every_symbol(
    case: Case, status: int, requests: int, source: Source, server: PriceServer
) -> None:
    server.faults.set("/", Fault(status=status, body="away"))
    with pytest.raises(SourceUnavailableError, match=str(status)):
        source.quotes(MANY[case.kind])
    assert source.spent == requests


@of_kinds(["coinbase", "kraken", "ecb"])
def test_what_was_found_before_the_source_went_away_is_given(case: Case, source: Source, server: PriceServer) -> None:
    def away_after_one(body: Any) -> Any:
        server.faults.set("/", Fault(status=429, body="slow down"))
        return body

    server.faults.set("/", Fault(change=away_after_one, times=1))
    answer = source.quotes([case.symbol, case.other])
    assert [each.symbol for each in answer.found] == [case.symbol]
    assert "slow down" in str(answer.trouble)


def _at(kind: str, symbol: str, value: Any, name: str) -> Callable[[Any], Any]:
    """Another value in what an answer says of one symbol."""

    def change(body: Any) -> Any:
        if kind in ("binance", "demo"):
            return [{**row, name: value} if row["symbol"] == symbol else row for row in body]
        if kind == "coingecko":
            return {coin: {**row, name: value} if coin == symbol else row for coin, row in body.items()}
        if kind == "frankfurter":
            return [{**row, name: value} if row["quote"] == symbol[4:] else row for row in body]
        return {**body, "rates": {**body["rates"], symbol[4:]: value}}

    return change


@pytest.mark.parametrize(
    ("kind", "name", "value", "words"),
    [
        *(
            (kind, name, value, words)
            for kind in ("binance", "demo")
            for name, value, words in [
                ("lastPrice", None, "should be a number and is None"),
                ("lastPrice", "0.00000000", "should be a price above 0"),
                ("lastPrice", "-1", "should be a price above 0"),
                ("closeTime", None, "should be a number and is None"),
                ("closeTime", 4_000_000_000_000, "which is to come"),
                ("symbol", "OTHER", "is without"),
            ]
        ),
        ("coingecko", "usd", None, "should be a number and is None"),
        ("coingecko", "usd", 0, "should be a price above 0"),
        ("coingecko", "last_updated_at", None, "should be a number and is None"),
        ("coingecko", "last_updated_at", 4_000_000_000, "which is to come"),
        ("frankfurter", "rate", None, "should be a number and is None"),
        ("frankfurter", "rate", -1, "should be a price above 0"),
        ("frankfurter", "date", "2126-01-01", "which is to come"),
        ("frankfurter_v1", "", None, "should be a number and is None"),
        ("frankfurter_v1", "", "much", "should be a number"),
        ("frankfurter_v1", "", 0, "should be a price above 0"),
    ],
)
def test_one_record_at_odds_among_quotes_is_rejected_and_named(
    kind: str, name: str, value: Any, words: str, server: PriceServer, purse: Purse
) -> None:
    case = BY_KIND[kind]
    source = case.open(server, purse)
    asked = ["EUR-GBP", "EUR-USD"] if kind in RATES else [case.other, case.symbol]
    server.faults.set(case.quotes_path, Fault(change=_at(kind, asked[1], value, name)))
    answer = source.quotes(asked)
    assert [each.symbol for each in answer.found] == asked[:1]
    [why] = answer.rejected
    assert why.startswith(asked[1])
    assert words in why
    assert (answer.refused, answer.trouble) == ({}, None)
    source.close()


@of_kinds(["coinbase", "kraken", "ecb"])
@pytest.mark.parametrize("value", ["0", "much", "-1"])
def test_one_price_at_odds_of_a_source_that_is_asked_by_symbol_is_rejected_and_named(
    case: Case, value: Any, source: Source, server: PriceServer
) -> None:
    def spoil(body: Any) -> Any:
        if case.kind == "coinbase":
            return {**body, "price": value}
        if case.kind == "kraken":
            return {**body, "result": {"XXBTZUSD": [[value, "0.1", 1_790_000_000.5, "b", "l", "", 1]], "last": "1"}}
        lines = [",".join([*each.split(",")[:7], value, "A"]) for each in body.split("\r\n")[1:-1]]
        return "\r\n".join([",".join(body.split("\r\n")[0].split(",")[:9]), *lines[:2], ""])

    server.faults.set(case.quotes_path, Fault(change=spoil, times=1))
    answer = source.quotes([case.symbol, case.other])
    assert [each.symbol for each in answer.found] == [case.other]
    assert [each.startswith(case.symbol) and "should be a" in each for each in answer.rejected] == [True]


@each_case
def test_quotes_of_a_changed_shape_are_refused(case: Case, source: Source, server: PriceServer) -> None:
    def changed(body: Any) -> Any:
        return body.replace("OBS_VALUE", "VALUE") if isinstance(body, str) else {"nothing": 1}

    server.faults.set(case.quotes_path, Fault(change=changed))
    with pytest.raises(SourceShapeError, match=case.kind):
        source.quotes([case.symbol])


@of_kinds([*TRADED, "demo"])
@pytest.mark.parametrize("ago", [timedelta(minutes=20), timedelta(days=3), timedelta(days=900)], ids=str)
def test_a_price_that_stands_still_keeps_the_time_of_its_last_trade(
    case: Case, ago: timedelta, source: Source, server: PriceServer
) -> None:
    server.last_trades[case.symbol] = NOW - ago
    other, still = source.quotes([case.other, case.symbol]).found
    assert (still.at, still.price) == (NOW - ago, server.truth.price(case.currency, NOW - ago))
    assert other.at == NOW


@of_kinds(["binance", "demo"])
def test_without_a_trade_within_the_day_the_price_is_as_old_as_the_day_began(
    case: Case, source: Source, server: PriceServer
) -> None:
    server.faults.set(case.quotes_path, Fault(change=lambda body: [{**row, "count": 0} for row in body]))
    [quote] = source.quotes([case.symbol]).found
    assert quote.at == NOW - timedelta(days=1)


def test_krakens_last_trade_is_the_latest_of_those_that_come(server: PriceServer, purse: Purse) -> None:
    source = BY_KIND["kraken"].open(server, purse)
    at = NOW.timestamp()
    rows = [["7.5", "1", at - 9, "b", "l", "", 1], ["8.5", "1", at - 2.5, "s", "m", ""], ["9", "1", None, "b", "l", ""]]
    server.faults.set("/0/public/Trades", Fault(status=200, body={"error": [], "result": {"X": rows, "last": "1"}}))
    [quote] = source.quotes(["XBTUSD"]).found
    assert (str(quote.price), quote.at) == ("8.5", NOW - timedelta(seconds=2.5))
    server.faults.set("/0/public/Trades", Fault(status=200, body={"error": [], "result": {"X": [], "last": "1"}}))
    assert "there has been no trade" in source.quotes(["XBTUSD"]).rejected[0]
    source.close()
