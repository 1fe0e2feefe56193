"""Rows of NDJSON and CSV as one event of NDJSON each, with their place in the file."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import orjson

from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import PermanentError

CHUNK = 2**20
LINE_MAX = 16 * 2**20  # the gateway's own bound is far lower; this one keeps a file without newlines out of memory
ARRAY_MAX = 512 * 2**20
_BOM = b"\xef\xbb\xbf"
_INTEGER = re.compile(r"-?[0-9]{1,18}\Z")
_JSON = orjson.OPT_NAIVE_UTC | orjson.OPT_NON_STR_KEYS


class Row(NamedTuple):
    """One event: its place in the file, counted from 1 in lines, rows or events, and its line of NDJSON.

    `problem` says why it cannot be sent; `data` is then what the file has.
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


def csv_rows(file: io.BufferedReader[Any], name: str, spec: StreamSpec | None) -> Iterator[Row]:
    """CSV with a header; an empty field is absent. Measures and a `ts` of digits become numbers, all else is text."""
    # What is not UTF-8 becomes surrogates, which cannot be written as JSON: such a row is refused, not the file.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    try:
        header = [column.strip() for column in next(reader, [])]
        if len(set(header)) < len(header) or not all(header):
            raise PermanentError(f"{name}, line 1: the header names a column twice or not at all.")
        measures = frozenset(spec.measures) if spec else frozenset()
        before = reader.line_num
        for fields in reader:
            number, before = before + 1, reader.line_num
            if len(fields) == len(header):
                yield _csv_row(number, header, fields, measures)
            elif fields:
                problem = f"{len(fields)} fields, the header has {len(header)}"
                yield Row(number, ",".join(fields).encode("utf-8", "surrogateescape"), problem)
    except csv.Error as error:
        raise PermanentError(f"{name}, line {reader.line_num}: not CSV: {error}.") from None
    finally:
        text.detach()


def _csv_row(number: int, header: list[str], fields: list[str], measures: frozenset[str]) -> Row:
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
