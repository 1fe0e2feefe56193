"""A page of rows as JSON, CSV or an Arrow IPC stream."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa

from pipeline_platform.core.spreadsheets import harmless
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.warehouse.queries import AggregatePage

ARROW = "application/vnd.apache.arrow.stream"
_LINES = 1000


def as_json(page: AggregatePage, next_cursor: str | None) -> bytes:
    """`{"data": [{column: value}], "next_cursor": ...}`, times as RFC 3339 in UTC."""
    rows = [dict(zip(page.columns, row, strict=True)) for row in page.rows]
    return orjson.dumps({"data": rows, "next_cursor": next_cursor}, option=orjson.OPT_UTC_Z)


def as_csv(page: AggregatePage, *, spreadsheet: bool = False) -> Iterator[bytes]:
    """A header and the rows (RFC 4180), some at a time; an absent value is empty.

    With `spreadsheet`, what begins like a formula has an apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(page.columns)
    for at in range(0, max(len(page.rows), 1), _LINES):
        for row in page.rows[at : at + _LINES]:
            cells = map(harmless, row[1:]) if spreadsheet else row[1:]
            writer.writerow((row[0].isoformat().replace("+00:00", "Z"), *cells))
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()


def as_arrow(page: AggregatePage, spec: StreamSpec) -> bytes:
    """An Arrow IPC stream; its schema follows from the spec alone, so that empty pages have it too."""
    schema = pa.schema([(name, _type(name, spec)) for name in page.columns])
    columns: list[Any] = list(zip(*page.rows, strict=True)) if page.rows else [() for _ in page.columns]
    arrays = [pa.array(values, kind) for values, kind in zip(columns, schema.types, strict=True)]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    return bytes(sink.getvalue())


def _type(name: str, spec: StreamSpec) -> Any:
    if name == "window_start":
        return pa.timestamp("us", "UTC")
    if name in spec.dimensions:
        return pa.string()
    return pa.int64() if name == "events" or name.endswith("_count") else pa.float64()
