"""Kraken: OHLC, and trades for the latest price.

Shapes: docs.kraken.com, "Get OHLC data", "Get recent trades", "Errors". Only the last 720 candles are to be had,
whatever `since` says; the last one is not committed yet. Pairs come back under another name (XBTUSD as XXBTZUSD).
Errors come with status 200, in the body. About one request a second for an address; a User-Agent is required.

The ticker has no time, so that a pair that nobody trades any more looks fresh: quotes are the last trade.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from pipeline_platform.core.budgets import Allowance
from pipeline_platform.core.prices import EPOCH, Candle, Interval, Quote
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.errors import UnknownSymbolError
from pipeline_platform.sources.adapter import Adapter
from pipeline_platform.sources.failures import QUESTION_PAUSE, Said, named_pause
from pipeline_platform.sources.http import Query
from pipeline_platform.sources.quoting import Latest
from pipeline_platform.sources.records import Odd, sort_out
from pipeline_platform.sources.series import About
from pipeline_platform.sources.shapes import Node

KEPT = 720
CANDLE_FIELDS = 8  # time, open, high, low, close, vwap, volume, count
UNKNOWN = ("EQuery:Unknown asset pair", "EQuery:Unknown asset", "EQuery:Invalid asset pair")
OF_QUESTIONS = ("EQuery:", "EGeneral:Invalid arguments", "EGeneral:Unknown method")
# First pauses, in seconds; they double. Any other error may be tried again at once.
THROTTLES = {
    "EAPI:Rate limit": 10.0,
    "EGeneral:Too many requests": 10.0,
    "EService:Throttled": 10.0,
    "EService: Throttled": 10.0,
    "EGeneral:Temporary lockout": 60.0,
}


class Kraken(Adapter):
    """`https://api.kraken.com`: public data, no key."""

    base_url = "https://api.kraken.com"
    allowance = Allowance(weight=60, seconds=60, burst=6, reserve=2)
    grace = timedelta(seconds=30)
    page = KEPT
    quote_time = "the last trade, of /Trades"
    unknown_words = "`EQuery:Unknown asset pair`"

    @staticmethod
    def says_unknown(said: Said) -> bool:  # noqa: ARG004
        """Never by status: its errors are in answers of status 200."""
        return False

    def reach(self, interval: Interval, now: datetime) -> datetime:
        """The last 720 candles, the open one included."""
        return interval.floor(now) - interval.length * (KEPT - 1)

    def _latest(self, symbols: Sequence[str]) -> Latest:
        [symbol] = symbols
        rows = self._result("Trades", {"pair": symbol, "count": 1}, About("quotes", symbol)).items()
        return {symbol: lambda: self._last_trade(symbol, rows)}

    def _last_trade(self, symbol: str, rows: list[Node]) -> Quote:
        trades = sort_out(rows, _traded, lambda at, row: self._quote(symbol, row.item(0), at))
        if not trades.usable:
            words = trades.odd[0].why if trades.odd else "there has been no trade"
            Node(None, self.name, "the last trade").odd(f"cannot be had: {words}")
        return max(trades.usable, key=lambda each: each.at)

    def _rows(self, symbol: str, interval: Interval, chunk: TimeRange) -> list[Node]:
        since = (chunk.start - EPOCH) // timedelta(seconds=1) - 1  # candles after this second
        query: Query = {"pair": symbol, "interval": interval.seconds // 60, "since": since}
        return self._result("OHLC", query, About("candles", symbol)).items()

    def _read(
        self, symbol: str, interval: Interval, chunk: TimeRange, rows: Iterable[Node]
    ) -> tuple[list[Candle], list[Odd]]:
        """The last one is not committed, even when its time is over by our clock."""
        candles, odd = super()._read(symbol, interval, chunk, rows)
        last = max((*(each.open_time for each in candles), *(each.at for each in odd if each.at)), default=None)
        return [replace(each, closed=False) if each.open_time == last else each for each in candles], odd

    def _candle(self, symbol: str, interval: Interval, at: datetime, row: Node) -> Candle:
        open_, high, low, close, _, volume = (
            each.decimal() for each in row.items(length=CANDLE_FIELDS, only=range(1, 7))
        )
        closed = self._closed(at, interval)
        return Candle(self.name, symbol, interval, at, open_, high, low, close, volume, closed)

    def _result(self, method: str, query: Query, about: About) -> Node:
        """The one pair of the answer, under whatever name."""

        def check(answer: Node) -> None:
            errors = [each.text() for each in answer.field("error").items()]
            if serious := [each for each in errors if not each.startswith("W")]:
                self._refuse(serious, f"{method} of {query['pair']}", about)

        result = self._http.get(f"/0/public/{method}", query, about=about, check=check).field("result")
        pairs = [node for name, node in result.fields() if name != "last"]
        if len(pairs) != 1:
            result.wrong("an object with one pair", structure=True)
        return pairs[0]

    def _refuse(self, errors: list[str], what: str, about: About) -> None:
        message = f"{self.name} answered {what} with {'; '.join(errors)[:200]}."
        if any(each.startswith(UNKNOWN) for each in errors):
            words = f"{message} It does not know {about.symbol}: correct it in prices.yaml."
            raise UnknownSymbolError(words, about.symbol)
        if all(each.startswith(OF_QUESTIONS) for each in errors):
            self._http.failures.failed(message, about, first=QUESTION_PAUSE, question=True)
        first = max((THROTTLES[name] for name in THROTTLES for each in errors if each.startswith(name)), default=0.0)
        self._http.failures.failed(message, about, first=first, named=named_pause(" ".join(errors), self._clock()))


def _traded(row: Node) -> datetime:
    return row.item(2).moment()
