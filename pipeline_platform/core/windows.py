"""Half-open UTC windows in epoch microseconds."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt

MINUTE_US = 60_000_000
HOUR_US = 3_600_000_000
DAY_US = 86_400_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Int64s = npt.NDArray[np.int64]


def floor_to(ts_us: Int64s, width_us: int) -> Int64s:
    """The start of the window of `width_us` microseconds that each time falls in, also before 1970."""
    return ts_us - np.mod(ts_us, width_us)


def days_touched(ts_us: Int64s) -> list[date]:
    """The UTC days that the times fall on, ascending."""
    days = np.unique(np.floor_divide(ts_us, DAY_US))
    return [(EPOCH + timedelta(days=int(day))).date() for day in days]


def to_datetime(ts_us: int) -> datetime:
    """Epoch microseconds as an aware UTC datetime."""
    return EPOCH + timedelta(microseconds=ts_us)


def to_micros(moment: datetime) -> int:
    """An aware datetime as epoch microseconds."""
    return (moment - EPOCH) // timedelta(microseconds=1)
