"""Binance, and whatever answers like it: klines and the daily ticker of the market-data host.

Shapes: github.com/binance/binance-spot-api-docs, rest-api.md. A page is 1,000 candles and costs weight 2; an address
may spend 6,000 a minute. Ignoring 429 leads to 418, a ban of two minutes to three days.

Quotes come from /ticker/24hr, which has the time: /ticker/price has none and gives delisted pairs for ever, and the
closeTime of /ticker is that of the request. Up to 20 symbols cost weight 2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from pipeline_platform.core.budgets import Allowance
from pipeline_platform.core.prices import EPOCH, Candle, Interval, Quote
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.errors import SourceShapeError
from pipeline_platform.sources.adapter import Adapter
from pipeline_platform.sources.failures import Said
from pipeline_platform.sources.http import Query
from pipeline_platform.sources.quoting import Latest
from pipeline_platform.sources.series import About
from pipeline_platform.sources.shapes import Node

KLINE_FIELDS = 12
INVALID_SYMBOL, ILLEGAL_CHARACTERS = -1121, -1100


class Binance(Adapter):
    """`https://data-api.binance.vision`: public data, no key."""

    base_url = "https://data-api.binance.vision"
    allowance = Allowance(weight=6000, seconds=60, burst=1000, reserve=200)
    opened = datetime(2017, 7, 1, tzinfo=UTC)
    page = 1000
    together = 20
    quote_time = "`closeTime` of /ticker/24hr; its `openTime` where there was no trade within the day"
    unknown_words = "code -1121; code -1100 about a symbol"

    @staticmethod
    def says_unknown(said: Said) -> bool:
        """Code -1121, or characters that no symbol has."""
        code = said.data.get("code") if isinstance(said.data, dict) else None
        return code == INVALID_SYMBOL or (code == ILLEGAL_CHARACTERS and "symbol" in said.message)

    def _latest(self, symbols: Sequence[str]) -> Latest:
        query: Query = {"symbols": json.dumps(sorted(symbols), separators=(",", ":")), "type": "MINI"}
        about = About("quotes", symbols[0] if len(symbols) == 1 else None)
        answer = self._http.get("/api/v3/ticker/24hr", query, about=about, weight=2)
        rows = {row.field("symbol").text(): row for row in answer.items()}
        absent = Node(None, self.name, "the whole answer")
        return {symbol: partial(self._ticker, symbol, rows.get(symbol, absent)) for symbol in symbols}

    def _ticker(self, symbol: str, row: Node) -> Quote:
        if row.value is None:
            row.odd(f"is without {symbol}", structure=True)
        traded = row.field("count").decimal() > 0
        return self._quote(symbol, row.field("lastPrice"), row.field("closeTime" if traded else "openTime").moment())

    def _pages(self, symbol: str, interval: Interval, wanted: TimeRange) -> Iterator[tuple[TimeRange, list[Node]]]:
        """Each page starts behind the last candle of the one before: times without candles cost no requests, and a
        server that gives fewer than we ask for is asked again."""
        start = interval.ceiling(wanted.start)
        while start < wanted.end:
            chunk = TimeRange(start, wanted.end)
            rows = self._rows(symbol, interval, chunk)
            yield chunk, rows
            following = max((interval.floor(at) + interval.length for at in self._times(rows)), default=start)
            if following <= start:
                return
            start = following

    def _times(self, rows: list[Node]) -> Iterator[datetime]:
        """When the records' candles opened, of those that say so."""
        for row in rows:
            try:
                yield self._opened(row)
            except SourceShapeError:
                continue

    def _rows(self, symbol: str, interval: Interval, chunk: TimeRange) -> list[Node]:
        query: Query = {
            "symbol": symbol,
            "interval": interval.value,
            "startTime": _milliseconds(chunk.start),
            "endTime": _milliseconds(chunk.end) - 1,
            "limit": self.page,
        }
        return self._http.get("/api/v3/klines", query, about=About("candles", symbol), weight=2).items()

    def _candle(self, symbol: str, interval: Interval, at: datetime, row: Node) -> Candle:
        open_, high, low, close, volume = (each.decimal() for each in row.items(length=KLINE_FIELDS, only=range(1, 6)))
        closed = self._closed(at, interval)
        return Candle(self.name, symbol, interval, at, open_, high, low, close, volume, closed)


def _milliseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(milliseconds=1)
