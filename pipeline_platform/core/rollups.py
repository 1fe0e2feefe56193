"""Grains of a stream's rollups: hours and days in UTC, their windows, and ranges of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum


class Grain(Enum):
    """A rollup's windows. `value` is the suffix of its view."""

    HOUR = "1h"
    DAY = "1d"

    @property
    def width(self) -> timedelta:
        """How long a window is; UTC has no other."""
        return timedelta(hours=1) if self is Grain.HOUR else timedelta(days=1)

    @property
    def unit(self) -> str:
        """PostgreSQL's word for it, and that of the table: `<stream>_hours`, `<stream>_days`."""
        return "hour" if self is Grain.HOUR else "day"

    def floor(self, moment: datetime) -> datetime:
        """The start of the window that holds the moment."""
        moment = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return moment if self is Grain.HOUR else moment.replace(hour=0)

    def complete(self, now: datetime) -> datetime:
        """The end of the last window that is over at `now`."""
        return self.floor(now)


@dataclass(frozen=True, order=True)
class Span:
    """Whole windows in [start, end)."""

    start: datetime
    end: datetime

    def windows(self, grain: Grain) -> int:
        """How many there are."""
        return (self.end - self.start) // grain.width


def spans(starts: Iterable[datetime], grain: Grain, *, longest: int) -> list[Span]:
    """The windows that start at `starts`, as few spans of at most `longest` windows each."""
    found: list[Span] = []
    for start in sorted(set(starts)):
        end = start + grain.width
        if found and found[-1].end == start and found[-1].windows(grain) < longest:
            found[-1] = Span(found[-1].start, end)
        else:
            found.append(Span(start, end))
    return found
