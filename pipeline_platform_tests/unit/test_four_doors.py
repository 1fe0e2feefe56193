"""The law of the doors: a table loads the same rows and rejects the same rows, whatever format it is written in.

Each door is the real reader of `ingest`; behind it are the gateway's checks and the worker's decoding and validation.
What CSV cannot say is not asked of it: it has no empty text, no types, and a line of nothing is no row.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline_platform.cli.files.csv_rows import csv_rows
from pipeline_platform.cli.files.event_rows import Row
from pipeline_platform.cli.files.json_rows import json_rows
from pipeline_platform.cli.files.parquet_rows import parquet_rows
from pipeline_platform.core.events import decode
from pipeline_platform.core.validation import validate
from pipeline_platform.gateway.ndjson import Bounds, Events, from_json, from_ndjson
from pipeline_platform.gateway.problems import ProblemError
from pipeline_platform_tests.unit.examples import NOW_MS, entry, stream

SPEC = stream("""
name: doors
dimensions: {source: {}, metric: {default: none, max_length: 40}}
measures:
  value: {negatives: keep}
  weight: {required: false, negatives: reject}
""")
BOUNDS = Bounds(10**7, 10**5, 1000, 10)
MOST = 2**63 - 1


@dataclass(frozen=True)
class Cell:
    """One typed value: for Arrow, in JSON, in CSV. None, None, "" is absent."""

    arrow: Any
    json: str | None
    csv: str


NOTHING = Cell(None, None, "")


@dataclass(frozen=True)
class Kind:
    """A type of column: values that are good, values that may be anything, and how a column is made of them."""

    good: st.SearchStrategy[Cell]
    odd: st.SearchStrategy[Cell]
    array: Callable[[list[Any]], Any]


def kind(
    type_: Any,
    json_: Callable[[Any], str],
    good: st.SearchStrategy[Any] | None,
    *odd: st.SearchStrategy[Any],
    storage: Any = None,
) -> Kind:
    """Values whose CSV is their JSON, without the quotes if it is text; `storage` is what Arrow keeps them as."""

    def cell(value: Any) -> Cell:
        text = json_(value)
        return Cell(value, text, json.loads(text) if text[0] == '"' else text)

    def array(column: list[Any]) -> Any:
        return pa.array(column, storage).view(type_) if storage else pa.array(column, type_)

    nothing = st.just(NOTHING)
    return Kind(
        good.map(cell) if good is not None else nothing, st.one_of(*(each.map(cell) for each in odd), nothing), array
    )


def whole(type_: Any, first: int, last: int) -> Kind:
    return kind(type_, str, st.integers(0, 100), st.sampled_from([first, last]), st.integers(first, last))


def decimals(type_: Any, good: st.SearchStrategy[int]) -> Kind:
    most, scale = 10**type_.precision - 1, type_.scale
    digits = st.sampled_from([most, -most, 0]) | st.integers(-most, most)
    return kind(
        type_,
        lambda value: f"{value:f}",
        good.map(lambda number: Decimal(number * 10**scale).scaleb(-scale)),
        digits.map(lambda number: Decimal(f"{number}E{-scale}")),
    )


def iso(count: int, unit: str) -> str:
    return str(np.array(count).astype(f"datetime64[{unit}]"))


def stamps(unit: str, zone: str | None) -> Kind:
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    now, most = NOW_MS * per // 1000, MOST // 1000 if unit == "s" else MOST  # a file has no seconds
    extremes = [-most, most, 18_446_744_073_709_551 + now, -62_135_596_800 * per - 1, 253_402_300_800 * per]
    return kind(
        pa.timestamp(unit, zone),
        lambda count: f'"{iso(count, unit)}{"Z" if zone else ""}"',
        st.integers(now - 86_400 * per, now) if zone else None,
        st.sampled_from([count for count in extremes if -most <= count <= most]),
        st.integers(now - 86_400 * per, now),
        storage=pa.int64(),
    )


WORDS = st.sampled_from(["a", "007", "1e5", "null", "true", "a,b", 'q"q', "two\nlines", "\r", " x ", "ü", "😀"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
NUL = st.sampled_from(["nul\0", "\0"])
TEXTS = [
    kind(pa.string(), json.dumps, WORDS, TEXT, NUL),
    kind(pa.large_string(), lambda text: json.dumps(text, ensure_ascii=False), WORDS, TEXT, NUL),
    kind(pa.dictionary(pa.int32(), pa.string()), json.dumps, WORDS, TEXT, NUL),
    kind(pa.binary(), lambda raw: json.dumps(raw.decode()), WORDS.map(str.encode), TEXT.map(str.encode)),
]
NUMBER = st.floats(-1e6, 1e6, width=32)
EXTREME = st.sampled_from([math.inf, -math.inf, math.nan, 1e100, 1.1e100, 1e-101, 5e-324, -0.0, 2.0**53 + 2, 0.1])
NO_NUMBERS = st.sampled_from(["high", "1_000", "0x10", "\u0661", "1 000", "- 1", "1e", "."])
NUMBERS = [
    kind(pa.float64(), json.dumps, NUMBER, EXTREME, st.floats()),
    kind(pa.float32(), json.dumps, NUMBER, st.floats(width=32)),
    kind(pa.float16(), lambda half: json.dumps(float(half)), st.integers(0, 9).map(np.float16),
         st.floats(width=16).map(np.float16)),
    whole(pa.int8(), -128, 127),
    whole(pa.int64(), -MOST - 1, MOST),
    whole(pa.uint64(), 0, 2**64 - 1),
    decimals(pa.decimal128(38, 0), st.integers(0, 9)),
    decimals(pa.decimal128(9, 4), st.integers(0, 9)),
    decimals(pa.decimal256(76, 30), st.integers(0, 9)),
    kind(pa.bool_(), json.dumps, None, st.booleans()),
    kind(pa.string(), json.dumps, None, NO_NUMBERS),
]  # fmt: skip
MILLIS = st.integers(NOW_MS - 86_400_000, NOW_MS)
FAR = st.sampled_from([0, -1, 253_402_300_800_000, MOST])
SPELLED = st.builds(
    "2025-11-21{}07:59:{}{}{}".format,
    st.sampled_from("Tt "),
    st.sampled_from(["00", "59", "60"]),
    st.sampled_from(["", ".5", ".123456", ".123456789", ".1234567891", ".9999999999999", "."]),
    st.sampled_from(["Z", "z", "+00:00", "-00:00", "+0530", "", " Z"]),
)
TIMES = [
    *(stamps(unit, zone) for unit, zone in (("s", "UTC"), ("ms", "UTC"), ("us", "Europe/Berlin"), ("ns", "UTC"))),
    stamps("ms", None),
    kind(pa.int64(), str, MILLIS, FAR),
    kind(pa.float64(), json.dumps, MILLIS.map(float), EXTREME, st.floats()),
    kind(pa.float64(), lambda value: f"{value:.15e}", MILLIS.map(float)),
    decimals(pa.decimal128(15, 2), MILLIS),
    kind(pa.date32(), lambda day: f'"{iso(day, "D")}"', None, st.integers(20_000, 20_400), storage=pa.int32()),
    kind(pa.string(), json.dumps, st.just("2025-11-21T07:00:00Z"), SPELLED),
]
KINDS = {"source": TEXTS, "metric": TEXTS, "event_id": TEXTS, "value": NUMBERS, "weight": NUMBERS, "ts": TIMES}


@dataclass(frozen=True)
class Table:
    """A table in its four forms; `like` is how the JSON array is laid out."""

    names: list[str]
    columns: list[list[Cell]]
    arrays: list[Any]
    layout: tuple[str, str, str]

    def __len__(self) -> int:
        return len(self.columns[0])

    def objects(self, line_break: str = "") -> list[str]:
        """The rows as JSON objects."""
        fields = [
            [f"{json.dumps(name)}: {cell.json}" for name, cell in zip(self.names, row, strict=True) if cell.json]
            for row in zip(*self.columns, strict=True)
        ]
        return ["{" + f",{line_break}".join(row) + "}" for row in fields]

    def array(self) -> bytes:
        """The JSON array."""
        before, between, line_break = self.layout
        return f"[{before}{between.join(self.objects(line_break))}]".encode()

    def csv(self) -> bytes:
        """The CSV."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerows([self.names, *([cell.csv for cell in row] for row in zip(*self.columns, strict=True))])
        return text.getvalue().encode()

    def parquet(self) -> io.BytesIO:
        """The Parquet file."""
        file = io.BytesIO()
        pq.write_table(pa.table(dict(zip(self.names, self.arrays, strict=True))), file, store_schema=len(self) % 2 == 0)
        file.seek(0)
        return file


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Tables of a few rows with columns of any kinds. In each row one value may be anything."""
    odd = draw(st.lists(st.sampled_from(list(KINDS)), min_size=4, max_size=9))
    columns, arrays = [], []
    for name, kinds in KINDS.items():
        chosen = draw(st.sampled_from(kinds[:-2] if name == "value" else kinds))
        columns.append([draw(chosen.odd if name == which else chosen.good) for which in odd])
        arrays.append(chosen.array([cell.arrow for cell in columns[-1]]))
    layout = draw(st.sampled_from([("", ",", ""), (" ", ", ", " "), ("\n  ", ",\n  ", "\n    ")]))
    return Table(list(KINDS), columns, arrays, layout)


def opened(data: bytes) -> Any:
    return io.BufferedReader(io.BytesIO(data))


DOORS: dict[str, Callable[[Table], Iterator[Row]]] = {
    "NDJSON": lambda table: json_rows(opened("\n".join(table.objects()).encode()), "x.ndjson"),
    "a JSON array": lambda table: json_rows(opened(table.array()), "x.json"),
    "CSV": lambda table: csv_rows(opened(table.csv()), "x.csv", SPEC),
    "Parquet": lambda table: parquet_rows(table.parquet(), "x.parquet", SPEC),
}
Loaded = dict[int, tuple[int, tuple[str, ...], tuple[float | None, ...]]]


def accepted(bodies: list[bytes], check: Callable[[bytes, Bounds], Events]) -> list[tuple[int, bytes]]:
    """The places and lines of the bodies that the gateway takes."""
    found = []
    for at, body in enumerate(bodies):
        with contextlib.suppress(ProblemError):
            found.append((at, check(body, BOUNDS).data))
    return found


def loaded(kept: list[tuple[int, bytes]]) -> Loaded:
    """What a run loads of these lines, each a request of its own, by their places in the table."""
    entries = [entry(line) for _, line in kept]
    columns = validate(decode(entries, SPEC), entries, SPEC).columns
    values = [columns.measures[name].tolist() for name in SPEC.measures]
    return {
        kept[number][0]: (
            int(columns.ts_us[row]),
            columns.series[columns.series_code[row]],
            tuple(None if column[row] != column[row] else column[row] for column in values),
        )
        for row, number in enumerate(columns.entry.tolist())
    }


def through(door: str, table: Table) -> Loaded:
    """What is loaded of the table when it comes in by a door."""
    rows = list(DOORS[door](table))
    assert len(rows) == len(table)
    return loaded(accepted([row.data if not row.problem else b"" for row in rows], from_ndjson))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables())
def test_every_door_loads_and_rejects_the_same_rows(table: Table) -> None:
    expected = through("NDJSON", table)
    for door in DOORS:
        assert through(door, table) == expected, door
    assert loaded(accepted([f"[{line}]".encode() for line in table.objects("\n")], from_json)) == expected, "POST"
