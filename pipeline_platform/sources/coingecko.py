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
from urllib.parse import quote

from pipeline_platform.core.budgets import Allowance
from pipeline_platform.core.prices import EPOCH, Candle, Interval, Quote
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.errors import SourceRefusedError
from pipeline_platform.sources.adapter import Adapter
from pipeline_platform.sources.http import Query

LONGEST = timedelta(days=88)
SHORTEST = timedelta(days=2)


class CoinGecko(Adapter):
    """`https://api.coingecko.com`: a demo key makes the limits one's own."""

    base_url = "https://api.coingecko.com"
    allowance = Allowance(weight=30, seconds=60, burst=6, reserve=2)
    intervals = frozenset({Interval.HOUR, Interval.DAY})
    grace = timedelta(minutes=40)  # a day is final at 00:35
    page = LONGEST // timedelta(days=1)
    key_header = "x-cg-demo-api-key"

    def max_candles_per_request(self, interval: Interval) -> int:
        """88 days' worth."""
        return LONGEST // interval.length

    def reach(self, interval: Interval, now: datetime) -> datetime:
        """365 days, less what a short range is widened by."""
        return interval.ceiling(now - timedelta(days=365) + SHORTEST)

    def _quotes(self, symbols: Sequence[str]) -> list[Quote]:
        """All symbols in one request."""
        if not symbols:
            return []
        pairs = {symbol: _coin_and_currency(symbol) for symbol in symbols}
        query: Query = {
            "ids": ",".join(sorted({coin for coin, _ in pairs.values()})),
            "vs_currencies": ",".join(sorted({currency for _, currency in pairs.values()})),
            "include_last_updated_at": "true",
            "precision": "full",
        }
        answer = self._http.get("/api/v3/simple/price", query)
        known = dict(answer.fields())
        quotes = []
        for symbol, (coin, currency) in pairs.items():
            if coin not in known:
                raise SourceRefusedError(f"{self.name} does not know {coin}. Check the symbol in prices.yaml.")
            price, at = known[coin].field(currency).decimal(), known[coin].field("last_updated_at").moment()
            quotes.append(Quote(self.name, symbol, price, at))
        return quotes

    def _page(self, symbol: str, interval: Interval, chunk: TimeRange) -> Iterable[Candle]:
        coin, currency = _coin_and_currency(symbol)
        start = min(chunk.start, chunk.end - SHORTEST)
        query: Query = {"vs_currency": currency, "from": _seconds(start), "to": _seconds(chunk.end)}
        answer = self._http.get(f"/api/v3/coins/{quote(coin, safe='')}/market_chart/range", query)
        points: dict[datetime, dict[datetime, Decimal]] = {}
        for each in answer.field("prices").items():
            time, price = each.items(length=2)
            at, number = time.moment(), price.decimal()
            if at in chunk:
                points.setdefault(interval.floor(at), {})[at] = number
        for opened, prices in points.items():
            ordered = [prices[at] for at in sorted(prices)]
            closed = self._closed(opened, interval)
            extremes = max(ordered), min(ordered)
            yield Candle(self.name, symbol, interval, opened, ordered[0], *extremes, ordered[-1], Decimal(0), closed)


def _coin_and_currency(symbol: str) -> tuple[str, str]:
    coin, _, currency = symbol.partition("/")
    return coin, currency or "usd"


def _seconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(seconds=1)
