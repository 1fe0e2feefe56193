"""Frankfurter: the central banks' exchange rates, by day. Version 2 of its API; version 1, which is frozen, below.

Shapes: github.com/lineofflight/frankfurter, lib/public/v2/openapi.json. A symbol is `EUR-USD`: what one EUR costs in
USD. A rate becomes a day's candle with all four prices alike and volume 0. We ask for the ECB's rates alone: a blend of
many banks changes when a bank is added. Today's rate comes in the afternoon, and is not final before the day is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from pipeline_platform.core.budgets import Allowance
from pipeline_platform.core.calendars import Calendar
from pipeline_platform.core.prices import Candle, Interval, Quote
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.errors import SettingError, SourceRefusedError
from pipeline_platform.sources.adapter import Adapter
from pipeline_platform.sources.http import Query


def currencies(symbol: str, source: str) -> tuple[str, str]:
    """("EUR", "USD") of "EUR-USD"."""
    base, _, other = symbol.partition("-")
    if not (base and other):
        raise SettingError(f"{source}: the symbol {symbol!r} in prices.yaml should be two currencies, such as EUR-USD.")
    return base, other


class DailyRates(Adapter):
    """A source of one rate a day and pair."""

    allowance = Allowance(weight=60, seconds=60, burst=10, reserve=4)  # none is published: be modest
    opened = datetime(1999, 1, 4, tzinfo=UTC)  # of the euro
    intervals = frozenset({Interval.DAY})
    calendar = Calendar.ECB
    grace = timedelta(hours=1)

    def _candle(self, symbol: str, day: datetime, rate: Decimal) -> Candle:
        closed = self._closed(day, Interval.DAY)
        return Candle(self.name, symbol, Interval.DAY, day, rate, rate, rate, rate, Decimal(0), closed)

    def _by_base(self, symbols: Sequence[str]) -> dict[str, list[str]]:
        bases: dict[str, list[str]] = {}
        for base, other in (currencies(symbol, self.name) for symbol in symbols):
            bases.setdefault(base, []).append(other)
        return bases

    def _in_order(self, symbols: Sequence[str], found: dict[str, tuple[datetime, Decimal]]) -> list[Quote]:
        if absent := [symbol for symbol in symbols if symbol not in found]:
            raise SourceRefusedError(f"{self.name} has no rate of {', '.join(absent)}. Check prices.yaml.")
        return [Quote(self.name, symbol, found[symbol][1], found[symbol][0]) for symbol in symbols]


class Frankfurter(DailyRates):
    """`https://api.frankfurter.dev/v2`: no key."""

    base_url = "https://api.frankfurter.dev"
    page = 4 * 365  # ranges over five years are refused with a provider

    def _quotes(self, symbols: Sequence[str]) -> list[Quote]:
        """One request a base currency. `at` is the start of the day of the rate."""
        found: dict[str, tuple[datetime, Decimal]] = {}
        for base, others in self._by_base(symbols).items():
            found.update({f"{base}-{other}": (day, rate) for other, day, rate in self._rates(base, others, {})})
        return self._in_order(symbols, found)

    def _page(self, symbol: str, interval: Interval, chunk: TimeRange) -> Iterable[Candle]:  # noqa: ARG002 - days
        base, other = currencies(symbol, self.name)
        query: Query = {"from": f"{chunk.start:%Y-%m-%d}", "to": f"{chunk.end - timedelta(seconds=1):%Y-%m-%d}"}
        for which, day, rate in self._rates(base, [other], query):
            if which == other:
                yield self._candle(symbol, day, rate)

    def _rates(self, base: str, others: list[str], query: Query) -> Iterator[tuple[str, datetime, Decimal]]:
        asked: Query = {**query, "base": base, "quotes": ",".join(others), "providers": "ECB"}
        for row in self._http.get("/v2/rates", asked).items():
            if row.field("base").text() != base:
                row.field("base").wrong(f"{base}, as asked")
            yield row.field("quote").text(), row.field("date").day(), row.field("rate").decimal()


class FrankfurterV1(DailyRates):
    """`https://api.frankfurter.dev/v1`: the ECB's rates, in a shape that will not change. May start before `start`."""

    base_url = "https://api.frankfurter.dev"
    page = 4 * 365

    def _quotes(self, symbols: Sequence[str]) -> list[Quote]:
        """One request a base currency. `at` is the start of the day of the rate."""
        found: dict[str, tuple[datetime, Decimal]] = {}
        for base, others in self._by_base(symbols).items():
            answer = self._http.get("/v1/latest", {"base": base, "symbols": ",".join(others)})
            day = answer.field("date").day()
            rates = answer.field("rates").fields()
            found.update({f"{base}-{other}": (day, rate.decimal()) for other, rate in rates})
        return self._in_order(symbols, found)

    def _page(self, symbol: str, interval: Interval, chunk: TimeRange) -> Iterable[Candle]:  # noqa: ARG002 - days
        base, other = currencies(symbol, self.name)
        path = f"/v1/{chunk.start:%Y-%m-%d}..{chunk.end - timedelta(seconds=1):%Y-%m-%d}"
        answer = self._http.get(path, {"base": base, "symbols": other})
        for day, rates in answer.field("rates").fields():
            at = type(rates)(day, self.name, f"{rates.path} (its name)").day()
            yield self._candle(symbol, at, rates.field(other).decimal())
