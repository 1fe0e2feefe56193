"""CoinGecko: simple price, and candles made of the points of market_chart/range.

Shapes: docs.coingecko.com. A symbol is a coin's id, in US dollars (`bitcoin`) or in another currency (`bitcoin/eur`).
The API chooses how dense the points are by the length of the range: five minutes for the latest day, hours up to 90
days, days beyond. A candle must not depend on how it was asked for, so we always ask for more than a day and less than
90: hours, always. An hour's candle is flat, a day's is made of up to 24 points. Volumes are of the last 24 hours at
every point, not of a candle: ours is 0. Free use reaches back 365 days.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from urllib.parse import quote

from pipeline_platform.core.budgets import Allowance
from pipeline_platform.core.prices import EPOCH, Candle, Interval, Quote
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.errors import UnknownSymbolError
from pipeline_platform.sources.adapter import Adapter
from pipeline_platform.sources.failures import Said
from pipeline_platform.sources.http import Query
from pipeline_platform.sources.quoting import Latest
from pipeline_platform.sources.records import Odd, sort_out
from pipeline_platform.sources.series import About
from pipeline_platform.sources.shapes import Node

LONGEST = timedelta(days=88)
SHORTEST = timedelta(days=2)


class CoinGecko(Adapter):
    """`https://api.coingecko.com`: a demo key makes the limits one's own."""

    base_url = "https://api.coingecko.com"
    allowance = Allowance(weight=30, seconds=60, burst=6, reserve=2)
    intervals = frozenset({Interval.HOUR, Interval.DAY})
    grace = timedelta(minutes=40)  # a day is final at 00:35
    page = LONGEST // timedelta(days=1)
    together = 100
    key_header = "x-cg-demo-api-key"
    quote_time = "`last_updated_at`"
    unknown_words = "a coin or currency that /simple/price leaves out; 404 `coin not found`; `invalid vs_currency`"

    @staticmethod
    def says_unknown(said: Said) -> bool:
        """404 with {"error": "coin not found"}, or "invalid vs_currency"."""
        return (said.status == 404 and "coin not found" in said.message) or "invalid vs_currency" in said.message

    def max_candles_per_request(self, interval: Interval) -> int:
        """88 days' worth."""
        return LONGEST // interval.length

    def reach(self, interval: Interval, now: datetime) -> datetime:
        """365 days, less what a short range is widened by."""
        return interval.ceiling(now - timedelta(days=365) + SHORTEST)

    def _latest(self, symbols: Sequence[str]) -> Latest:
        pairs = {symbol: _coin_and_currency(symbol) for symbol in symbols}
        coins = {coin for coin, _ in pairs.values()}
        query: Query = {
            "ids": ",".join(sorted(coins)),
            "vs_currencies": ",".join(sorted({currency for _, currency in pairs.values()})),
            "include_last_updated_at": "true",
            "precision": "full",
        }
        about = About("quotes", symbols[0] if len(symbols) == 1 else None)
        answer = self._http.get("/api/v3/simple/price", query, about=about)
        known = dict(answer.fields())
        if not set(known) <= coins:
            answer.wrong("an object of the coins that were asked for", structure=True)
        return {symbol: partial(self._price, symbol, known.get(coin), name) for symbol, (coin, name) in pairs.items()}

    def _price(self, symbol: str, coin: Node | None, currency: str) -> Quote:
        prices = dict(coin.fields()) if coin else {}
        if coin is None or currency not in prices:
            raise UnknownSymbolError(f"{self.name} has no price of {symbol}: correct it in prices.yaml.", symbol)
        return self._quote(symbol, prices[currency], coin.field("last_updated_at").moment())

    def _rows(self, symbol: str, interval: Interval, chunk: TimeRange) -> list[Node]:  # noqa: ARG002 - hours, always
        coin, currency = _coin_and_currency(symbol)
        start = min(chunk.start, chunk.end - SHORTEST)
        query: Query = {"vs_currency": currency, "from": _seconds(start), "to": _seconds(chunk.end)}
        path = f"/api/v3/coins/{quote(coin, safe='')}/market_chart/range"
        return self._http.get(path, query, about=About("candles", symbol)).field("prices").items()

    def _read(
        self, symbol: str, interval: Interval, chunk: TimeRange, rows: Iterable[Node]
    ) -> tuple[list[Candle], list[Odd]]:
        """Candles of the points within the chunk."""
        found = sort_out(rows, self._opened, _point)
        points: dict[datetime, dict[datetime, Decimal]] = {}
        for at, price in found.usable:
            if at in chunk:
                points.setdefault(interval.floor(at), {})[at] = price
        return [self._of_points(symbol, interval, at, prices) for at, prices in points.items()], found.odd

    def _of_points(self, symbol: str, interval: Interval, opened: datetime, prices: dict[datetime, Decimal]) -> Candle:
        ordered = [prices[at] for at in sorted(prices)]
        four = ordered[0], max(ordered), min(ordered), ordered[-1]
        return Candle(self.name, symbol, interval, opened, *four, Decimal(0), self._closed(opened, interval))


def _point(at: datetime, row: Node) -> tuple[datetime, Decimal]:
    price = row.items(length=2)[1]
    number = price.decimal()
    if number < 0:
        price.wrong("a price")
    return at, number


def _coin_and_currency(symbol: str) -> tuple[str, str]:
    coin, _, currency = symbol.partition("/")
    return coin, currency.lower() or "usd"


def _seconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(seconds=1)
