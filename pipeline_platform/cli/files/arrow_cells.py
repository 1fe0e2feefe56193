"""Arrow columns of one kind of value as values that JSON has, each exactly what the column says, or refused."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

DAY_MS = 86_400_000
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FIRST, _LAST = -62_135_596_800, 253_402_300_800  # seconds of the years 1 to 9999, the last exclusive
_OUTSIDE = "is outside of the years 1 to 9999"


@dataclass
class Cells:
    """The values of a column, None where it has none; `problems` are the rows whose value is refused, with words.

    The value of such a row is a text that shows it.
    """

    values: list[Any]
    problems: dict[int, str] = field(default_factory=dict)


def refused(column: Any, words: str) -> Cells:
    """A column of which every value is refused in these words."""
    there = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)).tolist()
    cells = Cells([None] * len(column))
    for at in there:
        cells.values[at], cells.problems[at] = _shown(column[at]), words
    return cells


def _shown(scalar: Any) -> str:
    try:
        return str(scalar.as_py())[:200]
    except (ValueError, OverflowError, pa.ArrowException):  # such as a time that Python has no room for
        return f"a {scalar.type} that cannot be shown"


def plain(column: Any) -> Cells:
    """Booleans and whole numbers."""
    return Cells(column.to_pylist())


def floats(column: Any) -> Cells:
    """Floats of any width; what JSON has no number for is refused."""
    wide = column.cast(pa.float64())
    cells = Cells(wide.to_pylist())
    odd = pc.fill_null(pc.invert(pc.is_finite(wide)), False).to_numpy(zero_copy_only=False)
    for at in np.flatnonzero(odd).tolist():
        value = cells.values[at]
        cells.values[at] = str(value)
        cells.problems[at] = "is NaN; null says that there is no value" if value != value else "is infinite"
    return cells


def decimals(column: Any) -> Cells:
    """Decimals with all their digits."""
    return Cells([None if value is None else orjson.Fragment(f"{value:f}") for value in column.to_pylist()])


def texts(column: Any) -> Cells:
    """Texts, which nobody has checked for being UTF-8 so far."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return octets(column.cast(pa.large_binary()))
    return Cells(column.to_pylist())


def octets(column: Any) -> Cells:
    """Bytes that are text."""
    cells = Cells(column.to_pylist())
    for at, value in enumerate(cells.values):
        if value is None:
            continue
        try:
            cells.values[at] = value.decode()
        except UnicodeDecodeError as error:
            cells.values[at] = value[:200].decode("utf-8", "backslashreplace")
            cells.problems[at] = f"is not valid UTF-8 at byte {error.start}"
    return cells


def _instants(column: Any, unit: Any, suffix: str = "", start: int = 0, outside: str = _OUTSIDE) -> Cells:
    """Counts of a unit since 1970 as ISO 8601, from character `start` on."""
    counts = column.view(pa.int64()) if column.type.bit_width == 64 else column.view(pa.int32()).cast(pa.int64())
    there = column.is_valid().to_numpy(zero_copy_only=False)
    numbers = pc.fill_null(counts, 0).to_numpy(zero_copy_only=False)
    first, last = _bounds(unit) if not start else (0, 86_400 * _PER_SECOND[unit] - 1)
    fits = (numbers >= first) & (numbers <= last)
    texts = np.datetime_as_string(np.where(fits, numbers, 0).astype(f"datetime64[{unit}]"), unit=unit).tolist()
    cells = Cells([text[start:] + suffix if valid else None for text, valid in zip(texts, there, strict=True)])
    for at in np.flatnonzero(there & ~fits).tolist():
        cells.values[at], cells.problems[at] = f"{numbers[at]} {unit}", outside
    return cells


def _bounds(unit: str) -> tuple[int, int]:
    """The first and last count of the years 1 to 9999; the lowest of 64 bits is nobody's time."""
    if unit == "D":
        return _FIRST // 86_400, _LAST // 86_400 - 1
    most = 2**63 - 1
    return max(-most, _FIRST * _PER_SECOND[unit]), min(most, _LAST * _PER_SECOND[unit] - 1)


def timestamps(column: Any) -> Cells:
    """Moments, or wall clocks where there is no zone, with all digits of their unit."""
    return _instants(column, column.type.unit, "Z" if column.type.tz else "")


def times_of_day(column: Any) -> Cells:
    """Times of a day with all digits of their unit."""
    return _instants(column, column.type.unit, start=len("1970-01-01T"), outside="is no time of a day")


def dates(column: Any) -> Cells:
    """Days. date64 counts milliseconds, and may be none."""
    if types.is_date32(column.type):
        return _instants(column, "D")
    counts = column.view(pa.int64())
    days = pc.divide(counts, DAY_MS)
    cells = _instants(days.cast(pa.int32(), safe=False).view(pa.date32()), "D")
    for at, count in enumerate(counts.to_pylist()):
        if count is not None and (count % DAY_MS or not _FIRST * 1000 <= count < _LAST * 1000):
            cells.values[at] = f"{count} ms"
            cells.problems[at] = "is not at midnight" if count % DAY_MS else _OUTSIDE
    return cells


def uuids(column: Any) -> Cells:
    """UUIDs in their usual form."""
    values = column.storage.to_pylist()
    return Cells([None if value is None else str(uuid.UUID(bytes=value)) for value in values])


def booleans(column: Any) -> Cells:
    """Booleans that are kept as bytes."""
    return Cells([None if value is None else value != 0 for value in column.storage.to_pylist()])
