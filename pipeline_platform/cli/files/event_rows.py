"""A row of a file as one event of NDJSON, with its place in the file; and a row of CSV as such."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from pipeline_platform.core.numbers import as_json

CHUNK = 2**20
LINE_MAX = 16 * 2**20  # the gateway's own bound is far lower; this one keeps a file without newlines out of memory


class Row(NamedTuple):
    """One event: its place in the file, counted from 1 in lines, rows or events, and its line of NDJSON.

    A row that cannot be read is handed on like any other, and the reader goes on with the next: `problem` then says
    why, such as `value: 1e400 is no finite number`, and `data` is what the file has, for FILE.rejected. Without
    --skip-bad the upload stops there and names it; with it the row is left out and counts as one that was rejected.
    """

    number: int
    data: bytes
    problem: str = ""
    unit: str = "line"


def csv_row(number: int, header: list[str], fields: list[str], measures: frozenset[str]) -> Row:
    """One row of CSV: an empty field is absent. Measures and a `ts` that say a number are one, all else is text."""
    event: dict[str, Any] = {}
    for column, field in zip(header, fields, strict=True):
        if field == "":
            continue
        # Digit by digit, so that the platform sees what the file has; what says no number stays text, and is refused.
        said = as_json(field) if column in measures or column == "ts" else None
        event[column] = field if said is None else orjson.Fragment(said)
    try:
        return Row(number, orjson.dumps(event))
    except orjson.JSONEncodeError:
        odd = next(column for column, field in zip(header, fields, strict=True) if not _is_text(column + field))
        raw = ",".join(fields).encode("utf-8", "surrogateescape")
        return Row(number, raw, f"{odd.encode('utf-8', 'backslashreplace').decode()}: not valid UTF-8")


def _is_text(text: str) -> bool:
    """Whether it is UTF-8: what is none became surrogates."""
    return not any("\ud800" <= sign <= "\udfff" for sign in text)
