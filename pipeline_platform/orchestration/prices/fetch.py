"""Candles from a source into the warehouse, as few requests as the ranges allow. Knows nothing of Dagster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import sqlalchemy as sa

from pipeline_platform.core.price_partitions import Cell
from pipeline_platform.core.prices import Candle, Instrument, Interval, last_closed
from pipeline_platform.core.time_ranges import TimeRange, coalesce
from pipeline_platform.sources.protocol import Source
from pipeline_platform.warehouse.absences import note_answer
from pipeline_platform.warehouse.candle_gaps import Wanted, find_gaps
from pipeline_platform.warehouse.candles import Written, upsert
from pipeline_platform.warehouse.etl_ledger import EtlCounts

FAULTS_TOLD = 20


@dataclass
class Day:
    """What came of a day of an instrument: candles, those that were not stored, the first and the last that were."""

    read: int = 0
    rejected: int = 0
    first: datetime | None = None
    last: datetime | None = None


@dataclass
class Fetched:
    """What came of it: candles read, those at odds with themselves (not stored), and what the upserts did."""

    days: dict[Cell, Day] = field(default_factory=dict)
    requests: dict[Cell, int] = field(default_factory=dict)
    written: Written = field(default_factory=Written)
    faults: list[str] = field(default_factory=list)

    @property
    def read(self) -> int:
        """All candles."""
        return sum(day.read for day in self.days.values())

    @property
    def rejected(self) -> int:
        """Those that were not stored."""
        return sum(day.rejected for day in self.days.values())

    @property
    def counts(self) -> dict[str | None, EtlCounts]:
        """By partition key. A request is for many days: an instrument's are all counted with its first."""
        found: dict[str | None, EtlCounts] = {}
        for cell in {**self.days, **self.requests}:
            day = self.days.get(cell, Day())
            spent = self.requests.get(cell, 0)
            found[cell.key] = EtlCounts(day.read, day.rejected, spent, day.first, day.last)
        return found

    def counted(self, instrument: Instrument, candles: Iterable[Candle]) -> Iterator[Candle]:
        """The candles, counted by their days."""
        at, day = None, Day()
        for each in candles:
            if at != (at := each.open_time.date()):
                day = self.days.setdefault(Cell(at, instrument), Day())
            day.read += 1
            day.first = min(day.first or each.open_time, each.open_time)
            day.last = max(day.last or each.open_time, each.open_time)
            yield each


@dataclass(frozen=True)
class CountedRejects:
    """Counts an instrument's records at odds by their days, and keeps the words of the first.

    A record whose time cannot be read counts with `otherwise`, the first day that was asked for.
    """

    into: Fetched
    instrument: Instrument
    otherwise: date

    def add(self, at: datetime | None, why: str) -> None:
        """One record."""
        day = self.into.days.setdefault(Cell(at.date() if at else self.otherwise, self.instrument), Day())
        day.read += 1
        day.rejected += 1
        if len(self.into.faults) < FAULTS_TOLD:
            self.into.faults.append(why)


@dataclass
class _Answer:
    """What a source's answer leaves out of `asked`: it says "nothing" for that."""

    asked: TimeRange
    interval: Interval
    holes: list[TimeRange] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reached = self.interval.ceiling(self.asked.start)

    def watched(self, candles: Iterable[Candle]) -> Iterator[Candle]:
        """The candles, which ascend."""
        for each in candles:
            self._reach(each.open_time)
            self._reached = each.close_time
            yield each

    def nothing(self, since: datetime, until: datetime) -> tuple[TimeRange, list[TimeRange]] | None:
        """Once all of it is read: what it has answered for between these, and what of that it left out."""
        part = self.asked.within(since, until)
        if part is None:
            return None
        self._reach(self.interval.ceiling(self.asked.end))
        return part, [hole for each in self.holes if (hole := each.within(part.start, part.end))]

    def _reach(self, at: datetime) -> None:
        if at > self._reached:
            self.holes.append(TimeRange(self._reached, at))
            self._reached = at


def fetch_candles(
    engine: sa.Engine,
    source: Source,
    instrument: Instrument,
    canonical: str,
    intervals: Iterable[Interval],
    ranges: Sequence[TimeRange],
    *,
    only_gaps: bool,
    run_id: str,
    clock: Callable[[], datetime],
    into: Fetched,
) -> None:
    """Fetches and stores what opens in the ranges, and what the source has nothing for.

    With `only_gaps` only what is not there, closed, and not answered for. Each page is stored before the next is asked
    for, so whatever ends the run ends it without loss; "nothing" is known at the end of a range.
    """
    before = source.spent
    try:
        for interval in intervals:
            for span in to_fetch(engine, source, instrument, interval, ranges, only_gaps=only_gaps, now=clock()):
                asked = clock()  # of two answers to one question the later one counts
                answer, rejects = _Answer(span, interval), CountedRejects(into, instrument, span.start.date())
                given = source.candles(instrument.symbol, interval, span, rejects)
                candles = answer.watched(into.counted(instrument, given))
                into.written += upsert(
                    engine, candles, fetched_at=asked, run_id=run_id, canonical={instrument: canonical}
                )
                # What was not over yet, or is beyond reach by now, it has not answered for.
                over = last_closed(interval, asked, source.grace)
                if told := answer.nothing(source.reach(interval, clock()), over):
                    note_answer(engine, instrument, interval, *told, asked, source.calendar)
    finally:
        if ranges:
            cell = Cell(ranges[0].start.date(), instrument)
            into.requests[cell] = into.requests.get(cell, 0) + source.spent - before


def to_fetch(
    engine: sa.Engine,
    source: Source,
    instrument: Instrument,
    interval: Interval,
    ranges: Iterable[TimeRange],
    *,
    only_gaps: bool,
    now: datetime,
) -> list[TimeRange]:
    """The ranges to ask for: within reach, not in the future, and so joined that no request is half empty."""
    opened, reach = interval.ceiling(now), source.reach(interval, now)
    there = [part for each in ranges if (part := each.within(reach, opened))]
    if only_gaps:
        wanted = wanted_of(source, instrument, interval)
        found = [gaps for each in there for gaps in find_gaps(engine, [wanted], each, opened, due=now)]
        there = [gap for gaps in found for gap in gaps.ranges]
    # Two holes nearer to each other than half a page are asked for at once: a request costs more than candles do.
    near = interval.length * (source.max_candles_per_request(interval) // 2) if only_gaps else timedelta()
    return coalesce(there, near)


def wanted_of(source: Source, instrument: Instrument, interval: Interval) -> Wanted:
    """What there should be of an instrument, by its source's calendar and page."""
    return Wanted(instrument, interval, source.calendar, source.max_candles_per_request(interval))
