"""Times of events as epoch microseconds: RFC 3339 with an offset, or epoch milliseconds as a whole number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

NO_TS = np.iinfo(np.int64).min  # an event without a time
MAX_MS = 253_402_300_799_999  # the end of the year 9999

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def times(column: pa.Array) -> tuple[Int64s, Bools]:
    """Epoch microseconds of a text or millisecond column, and which rows are unreadable."""
    absent = np.asarray(column.is_null().to_numpy(zero_copy_only=False), dtype=bool)
    if pa.types.is_integer(column.type):
        millis = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
        wild = (millis > MAX_MS) | (millis < -MAX_MS)
        micros = np.where(wild, 0, millis) * 1000
        micros[absent] = NO_TS
        return micros, wild
    for unit, divisor in (("us", 1), ("ns", 1000)):
        try:
            stamps = column.cast(pa.timestamp(unit, "UTC"))
        except pa.ArrowException:
            continue
        micros = np.floor_divide(pc.fill_null(stamps.cast(pa.int64()), 0).to_numpy(zero_copy_only=False), divisor)
        micros[absent] = NO_TS
        return micros, np.zeros(len(micros), bool)
    if len(column) == 1:
        return np.array([NO_TS], np.int64), np.ones(1, bool)
    halves = [times(half) for half in (column[: len(column) // 2], column[len(column) // 2 :])]
    return np.concatenate([half[0] for half in halves]), np.concatenate([half[1] for half in halves])


def moments(values: list[object]) -> tuple[Int64s, Bools]:
    """`times` of JSON values of any type."""
    micros, unreadable = times(pa.array([value if isinstance(value, str) else None for value in values], pa.string()))
    for at, value in enumerate(values):
        if value is None or isinstance(value, str):
            continue
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_MS:
            micros[at] = value * 1000
        else:
            unreadable[at] = True
    return micros, unreadable
