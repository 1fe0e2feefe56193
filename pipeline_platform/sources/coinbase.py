"""Coinbase Exchange: candles and the ticker.

Shapes: docs.cdp.coinbase.com, "Get product candles". A page is 300 candles and more are refused; candles without trades
are left out; the order is not promised, and candles before `start` may come. Ten requests a second for an address.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from urllib.parse import quote

from pipeline_platform.core.budgets import Allowance
from pipeline_platform.core.prices import Candle, Interval, Quote
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.sources.adapter import Adapter
from pipeline_platform.sources.http import Query
from pipeline_platform.sources.shapes import Node

CANDLE_FIELDS = 6  # time, low, high, open, close, volume


class Coinbase(Adapter):
    """`https://api.exchange.coinbase.com`: public data, no key."""

    base_url = "https://api.exchange.coinbase.com"
    allowance = Allowance(weight=100, seconds=10, burst=10, reserve=3)
    opened = datetime(2015, 1, 1, tzinfo=UTC)
    page = 300

    def _quotes(self, symbols: Sequence[str]) -> list[Quote]:
        """One request a symbol."""
        return [self._quote(symbol) for symbol in symbols]

    def _quote(self, symbol: str) -> Quote:
        answer = self._http.get(f"/products/{quote(symbol, safe='')}/ticker")
        return Quote(self.name, symbol, answer.field("price").decimal(), answer.field("time").iso_moment())

    def _page(self, symbol: str, interval: Interval, chunk: TimeRange) -> Iterable[Candle]:
        last = chunk.end - interval.length  # both ends count: one more candle would be refused
        query: Query = {"granularity": interval.seconds, "start": _iso(chunk.start), "end": _iso(last)}
        answer = self._http.get(f"/products/{quote(symbol, safe='')}/candles", query)
        for row in answer.items():
            yield self._candle(symbol, interval, row)

    def _candle(self, symbol: str, interval: Interval, row: Node) -> Candle:
        opened, *rest = row.items(length=CANDLE_FIELDS)
        low, high, open_, close, volume = (each.decimal() for each in rest)
        at = opened.moment()
        if interval.floor(at) != at:
            opened.wrong(f"the start of a {interval.value} candle")
        closed = self._closed(at, interval)
        return Candle(self.name, symbol, interval, at, open_, high, low, close, volume, closed)


def _iso(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
