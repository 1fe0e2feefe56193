"""Binance, Coinbase and Kraken as they answer: shapes, order, limits, and their ways to say no."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline_platform.core.prices import EPOCH, Candle, Interval
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.local.price_server.replies import Asked, Reply
from pipeline_platform.local.price_server.truth import BASES

OPENED = datetime(2017, 8, 1, tzinfo=UTC)
BINANCE_MOST = 1000
COINBASE_MOST = 300
KRAKEN_KEPT = 720
KRAKEN_PAIRS = {"XBTUSD": ("BTC", "XXBTZUSD"), "ETHUSD": ("ETH", "XETHZUSD"), "XRPUSD": ("XRP", "XXRPZUSD")}


def binance_klines(asked: Asked) -> Reply:
    """At most 1,000, oldest first."""
    query = asked.query
    currency = _dollar_token(asked, query.get("symbol", ""))
    if currency is None:
        return Reply({"code": -1121, "msg": "Invalid symbol."}, 400, weight=2)
    try:
        interval = Interval(query["interval"])
        start, end = (_since(int(query[name]), 1000) for name in ("startTime", "endTime"))
        limit = min(int(query.get("limit", "500")), BINANCE_MOST)
    except (KeyError, ValueError):
        return Reply({"code": -1100, "msg": "Illegal characters found in a parameter."}, 400, weight=2)
    start = interval.ceiling(max(start, OPENED))
    end = min(end + timedelta(milliseconds=1), start + limit * interval.length)
    candles = _candles(asked, query["symbol"], currency, interval, start, end)
    return Reply([_kline(each) for each in candles], weight=2)


def binance_day(asked: Asked) -> Reply:
    """The short form of the last 24 hours, of one symbol or of `symbols`: one that is not known refuses them all.

    A pair that nobody trades any more stands still.
    """
    query = asked.query
    symbols = json.loads(query["symbols"]) if "symbols" in query else [query.get("symbol", "")]
    currencies = [_dollar_token(asked, symbol) for symbol in symbols]
    weight = 2 if len(symbols) <= 20 else 40 if len(symbols) <= 100 else 80
    days = [_day(asked, symbol, currency) for symbol, currency in zip(symbols, currencies, strict=True) if currency]
    if len(days) < len(symbols):
        return Reply({"code": -1121, "msg": "Invalid symbol."}, 400, weight=weight)
    return Reply(days if "symbols" in query else days[0], weight=weight)


def coinbase_candles(asked: Asked) -> Reply:
    """At most 300 or an error; newest first, with one before `start`."""
    query = asked.query
    product = asked.path.split("/")[2]
    currency = _dollars(product)
    if currency is None:
        return Reply({"message": "NotFound"}, 404)
    try:
        interval = next(each for each in Interval if each.seconds == int(query["granularity"]))
        start, end = (datetime.fromisoformat(query[name]) for name in ("start", "end"))
    except (KeyError, ValueError, StopIteration):
        return Reply({"message": "Unsupported granularity"}, 400)
    if (end - start) // interval.length + 1 > COINBASE_MOST:
        message = "granularity too small for the requested time range. Count of aggregations requested exceeds 300"
        return Reply({"message": message}, 400)
    first = max(OPENED, interval.ceiling(start) - interval.length)
    candles = _candles(asked, product, currency, interval, first, end + timedelta(seconds=1))
    rows = [
        [_epoch(each.open_time), *(float(price) for price in (each.low, each.high, each.open, each.close, each.volume))]
        for each in candles
    ]
    return Reply(rows[::-1])


def coinbase_ticker(asked: Asked) -> Reply:
    """The last trade."""
    currency = _dollars(asked.path.split("/")[2])
    if currency is None:
        return Reply({"message": "NotFound"}, 404)
    at = asked.traded(asked.path.split("/")[2])
    price, time = str(asked.truth.price(currency, at)), at.isoformat().replace("+00:00", "Z")
    return Reply(
        {"trade_id": 1, "price": price, "size": "0.01", "bid": price, "ask": price, "volume": "1.0", "time": time}
    )


def kraken_ohlc(asked: Asked) -> Reply:
    """The last 720, or fewer after `since`; under the pair's other name; the last one is not committed."""
    query = asked.query
    currency, name = _kraken_pair(query.get("pair", ""))
    if currency is None:
        return Reply({"error": ["EQuery:Unknown asset pair"]})
    interval = next((each for each in Interval if each.seconds == 60 * int(query.get("interval", "1"))), None)
    if interval is None:
        return Reply({"error": ["EGeneral:Invalid arguments"]})
    latest = interval.floor(asked.now)
    start = latest - (KRAKEN_KEPT - 1) * interval.length
    if "since" in query:
        start = max(start, EPOCH + timedelta(seconds=int(query["since"]) + 1))
    candles = _candles(asked, name, currency, interval, min(start, latest), latest + interval.length)
    rows: list[list[Any]] = [
        [_epoch(each.open_time), *map(str, (each.open, each.high, each.low, each.close, each.close, each.volume)), 9]
        for each in candles
    ]
    return Reply({"error": [], "result": {name: rows, "last": rows[-1][0] - interval.seconds}})


def kraken_trades(asked: Asked) -> Reply:
    """The last `count`, oldest first, one a second."""
    pair = asked.query.get("pair", "")
    currency, name = _kraken_pair(pair)
    if currency is None:
        return Reply({"error": ["EQuery:Unknown asset pair"]})
    count = int(asked.query.get("count", "1000"))
    times = [asked.traded(pair) - timedelta(seconds=ago) for ago in reversed(range(count))]
    rows = [
        [str(price), "0.1", at.timestamp(), "b", "l", "", number]
        for number, (at, price) in enumerate(zip(times, asked.truth.prices(currency, times), strict=True))
    ]
    return Reply({"error": [], "result": {name: rows, "last": str(_epoch(times[-1]) * 10**9)}})


def _candles(
    asked: Asked, symbol: str, currency: str, interval: Interval, start: datetime, end: datetime
) -> list[Candle]:
    if start >= end:
        return []
    return asked.truth.candles("", symbol, currency, interval, TimeRange(start, end), asked.now)


def _kline(candle: Candle) -> list[object]:
    opened = _epoch(candle.open_time) * 1000
    closed = _epoch(candle.close_time) * 1000 - 1
    prices = (f"{each:.8f}" for each in (candle.open, candle.high, candle.low, candle.close, candle.volume))
    return [opened, *prices, closed, "0.00000000", 9, "0.00000000", "0.00000000", "0"]


def _day(asked: Asked, symbol: str, currency: str) -> dict[str, object]:
    closed = asked.traded(symbol)
    price = f"{asked.truth.price(currency, closed):.8f}"
    names = ("openPrice", "highPrice", "lowPrice", "lastPrice")
    return {
        "symbol": symbol,
        **dict.fromkeys(names, price),
        "volume": "1.00000000",
        "quoteVolume": "1.00000000",
        "openTime": (closed - timedelta(days=1) - EPOCH) // timedelta(milliseconds=1),
        "closeTime": (closed - EPOCH) // timedelta(milliseconds=1),
        "firstId": 1,
        "lastId": 9,
        "count": 9,
    }


def _dollar_token(asked: Asked, symbol: str) -> str | None:
    currency = symbol.removesuffix("USDT")
    return currency if currency in BASES and symbol not in (currency, *asked.unknown) else None


def _dollars(product: str) -> str | None:
    currency = product.removesuffix("-USD")
    return currency if currency in BASES and product != currency else None


def _kraken_pair(pair: str) -> tuple[str | None, str]:
    if pair in KRAKEN_PAIRS:
        return KRAKEN_PAIRS[pair]
    currency = pair.removesuffix("USD")
    return (currency if currency in BASES and pair != currency else None), pair


def _since(number: int, per_second: int) -> datetime:
    return EPOCH + timedelta(microseconds=number * 1_000_000 // per_second)


def _epoch(at: datetime) -> int:
    return (at - EPOCH) // timedelta(seconds=1)
