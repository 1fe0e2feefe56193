"""What becomes of the columns of a Parquet file: the table that decides for every Arrow type.

docs/formats.md is made from it, and so is nothing left to chance: a type that no line takes is refused by the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from pipeline_platform.cli.files.arrow_cells import (
    Cells,
    booleans,
    dates,
    decimals,
    floats,
    octets,
    plain,
    refused,
    texts,
    times_of_day,
    timestamps,
    uuids,
)

REFUSED = "refused: "
STORE_PLAINLY = "make it a number or a text"


@dataclass(frozen=True)
class Conversion:
    """What becomes of the types that `takes` takes: they are decoded into another type, converted, or else refused.

    `in_ts` are the words that refuse them as a time.
    """

    names: str
    becomes: str
    takes: Callable[[Any], bool]
    convert: Callable[[Any], Cells] | None = None
    in_ts: str = ""
    decode: Callable[[Any], Any] | None = None


def cells_of(of: Any, column: Any, *, within: bool = False) -> Cells:
    """The column of that Arrow field as JSON values; `within` another it is not the time of the event."""
    # Of an extension that pyarrow does not know only the storage is read, and its meaning is in the metadata.
    if unknown := (of.metadata or {}).get(b"ARROW:extension:name"):
        return refused(column, f"has the extension type {unknown.decode(errors='replace')}; {STORE_PLAINLY}")
    return _cells(column, is_ts=of.name == "ts" and not within)


def _cells(column: Any, *, is_ts: bool) -> Cells:
    found = conversion_of(column.type)
    if found.decode:
        return _cells(found.decode(column), is_ts=is_ts)
    if found.convert is None:
        return refused(column, found.becomes.removeprefix(REFUSED))
    return refused(column, found.in_ts) if is_ts and found.in_ts else found.convert(column)


def conversion_of(kind: Any) -> Conversion:
    """The row of the table that decides about a type."""
    return next(each for each in CONVERSIONS if each.takes(kind))


def _lists(column: Any) -> Cells:
    """Lists of whatever; a refused member refuses its list."""
    inner = cells_of(column.type.value_field, column.flatten(), within=True)
    cells, at = Cells([]), 0
    for row, length in enumerate(pc.list_value_length(column).to_pylist()):
        if length is None:
            cells.values.append(None)
            continue
        cells.values.append(inner.values[at : at + length])
        if inner.problems and (bad := [place for place in range(at, at + length) if place in inner.problems]):
            cells.problems[row] = f"[{bad[0] - at}] {inner.problems[bad[0]]}"
        at += length
    return cells


def _structs(column: Any) -> Cells:
    names = [each.name for each in column.type]
    if len(set(names)) < len(names):
        return refused(column, "has two members of the same name")
    parts = [cells_of(of, part, within=True) for of, part in zip(column.type, column.flatten(), strict=True)]
    rows = zip(*(part.values for part in parts), strict=True) if parts else iter([()] * len(column))
    there = column.is_valid().to_pylist()
    values = [dict(zip(names, row, strict=True)) if valid else None for row, valid in zip(rows, there, strict=True)]
    cells = Cells(values)
    for name, part in zip(names, parts, strict=True):
        for row, words in part.problems.items():
            cells.problems.setdefault(row, f".{name} {words}")
    return cells


def _extension(name: str) -> Callable[[Any], bool]:
    return lambda kind: isinstance(kind, pa.BaseExtensionType) and kind.extension_name == name


def _any_of(*checks: str) -> Callable[[Any], bool]:
    """Whether pyarrow.types says one of these; an older pyarrow does not know the newest types."""
    known = [getattr(types, check) for check in checks if hasattr(types, check)]
    return lambda kind: not isinstance(kind, pa.BaseExtensionType) and any(check(kind) for check in known)


_NO_ZONE = "has no time zone, and so tells no moment; give the column its zone (pandas: .dt.tz_localize('UTC'))"
_NO_TIME = "is no moment: a time has a day, a time of day and a zone"

CONVERSIONS: tuple[Conversion, ...] = (
    Conversion("null", "nothing: the field is absent", _any_of("is_null"), plain),
    Conversion("bool", "`true` or `false`", _any_of("is_boolean"), plain),
    Conversion("int8 to int64, uint8 to uint64", "a number, all digits", _any_of("is_integer"), plain),
    Conversion(
        "halffloat, float, double",
        "a number, the same one; NaN and infinity are refused",
        _any_of("is_floating"),
        floats,
    ),
    Conversion("decimal32 to decimal256", "a number, all digits", _any_of("is_decimal"), decimals),
    Conversion(
        "string, large_string, string_view",
        "text; what is not UTF-8 is refused",
        _any_of("is_string", "is_large_string", "is_string_view"),
        texts,
    ),
    Conversion(
        "binary, large_binary, binary_view, fixed_size_binary",
        "text; what is not UTF-8 is refused",
        _any_of("is_binary", "is_large_binary", "is_binary_view", "is_fixed_size_binary"),
        octets,
    ),
    Conversion(
        "timestamp with a zone, of any unit",
        "text, RFC 3339 in UTC with all digits; other years than 1 to 9999 are refused",
        lambda kind: types.is_timestamp(kind) and kind.tz is not None,
        timestamps,
    ),
    Conversion(
        "timestamp without a zone, of any unit",
        "text, ISO 8601 with all digits; other years than 1 to 9999 are refused",
        _any_of("is_timestamp"),
        timestamps,
        _NO_ZONE,
    ),
    Conversion(
        "date32, date64",
        "text, such as `2026-11-27`; other years than 1 to 9999, and a date64 that is not at midnight, are refused",
        _any_of("is_date"),
        dates,
        _NO_TIME,
    ),
    Conversion(
        "time32, time64",
        "text, such as `08:00:00.250`, with all digits of the unit",
        _any_of("is_time"),
        times_of_day,
        _NO_TIME,
    ),
    Conversion(
        "dictionary of any of these",
        "what its values become",
        _any_of("is_dictionary"),
        decode=lambda column: column.dictionary.take(column.indices),
    ),
    Conversion(
        "run_end_encoded of any of these",
        "what its values become",
        _any_of("is_run_end_encoded"),
        decode=pc.run_end_decode,
    ),
    Conversion(
        "list, large_list, fixed_size_list, list_view, large_list_view",
        "an array of what its values become; a member that is refused refuses it",
        _any_of("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view"),
        _lists,
        _NO_TIME,
    ),
    Conversion(
        "struct",
        "an object of what its members become; a member that is refused refuses it",
        _any_of("is_struct"),
        _structs,
        _NO_TIME,
    ),
    Conversion("extension arrow.uuid", "text, such as `0197a3c4-...`", _extension("arrow.uuid"), uuids, _NO_TIME),
    Conversion("extension arrow.bool8", "`true` or `false`", _extension("arrow.bool8"), booleans),
    Conversion("extension arrow.json", "text", _extension("arrow.json"), decode=lambda column: column.storage),
    Conversion("duration", "refused: is a duration; make it a number of a unit of your choice", _any_of("is_duration")),
    Conversion(
        "month_interval, day_time_interval, month_day_nano_interval",
        "refused: is an interval; make it a number or a text",
        _any_of("is_interval"),
    ),
    Conversion("map", "refused: is a map; make it a struct, or a column of its own for each key", _any_of("is_map")),
    Conversion(
        "any other type, extensions too",
        "refused: has a type that JSON has nothing for; make it a number or a text",
        bool,
    ),
)
