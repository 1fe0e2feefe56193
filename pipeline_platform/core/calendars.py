"""When a source can have a daily price at all: coins trade always, the ECB publishes on its working days."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cache


class Calendar(StrEnum):
    """The days of a source."""

    ALWAYS = "always"
    ECB = "ecb"  # Monday to Friday without the closing days of TARGET (T2), since 2002

    def expects(self, at: datetime) -> bool:
        """Whether there can be a candle that opens at `at`."""
        return self is Calendar.ALWAYS or _is_ecb_day(at.date())

    def last_day(self, at: datetime) -> datetime:
        """The start, in UTC, of the latest day that was over at `at` and that there can be a price of."""
        start = datetime.combine(at.astimezone(UTC).date() - timedelta(days=1), time(), UTC)
        while not self.expects(start):
            start -= timedelta(days=1)
        return start


def _is_ecb_day(day: date) -> bool:
    return day.weekday() < 5 and day not in _holidays(day.year)


@cache
def _holidays(year: int) -> frozenset[date]:
    easter = _easter(year)
    return frozenset(
        {
            date(year, 1, 1),
            easter - timedelta(days=2),
            easter + timedelta(days=1),
            date(year, 5, 1),
            date(year, 12, 25),
            date(year, 12, 26),
        }
    )


def _easter(year: int) -> date:
    """Easter Sunday by the anonymous Gregorian computation."""
    golden, century, rest = year % 19, year // 100, year % 100
    leap, left = divmod(century, 4)
    shift = (century - (century + 8) // 25 + 1) // 3
    epact = (19 * golden + century - leap - shift + 15) % 30
    weekday = (32 + 2 * left + 2 * (rest // 4) - epact - rest % 4) % 7
    late = (golden + 11 * epact + 22 * weekday) // 451
    month, day = divmod(epact + weekday - 7 * late + 114, 31)
    return date(year, month, day + 1)
