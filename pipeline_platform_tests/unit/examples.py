"""Streams and entries that the unit tests speak about."""

from __future__ import annotations

from typing import Any

import orjson

from pipeline_platform.core.entries import Entry, EntryId
from pipeline_platform.core.events import Decoded, TextColumn
from pipeline_platform.core.rejections import Problem, Rejections
from pipeline_platform.core.streams import StreamSpec, parse_spec
from pipeline_platform.core.times import NO_TS

NOW_MS = 1_763_712_000_000
NOW_US = NOW_MS * 1000
MINIMAL = "name: minimal\ndimensions: [source]\nmeasures: [value]\n"
BOTH = """
name: twofold
dimensions: [source, metric]
measures:
  value:
  weight: {required: false}
"""

Row = tuple[int, int, int | None, tuple[str | None, ...], tuple[float | None, ...]]


def stream(text: str = BOTH, **policies: Any) -> StreamSpec:
    """The spec of `text`, with some policies replaced."""
    spec = parse_spec(text, "stream.yaml")
    return spec.model_copy(update={"policies": spec.policies.model_copy(update=policies)})


def entry(*lines: bytes, number: int = 0) -> Entry:
    """An entry of raw lines, made durable at NOW_MS + number."""
    return Entry(EntryId(NOW_MS + number, 0), len(lines), b"\n".join(lines) + b"\n")


def event(**fields: Any) -> bytes:
    """A good event of BOTH or MINIMAL, with some fields replaced; `...` leaves a field out."""
    whole = {"source": "s1", "metric": "m1", "value": 1.5} | fields
    return orjson.dumps({name: value for name, value in whole.items() if value is not ...})


def text_of(column: TextColumn, row: int) -> str | None:
    """One cell of a text column."""
    code = int(column.codes[row])
    return None if code < 0 else column.values[code]


def rows(decoded: Decoded) -> list[Row]:
    """The decoded events as tuples: entry, line, ts in microseconds, texts, numbers."""
    return [
        (
            int(decoded.entry[row]),
            int(decoded.line[row]),
            None if decoded.ts_us[row] == NO_TS else int(decoded.ts_us[row]),
            tuple(text_of(column, row) for column in decoded.dimensions.values()),
            tuple(None if (n := float(values[row])) != n else n for values in decoded.measures.values()),
        )
        for row in range(len(decoded))
    ]


def rejected(rejections: Rejections) -> list[tuple[int, int, Problem]]:
    """The rejections as tuples: entry, line, problem."""
    return [
        (int(at), int(line), rejections.problems[int(kind)])
        for at, line, kind in zip(rejections.entry, rejections.line, rejections.kind, strict=True)
    ]


# Cursors of sensors as people leave them in the Dagster UI, and as no sensor writes them.
EDITED_CURSORS = (
    "not ours",
    "5",
    "null",
    "[[1]]",
    "[" * 100_000,
    "2026-01-01T00:00:00",
    "9999-01-01T00:00:00+00:00",
    '{"tokens": NaN, "at": 0}',
    '{"tokens": -1e308, "at": 1e308}',
    '{"asked": "9999-01-01T00:00:00+00:00", "missed": ""}',
    '{"rollup_sensor_readings_1h": {"tokens": "many"}}',
)
