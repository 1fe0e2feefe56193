"""Kraken: OHLC and the ticker.

Shapes: docs.kraken.com, "Get OHLC data". Only the last 720 candles are to be had, whatever `since` says; the last one
is not committed yet. Pairs come back under another name (XBTUSD as XXBTZUSD). Errors come with status 200, in the body.
About one request a second for an address; a User-Agent is required.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from pipeline_platform.core.budgets import Allowance
from pipeline_platform.core.prices import EPOCH, Candle, Interval, Quote
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.errors import SourceRefusedError, SourceUnavailableError
from pipeline_platform.sources.adapter import Adapter
from pipeline_platform.sources.http import Query
from pipeline_platform.sources.shapes import Node

KEPT = 720
CANDLE_FIELDS = 8  # time, open, high, low, close, vwap, volume, count
THROTTLED = ("EAPI:Rate limit exceeded", "EGeneral:Too many requests", "EGeneral:Temporary lockout")
PASSING = ("EService:Unavailable", "EService:Busy", "EService:Timeout", "EGeneral:Internal error")


class Kraken(Adapter):
    """`https://api.kraken.com`: public data, no key."""

    base_url = "https://api.kraken.com"
    allowance = Allowance(weight=60, seconds=60, burst=6, reserve=2)
    grace = timedelta(seconds=30)
    page = KEPT

    def reach(self, interval: Interval, now: datetime) -> datetime:
        """The last 720 candles, the open one included."""
        return interval.floor(now) - interval.length * (KEPT - 1)

    def _quotes(self, symbols: Sequence[str]) -> list[Quote]:
        """One request a symbol: in an answer about several, the new names could not be told apart."""
        quotes = []
        for symbol in symbols:
            price = self._result("Ticker", {"pair": symbol}).field("c").items(length=2)[0].decimal()
            quotes.append(Quote(self.name, symbol, price, self._clock()))
        return quotes

    def _page(self, symbol: str, interval: Interval, chunk: TimeRange) -> Iterable[Candle]:
        since = (chunk.start - EPOCH) // timedelta(seconds=1) - 1  # candles after this second
        query: Query = {"pair": symbol, "interval": interval.seconds // 60, "since": since}
        rows = self._result("OHLC", query).items()
        candles = sorted((self._candle(symbol, interval, row) for row in rows), key=lambda each: each.open_time)
        # The last one is not committed, even when its time is over by our clock.
        return [*candles[:-1], *(replace(each, closed=False) for each in candles[-1:])]

    def _candle(self, symbol: str, interval: Interval, row: Node) -> Candle:
        opened, *rest = row.items(length=CANDLE_FIELDS)
        open_, high, low, close, _, volume = (each.decimal() for each in rest[:6])
        at = opened.moment()
        if interval.floor(at) != at:
            opened.wrong(f"the start of a {interval.value} candle")
        closed = self._closed(at, interval)
        return Candle(self.name, symbol, interval, at, open_, high, low, close, volume, closed)

    def _result(self, method: str, query: Query) -> Node:
        """The one pair of the answer, under whatever name."""
        answer = self._http.get(f"/0/public/{method}", query)
        errors = [each.text() for each in answer.field("error").items()]
        if serious := [each for each in errors if not each.startswith("W")]:
            self._refuse(serious, f"{method} of {query['pair']}")
        result = answer.field("result")
        pairs = [node for name, node in result.fields() if name != "last"]
        if len(pairs) != 1:
            result.wrong("an object with one pair")
        return pairs[0]

    def _refuse(self, errors: list[str], what: str) -> None:
        message = f"{self.name} answered {what} with {'; '.join(errors)[:200]}."
        if any(each.startswith(THROTTLED) for each in errors):
            self._http.pause(None, message)
        if any(each.startswith(PASSING) for each in errors):
            raise SourceUnavailableError(message)
        raise SourceRefusedError(f"{message} Check the symbol in prices.yaml.")
