"""Rows of NDJSON, JSON and CSV as one event of NDJSON each, with their place in the file."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import orjson

from pipeline_platform.errors import PermanentError

CHUNK = 2**20
LINE_MAX = 16 * 2**20  # the gateway's own bound is far lower; this one keeps a file without newlines out of memory
ARRAY_MAX = 512 * 2**20
_BOM = b"\xef\xbb\xbf"
_INTEGER = re.compile(r"-?[0-9]{1,18}\Z")
_JSON = orjson.OPT_NAIVE_UTC | orjson.OPT_NON_STR_KEYS


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


def json_rows(file: io.BufferedReader[Any], name: str) -> Iterator[Row]:
    """The lines of NDJSON, or the elements of a JSON array; blank lines are skipped."""
    head = file.peek(64).removeprefix(_BOM).lstrip()
    if head[:1] == b"[":
        yield from _array(file, name)
        return
    number, tail = 0, b""
    while chunk := file.read1(CHUNK):
        if number == 0 and not tail:
            chunk = chunk.removeprefix(_BOM)
        lines = (tail + chunk).split(b"\n")
        tail = lines.pop()
        if len(tail) > LINE_MAX:
            raise PermanentError(f"{name}, line {number + len(lines) + 1}: longer than {LINE_MAX // 2**20} MiB.")
        for line in lines:
            number += 1
            if event := line.strip(b" \t\r"):
                yield Row(number, event)
    if event := tail.strip(b" \t\r"):
        yield Row(number + 1, event)


def _array(file: IO[bytes], name: str) -> Iterator[Row]:
    text = file.read(ARRAY_MAX + 1)
    if len(text) > ARRAY_MAX:
        raise PermanentError(f"{name} is one JSON array of more than {ARRAY_MAX // 2**20} MiB; make it NDJSON.")
    try:
        events = orjson.loads(text.removeprefix(_BOM))
    except orjson.JSONDecodeError as error:
        raise PermanentError(f"{name}, line {error.lineno}: not JSON: {error.msg}.") from None
    for number, event in enumerate(events, 1):
        yield Row(number, orjson.dumps(event), unit="event")


def csv_row(number: int, header: list[str], fields: list[str], measures: frozenset[str]) -> Row:
    """One line of CSV: an empty field is absent; measures and a `ts` of digits become numbers, all else is text."""
    event: dict[str, Any] = {}
    for column, field in zip(header, fields, strict=True):
        if field == "":
            continue
        if column in measures:
            event[column] = _number(field)
        elif column == "ts" and _INTEGER.match(field):
            event[column] = int(field)
        else:
            event[column] = field
    try:
        return Row(number, orjson.dumps(event))
    except orjson.JSONEncodeError:
        return Row(number, ",".join(fields).encode("utf-8", "surrogateescape"), "not valid UTF-8")


def _number(field: str) -> int | float | str:
    """The number that a text says; what says none stays text, so that the platform can refuse it by name."""
    text = field.strip()
    if _INTEGER.match(text):
        return int(text)
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        return field
    return value if math.isfinite(value) else field
