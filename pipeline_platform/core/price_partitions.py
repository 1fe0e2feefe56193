"""Partitions of candles are days of instruments, `2024-02-29|binance:BTCUSDT`: keys from ranges of time and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from pipeline_platform.core.prices import Instrument
from pipeline_platform.core.time_ranges import TimeRange, coalesce, of_day

BETWEEN = "|"  # Dagster's own, between the two dimensions
_OF = ":"


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One partition: a UTC day of an instrument."""

    day: date
    instrument: Instrument

    @property
    def key(self) -> str:
        """Dagster's partition key: the dimensions by name, `day` before `instrument`."""
        return f"{self.day.isoformat()}{BETWEEN}{instrument_key(self.instrument)}"


def instrument_key(instrument: Instrument) -> str:
    """The key in the dimension `instrument`, such as `binance:BTCUSDT`."""
    return f"{instrument.source}{_OF}{instrument.symbol}"


def instrument_of(key: str) -> Instrument:
    """The instrument of such a key."""
    source, _, symbol = key.partition(_OF)
    return Instrument(source, symbol)


def cell_of(key: str) -> Cell:
    """The cell of a partition key."""
    day, _, instrument = key.partition(BETWEEN)
    return Cell(date.fromisoformat(day), instrument_of(instrument))


def ranges_of(keys: Iterable[str]) -> dict[Instrument, list[TimeRange]]:
    """What partition keys ask for, by instrument, in the fewest ranges."""
    by_instrument: dict[Instrument, list[TimeRange]] = defaultdict(list)
    for cell in map(cell_of, keys):
        by_instrument[cell.instrument].append(of_day(cell.day))
    return {instrument: coalesce(by_instrument[instrument]) for instrument in sorted(by_instrument)}


def days_of(span: TimeRange) -> Iterator[date]:
    """The UTC days that the range touches."""
    day, last = span.start.date(), (span.end - timedelta(microseconds=1)).date()
    while day <= last:
        yield day
        day += timedelta(days=1)


def day_ranges(ranges: Iterable[TimeRange], gap_days: int = 0) -> list[tuple[date, date]]:
    """The days that the ranges touch as (first, last); ranges up to `gap_days` whole days apart become one."""
    whole = [TimeRange(of_day(each.start.date()).start, of_day(_last_day(each)).end) for each in ranges]
    merged = coalesce(whole, timedelta(days=gap_days))
    return [(each.start.date(), _last_day(each)) for each in merged]


def keys_of(instrument: Instrument, ranges: Iterable[TimeRange]) -> list[str]:
    """The partition keys of an instrument whose days the ranges touch, ascending, each once."""
    days = {day for each in ranges for day in days_of(each)}
    return [Cell(day, instrument).key for day in sorted(days)]


def _last_day(span: TimeRange) -> date:
    return (span.end - timedelta(microseconds=1)).date()
