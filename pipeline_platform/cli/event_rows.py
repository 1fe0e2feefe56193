"""Rows of CSV as one event of NDJSON each, with their place in the file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from pipeline_platform.core.numbers import as_json
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import PermanentError

CHUNK = 2**20
LINE_MAX = 16 * 2**20  # the gateway's own bound is far lower; this one keeps a file without newlines out of memory


class Row(NamedTuple):
    """One event: its place in the file, counted from 1 in lines, rows or events, and its line of NDJSON.

    `problem` says why it cannot be sent; `data` is then what the file has.
    """

    number: int
    data: bytes
    problem: str = ""
    unit: str = "line"


def csv_rows(file: io.BufferedReader[Any], name: str, spec: StreamSpec | None) -> Iterator[Row]:
    """CSV with a header; an empty field is absent. Measures and a `ts` that say a number are one, all else is text."""
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
        # Digit by digit, so that the platform sees what the file has; what says no number stays text, and is refused.
        said = as_json(field) if column in measures or column == "ts" else None
        event[column] = field if said is None else orjson.Fragment(said)
    try:
        return Row(number, orjson.dumps(event))
    except orjson.JSONEncodeError:
        return Row(number, ",".join(fields).encode("utf-8", "surrogateescape"), "not valid UTF-8")
