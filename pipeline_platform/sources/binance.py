"""Binance, and whatever answers like it: klines and the ticker of the market-data host.

Shapes: github.com/binance/binance-spot-api-docs, rest-api.md. A page is 1,000 candles and costs weight 2; an address
may spend 6,000 a minute. Ignoring 429 leads to 418, a ban of two minutes to three days.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from pipeline_platform.core.budgets import Allowance
from pipeline_platform.core.prices import EPOCH, Candle, Interval, Quote
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.errors import SourceShapeError
from pipeline_platform.sources.adapter import Adapter
from pipeline_platform.sources.http import Query
from pipeline_platform.sources.shapes import Node

KLINE_FIELDS = 12


class Binance(Adapter):
    """`https://data-api.binance.vision`: public data, no key."""

    base_url = "https://data-api.binance.vision"
    allowance = Allowance(weight=6000, seconds=60, burst=1000, reserve=200)
    opened = datetime(2017, 7, 1, tzinfo=UTC)
    page = 1000

    def _quotes(self, symbols: Sequence[str]) -> list[Quote]:
        """All symbols in one request."""
        if not symbols:
            return []
        wanted = json.dumps(sorted(set(symbols)), separators=(",", ":"))
        answer = self._http.get("/api/v3/ticker/price", {"symbols": wanted}, weight=4)
        now = self._clock()
        prices = {each.field("symbol").text(): each.field("price").decimal() for each in answer.items()}
        if absent := [symbol for symbol in symbols if symbol not in prices]:
            raise SourceShapeError(f"{self.name} was asked for {', '.join(absent)} and answered without it.")
        return [Quote(self.name, symbol, prices[symbol], now) for symbol in symbols]

    def _pages(self, symbol: str, interval: Interval, wanted: TimeRange) -> Iterator[Iterable[Candle]]:
        """Each page starts behind the last candle of the one before: times without candles cost no requests, and a
        server that gives fewer than we ask for is asked again."""
        start = interval.ceiling(wanted.start)
        while start < wanted.end:
            page = list(self._page(symbol, interval, TimeRange(start, wanted.end)))
            yield page
            following = max((each.open_time + interval.length for each in page), default=start)
            if following <= start:
                return
            start = following

    def _page(self, symbol: str, interval: Interval, chunk: TimeRange) -> Iterable[Candle]:
        query: Query = {
            "symbol": symbol,
            "interval": interval.value,
            "startTime": _milliseconds(chunk.start),
            "endTime": _milliseconds(chunk.end) - 1,
            "limit": self.page,
        }
        for row in self._http.get("/api/v3/klines", query, weight=2).items():
            yield self._candle(symbol, interval, row)

    def _candle(self, symbol: str, interval: Interval, row: Node) -> Candle:
        opened, *rest = row.items(length=KLINE_FIELDS)
        open_, high, low, close, volume = (each.decimal() for each in rest[:5])
        at = opened.moment()
        if interval.floor(at) != at:
            opened.wrong(f"the start of a {interval.value} candle")
        closed = self._closed(at, interval)
        return Candle(self.name, symbol, interval, at, open_, high, low, close, volume, closed)


def _milliseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(milliseconds=1)
