"""What all sources share: reach, order, and each candle once. A source adds its pages and its readers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from pipeline_platform.core.budgets import Allowance
from pipeline_platform.core.calendars import Calendar
from pipeline_platform.core.prices import Candle, Interval, Quote, faults, is_closed
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.errors import SettingError
from pipeline_platform.sources.failures import Said
from pipeline_platform.sources.http import HttpClient
from pipeline_platform.sources.protocol import Quotes, Rejects
from pipeline_platform.sources.quoting import Latest, quotes_of
from pipeline_platform.sources.records import Odd, sort_out
from pipeline_platform.sources.shapes import Node

BEGINNING = datetime(2010, 1, 1, tzinfo=UTC)  # before any exchange of coins
AHEAD = timedelta(days=1)  # by which a price's time may be ahead of our clock


class Adapter(ABC):
    """A Source over HTTP. The class variables are the vendor's facts; prices.yaml may override URL and allowance."""

    base_url: ClassVar[str]
    allowance: ClassVar[Allowance]
    intervals: ClassVar[frozenset[Interval]] = frozenset(Interval)
    calendar: ClassVar[Calendar] = Calendar.ALWAYS
    grace: ClassVar[timedelta] = timedelta(seconds=10)
    opened: ClassVar[datetime] = BEGINNING  # nothing is older
    page: ClassVar[int]  # candles a request
    together: ClassVar[int] = 1  # symbols of one request for quotes
    key_header: ClassVar[str | None] = None
    # For docs/prices.md: the time of a quote, and what the source says of a symbol that it does not know.
    quote_time: ClassVar[str]
    unknown_words: ClassVar[str]

    def __init__(self, name: str, http: HttpClient, clock: Callable[[], datetime]) -> None:
        self.name = name
        self._http = http
        self._clock = clock

    @staticmethod
    @abstractmethod
    def says_unknown(said: Said) -> bool:
        """Whether a failed answer is the one that is documented for a symbol that the source does not know."""

    @property
    def spent(self) -> int:
        """Requests made so far."""
        return self._http.spent

    def max_candles_per_request(self, interval: Interval) -> int:  # noqa: ARG002 - some sources differ by interval
        """How many candles one request brings at most."""
        return self.page

    def reach(self, interval: Interval, now: datetime) -> datetime:  # noqa: ARG002 - some sources keep only so much
        """The oldest opening that the source still gives."""
        return self.opened

    def quotes(self, symbols: Sequence[str]) -> Quotes:
        """The latest price of each symbol, in the order asked; see Source."""
        return quotes_of(self.name, symbols, self._latest, together=self._together)

    def _together(self, symbols: Sequence[str]) -> list[list[str]]:
        """The symbols, by requests."""
        return [list(symbols[first : first + self.together]) for first in range(0, len(symbols), self.together)]

    @abstractmethod
    def _latest(self, symbols: Sequence[str]) -> Latest:
        """The answer of one request about these symbols."""

    def _quote(self, symbol: str, price: Node, at: datetime) -> Quote:
        """A quote, unless it cannot be."""
        number = price.decimal()
        if number <= 0:
            price.wrong("a price above 0")
        if at > self._clock() + AHEAD:
            price.odd(f"is of {at.isoformat()}, which is to come")
        return Quote(self.name, symbol, number, at)

    def candles(self, symbol: str, interval: Interval, wanted: TimeRange, rejects: Rejects) -> Iterator[Candle]:
        """The candles that open within `wanted` and within reach, ascending, each once; see Source."""
        if interval not in self.intervals:
            there = ", ".join(sorted(self.intervals))
            raise SettingError(f"{self.name} has no candles of {interval}; choose one of {there} in prices.yaml.")
        now = self._clock()
        part = wanted.within(self.reach(interval, now), interval.floor(now) + interval.length)
        return iter(()) if part is None else self._candles(symbol, interval, part, rejects)

    def close(self) -> None:
        """Gives back the connections."""
        self._http.close()

    def _candles(self, symbol: str, interval: Interval, wanted: TimeRange, rejects: Rejects) -> Iterator[Candle]:
        last: datetime | None = None
        for chunk, rows in self._pages(symbol, interval, wanted):
            page: dict[datetime, Candle] = {}
            candles, odd = self._read(symbol, interval, chunk, rows)
            for candle in candles:
                at = candle.open_time
                if page.setdefault(at, candle) != candle:
                    odd.append(Odd(at, f"is given twice, with {_values(page[at])} and then with {_values(candle)}"))
                    page[at] = candle
            for each in odd:
                if each.at is None or (each.at in wanted and each.at in chunk):
                    when = f" {each.at.isoformat()}" if each.at else ""
                    rejects.add(each.at, f"{symbol} {interval.value}{when}: {each.why}")
            for at, candle in sorted(page.items()):
                if at in wanted and (last is None or at > last):
                    last = at
                    yield candle

    def _pages(self, symbol: str, interval: Interval, wanted: TimeRange) -> Iterator[tuple[TimeRange, list[Node]]]:
        """Pages of ascending ranges, in any order within; of whole candles, even when the range ends within one."""
        start, end = interval.ceiling(wanted.start), interval.ceiling(wanted.end)
        if start < end:
            for chunk in TimeRange(start, end).chunks(interval.length * self.max_candles_per_request(interval)):
                yield chunk, self._rows(symbol, interval, chunk)

    @abstractmethod
    def _rows(self, symbol: str, interval: Interval, chunk: TimeRange) -> list[Node]:
        """The records of one request; more than asked for does no harm."""

    def _read(
        self,
        symbol: str,
        interval: Interval,
        chunk: TimeRange,  # noqa: ARG002 - for points of a range that was widened
        rows: Iterable[Node],
    ) -> tuple[list[Candle], list[Odd]]:
        """The candles of a page's records, and the records at odds."""
        found = sort_out(rows, self._opened, lambda at, row: _sound(row, self._candle(symbol, interval, at, row)))
        return found.usable, found.odd

    def _opened(self, row: Node) -> datetime:
        """When a record's candle opened."""
        return row.item(0).moment()

    def _candle(self, symbol: str, interval: Interval, at: datetime, row: Node) -> Candle | None:
        """A record's candle; None when the record is about something else. For `_read`, unless a source has its own."""
        raise NotImplementedError

    def _closed(self, open_time: datetime, interval: Interval) -> bool:
        return is_closed(open_time, interval, self._clock(), self.grace)


def _sound(row: Node, candle: Candle | None) -> Candle | None:
    if candle and (wrong := faults(candle)):
        row.odd(f"has {wrong[0]}")
    return candle


def _values(candle: Candle) -> str:
    return "/".join(f"{each:f}" for each in (candle.open, candle.high, candle.low, candle.close, candle.volume))
