"""What the sources of exchange rates share: one rate a working day and pair, as a day's candle of volume 0.

A symbol is `EUR-USD`: what one EUR costs in USD. A day's rate has all four prices alike, and opens at midnight UTC.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from pipeline_platform.core.budgets import Allowance
from pipeline_platform.core.calendars import Calendar
from pipeline_platform.core.prices import Candle, Interval, Quote
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.errors import UnknownSymbolError
from pipeline_platform.sources.adapter import Adapter
from pipeline_platform.sources.records import sort_out
from pipeline_platform.sources.shapes import Node


def currencies(symbol: str, source: str) -> tuple[str, str]:
    """("EUR", "USD") of "EUR-USD"."""
    base, _, other = symbol.partition("-")
    if not (base and other):
        raise UnknownSymbolError(
            f"{source}: the symbol {symbol!r} in prices.yaml should be two currencies, such as EUR-USD.", symbol
        )
    return base, other


class DailyRates(Adapter):
    """A source of one rate a day and pair."""

    allowance = Allowance(weight=60, seconds=60, burst=10, reserve=4)  # none is published: be modest
    opened = datetime(1999, 1, 4, tzinfo=UTC)  # of the euro
    intervals = frozenset({Interval.DAY})
    calendar = Calendar.ECB
    grace = timedelta(hours=1)
    quote_time = "the day of the rate"

    def _together(self, symbols: Sequence[str]) -> list[list[str]]:
        """One request a base currency."""
        bases: dict[str, list[str]] = {}
        for symbol in symbols:
            bases.setdefault(symbol.partition("-")[0] if "-" in symbol else symbol, []).append(symbol)
        return list(bases.values())

    def _rows(self, symbol: str, interval: Interval, chunk: TimeRange) -> list[Node]:  # noqa: ARG002 - days
        """Of a range in which there is nothing these sources say what they say of a currency that they do not know:
        then they are asked for the latest rate too, which raises when that is unknown as well."""
        first, last = (f"{at:%Y-%m-%d}" for at in (chunk.start, chunk.end - timedelta(seconds=1)))
        try:
            return self._rates(symbol, first, last)
        except UnknownSymbolError:
            for quote in self._latest([symbol]).values():
                quote()
            return []

    @abstractmethod
    def _rates(self, symbol: str, first: str, last: str) -> list[Node]:
        """The records of the days from `first` to `last`."""

    @abstractmethod
    def _rate(self, symbol: str, row: Node) -> Node | None:
        """A record's rate; None when it is about another pair."""

    def _candle(self, symbol: str, interval: Interval, at: datetime, row: Node) -> Candle | None:
        found = self._rate(symbol, row)
        if found is None:
            return None
        rate = found.decimal()
        if rate <= 0:
            found.wrong("a rate above 0")
        closed = self._closed(at, interval)
        return Candle(self.name, symbol, interval, at, rate, rate, rate, rate, Decimal(0), closed)

    def _newest(self, symbol: str, rows: Sequence[Node]) -> Quote:
        """The latest rate of some records, of which those at odds do not count while there is another."""

        def read(at: datetime, row: Node) -> Quote | None:
            rate = self._rate(symbol, row)
            return None if rate is None else self._quote(symbol, rate, at)

        rates = sort_out(rows, self._opened, read)
        if rates.usable:
            return max(rates.usable, key=lambda each: each.at)
        if rates.odd:
            Node(None, self.name, "the latest rate").odd(f"cannot be had: {rates.odd[-1].why}")
        raise UnknownSymbolError(f"{self.name} has no rate of {symbol}: correct it in prices.yaml.", symbol)
