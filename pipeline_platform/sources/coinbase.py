"""Coinbase Exchange: candles and the ticker.

Shapes: docs.cdp.coinbase.com, "Get product candles". A page is 300 candles and more are refused; candles without trades
are left out; the order is not promised, and candles before `start` may come. Ten requests a second for an address.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote

from pipeline_platform.core.budgets import Allowance
from pipeline_platform.core.prices import Candle, Interval
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.sources.adapter import Adapter
from pipeline_platform.sources.failures import Said
from pipeline_platform.sources.http import Query
from pipeline_platform.sources.quoting import Latest
from pipeline_platform.sources.series import About
from pipeline_platform.sources.shapes import Node

CANDLE_FIELDS = 6  # time, low, high, open, close, volume


class Coinbase(Adapter):
    """`https://api.exchange.coinbase.com`: public data, no key."""

    base_url = "https://api.exchange.coinbase.com"
    allowance = Allowance(weight=100, seconds=10, burst=10, reserve=3)
    opened = datetime(2015, 1, 1, tzinfo=UTC)
    page = 300
    quote_time = "`time` of /ticker: the last trade"
    unknown_words = "404 `NotFound`; 400 `Not allowed for delisted products`"

    @staticmethod
    def says_unknown(said: Said) -> bool:
        """404 with {"message": "NotFound"}, or 400 with "Not allowed for delisted products"."""
        missing = said.status == 404 and said.message.replace(" ", "") in ("notfound", "productnotfound")
        return missing or (said.status == 400 and "delisted" in said.message)

    def _latest(self, symbols: Sequence[str]) -> Latest:
        [symbol] = symbols
        answer = self._http.get(f"/products/{quote(symbol, safe='')}/ticker", about=About("quotes", symbol))
        return {symbol: lambda: self._quote(symbol, answer.field("price"), answer.field("time").iso_moment())}

    def _rows(self, symbol: str, interval: Interval, chunk: TimeRange) -> list[Node]:
        last = chunk.end - interval.length  # both ends count: one more candle would be refused
        query: Query = {"granularity": interval.seconds, "start": _iso(chunk.start), "end": _iso(last)}
        path = f"/products/{quote(symbol, safe='')}/candles"
        return self._http.get(path, query, about=About("candles", symbol)).items()

    def _candle(self, symbol: str, interval: Interval, at: datetime, row: Node) -> Candle:
        low, high, open_, close, volume = (each.decimal() for each in row.items(length=CANDLE_FIELDS, only=range(1, 6)))
        closed = self._closed(at, interval)
        return Candle(self.name, symbol, interval, at, open_, high, low, close, volume, closed)


def _iso(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
