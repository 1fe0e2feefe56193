"""Times of events as epoch microseconds: RFC 3339 with an offset, or epoch milliseconds as a whole number.

A number without a fraction is a whole number, however it is written: 1795780762035.0 and 1.795780762035e+12, too.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

NO_TS = np.iinfo(np.int64).min  # an event without a time
MAX_MS = 253_402_300_799_999  # the end of the year 9999

_LEAP = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:60([^\d]|$)"
_FINER = (r"^([0-9-]{10}[T ][0-9:]{8}\.[0-9]{6})[0-9]+", r"\1")

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def times(column: pa.Array) -> tuple[Int64s, Bools]:
    """Epoch microseconds of a column of texts or of milliseconds as floats, and which rows are unreadable."""
    absent = np.asarray(column.is_null().to_numpy(zero_copy_only=False), dtype=bool)
    if pa.types.is_floating(column.type):
        millis = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
        wild = ~(np.abs(millis) <= MAX_MS) | (millis != np.floor(millis))
        micros = np.where(wild, 0, millis).astype(np.int64) * 1000
        micros[absent] = NO_TS
        return micros, wild
    stamps = _cast(column, "us", 1)
    if stamps is None:
        stamps = _cast(column, "ns", 1000)
    micros, unreadable = _one_by_one(_usual(column)) if stamps is None else (stamps, np.zeros(len(column), bool))
    micros[absent] = NO_TS
    return micros, unreadable


def _cast(column: pa.Array, unit: str, divisor: int) -> Int64s | None:
    """The microseconds, rounded down, if all texts are times in Arrow's eyes, none finer than the unit."""
    try:
        stamps = column.cast(pa.timestamp(unit, "UTC")).cast(pa.int64())
    except pa.ArrowException:
        return None
    micros: Int64s = np.floor_divide(pc.fill_null(stamps, 0).to_numpy(zero_copy_only=False), divisor)
    return micros


def _usual(column: pa.Array) -> pa.Array:
    """The texts as Arrow reads times: T and Z as capitals, no more than six digits of a second."""
    return pc.replace_substring_regex(pc.ascii_upper(column), *_FINER)


def _one_by_one(column: pa.Array) -> tuple[Int64s, Bools]:
    """The texts that are times, found by halving."""
    stamps = _cast(column, "us", 1)
    if stamps is not None:
        return stamps, np.zeros(len(stamps), bool)
    if len(column) == 1:
        return np.array([NO_TS], np.int64), np.ones(1, bool)
    halves = [_one_by_one(half) for half in (column[: len(column) // 2], column[len(column) // 2 :])]
    return np.concatenate([half[0] for half in halves]), np.concatenate([half[1] for half in halves])


def leap_seconds(column: pa.Array) -> Bools:
    """Which texts have 60 for their seconds, which epoch time has no room for."""
    if not pa.types.is_string(column.type):
        return np.zeros(len(column), bool)
    found = pc.fill_null(pc.match_substring_regex(column, _LEAP), False)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool)


def is_leap_second(value: object) -> bool:
    """The same of one JSON value."""
    return isinstance(value, str) and re.match(_LEAP, value, re.ASCII) is not None


def moments(values: list[object]) -> tuple[Int64s, Bools]:
    """`times` of JSON values of any type."""
    micros, unreadable = times(pa.array([value if isinstance(value, str) else None for value in values], pa.string()))
    for at, value in enumerate(values):
        if value is None or isinstance(value, str):
            continue
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_MS and value % 1 == 0:
            micros[at] = int(value) * 1000
        else:
            unreadable[at] = True
    return micros, unreadable
