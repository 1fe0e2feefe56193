"""NDJSON bytes -> columns.

The fast way decodes many entries at once with pyarrow's JSON reader. What it refuses is halved until the lines that
are to blame stand nearly alone, and only those are decoded one by one: a bad line costs one line. Both ways mean the
same by construction of `_decode_lines` (a property test holds them together): `null` is an absent field. Only what
stands in a field that the stream ignores goes unread the fast way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from pipeline_platform.core.entries import Entry
from pipeline_platform.core.rejections import Int32s, Problem, Reason, RejectionList, Rejections
from pipeline_platform.core.streams import StreamSpec

CHUNK_BYTES = 8 * 2**20
FEW_LINES = 128  # a refused read costs as much as decoding about this many lines one by one
NO_TS = np.iinfo(np.int64).min

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TextColumn:
    """A dictionary-encoded text column: `values[codes[i]]`, code -1 where the event has no such field."""

    codes: Int32s
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Well-formed, well-typed events, a row each, and the lines that were not.

    `ts_us` is NO_TS where the event has none; a measure is NaN where the event has none (JSON cannot say NaN).
    """

    entry: Int32s
    line: Int32s
    ts_us: Int64s
    dimensions: dict[str, TextColumn]
    measures: dict[str, Float64s]
    rejections: Rejections

    def __len__(self) -> int:
        return len(self.entry)


MALFORMED = Problem(Reason.MALFORMED, "", "the line is not a JSON object")
NOT_UTF8 = Problem(Reason.MALFORMED, "", "the line is not valid UTF-8")
TEXT = "has to be text"
NUMBER = "has to be a number"
TIME = "has to be an RFC 3339 time with an offset, or epoch milliseconds as a whole number"


def unknown_field(name: str) -> Problem:
    """The problem of a field that the stream does not declare."""
    shown = (name if len(name) <= 80 else name[:77] + "...").replace("\0", "\\u0000")  # PostgreSQL's text has no NUL
    return Problem(Reason.UNKNOWN_FIELD, shown, "the stream declares no such field")


def bad_type(name: str, wanted: str) -> Problem:
    """The problem of a field whose JSON type is wrong."""
    return Problem(Reason.BAD_TYPE, name, wanted)


def decode(entries: Sequence[Entry], spec: StreamSpec) -> Decoded:
    """All events of `entries` as columns; the lines that cannot be decoded as rejections."""
    decoder = _Decoder(spec)
    start = 0
    while start < len(entries):
        end, size = start, 0
        while end < len(entries) and (end == start or size + len(entries[end].data) <= CHUNK_BYTES):
            size += len(entries[end].data)
            end += 1
        decoder.decode(entries, start, end)
        start = end
    return decoder.finish()


def lines_of(data: bytes) -> list[bytes]:
    """The lines of an entry's data; line i of the entry is event i of the request."""
    return data.removesuffix(b"\n").split(b"\n")


class _Decoder:
    def __init__(self, spec: StreamSpec) -> None:
        self._fields = spec.fields
        self._dimensions = tuple(spec.dimensions)
        self._measures = tuple(spec.measures)
        fields = [(name, pa.string()) for name in (*self._dimensions, "event_id")]
        fields += [(name, pa.float64()) for name in self._measures]
        self._schemas = {kind: pa.schema([*fields, ("ts", kind)]) for kind in (pa.string(), pa.int64())}
        self._ts_kinds = [pa.string(), pa.int64()]
        self._ignore_unknown = spec.policies.unknown_fields == "ignore"
        self._rejections = RejectionList()
        self._parts: list[tuple[Int32s, Int32s, Int64s]] = []
        self._texts: dict[str, list[pa.DictionaryArray]] = {name: [] for name in self._dimensions}
        self._numbers: dict[str, list[Float64s]] = {name: [] for name in self._measures}

    def decode(self, entries: Sequence[Entry], start: int, end: int) -> None:
        """Decodes entries[start:end], halving what the columnar reader refuses."""
        chunk = entries[start:end]
        rows = sum(entry.count for entry in chunk)
        table = self._read(b"".join(_with_newline(entry.data) for entry in chunk), rows)
        if table is not None:
            counts = np.fromiter((entry.count for entry in chunk), np.int64, len(chunk))
            index = np.repeat(np.arange(start, end, dtype=np.int32), counts)
            firsts = np.repeat(np.cumsum(counts) - counts, counts)
            self._take(table, index, (np.arange(rows, dtype=np.int64) - firsts).astype(np.int32))
        elif rows <= FEW_LINES:
            for number, entry in enumerate(chunk, start):
                self._decode_lines(number, lines_of(entry.data), 0)
        elif end - start > 1:
            middle = (start + end) // 2
            self.decode(entries, start, middle)
            self.decode(entries, middle, end)
        else:
            self._decode_entry(start, lines_of(entries[start].data), 0)

    def _decode_entry(self, entry: int, lines: list[bytes], first: int) -> None:
        """Decodes lines of one entry that the reader refused as a whole."""
        if len(lines) <= FEW_LINES:
            self._decode_lines(entry, lines, first)
            return
        middle = len(lines) // 2
        for half, at in ((lines[:middle], first), (lines[middle:], first + middle)):
            table = self._read(b"\n".join(half) + b"\n", len(half))
            if table is None:
                self._decode_entry(entry, half, at)
            else:
                self._take(table, np.full(len(half), entry, np.int32), np.arange(at, at + len(half), dtype=np.int32))

    def _read(self, data: bytes, rows: int) -> pa.Table | None:
        """The data as a table of exactly `rows` rows, or None when a line needs a closer look.

        An unknown field is such a closer look: inferring its type would crash on deep nesting and make a column of
        every field name that a client can think of.
        """
        if not _is_object_a_line(data, rows):
            return None
        if not data.isascii():
            try:
                data.decode("utf-8")
            except UnicodeDecodeError:
                return None
        for kind in tuple(self._ts_kinds):
            try:
                table = pj.read_json(
                    pa.BufferReader(data),
                    read_options=pj.ReadOptions(block_size=max(len(data), 1024) + 1, use_threads=False),
                    parse_options=pj.ParseOptions(
                        explicit_schema=self._schemas[kind],
                        unexpected_field_behavior="ignore" if self._ignore_unknown else "error",
                    ),
                )
            except pa.ArrowException:
                continue
            if self._ts_kinds[0] != kind:
                self._ts_kinds.reverse()
            finite = all(pc.all(pc.is_finite(table[name])).as_py() is not False for name in self._measures)
            # The reader takes NaN and Infinity, JSON does not.
            return table if finite and table.num_rows == rows else None
        return None

    def _take(self, table: pa.Table, entry: Int32s, line: Int32s) -> None:
        """Adds a table's rows; those with an unreadable time are rejected."""
        ts, unreadable = _times(table["ts"].combine_chunks())
        self._rejections.add_many(entry[unreadable], line[unreadable], bad_type("ts", TIME))
        keep = ~unreadable if unreadable.any() else None
        self._parts.append((entry, line, ts) if keep is None else (entry[keep], line[keep], ts[keep]))
        for name in self._dimensions:
            column = table[name].combine_chunks()
            column = column if keep is None else column.filter(pa.array(keep))
            self._texts[name].append(column.dictionary_encode())
        for name in self._measures:
            numbers = table[name].combine_chunks().to_numpy(zero_copy_only=False)
            self._numbers[name].append(numbers if keep is None else numbers[keep])

    def _decode_lines(self, entry: int, lines: list[bytes], first: int) -> None:
        """The slow way: a line at a time."""
        rows: list[dict[str, Any]] = []
        numbers: list[int] = []
        for number, raw in enumerate(lines, first):
            event = _loads(raw)
            problem = event if isinstance(event, Problem) else self._check(event)
            if problem is not None:
                self._rejections.add(entry, number, problem)
            elif isinstance(event, dict):
                rows.append(event)
                numbers.append(number)
        ts, unreadable = _moments([row.get("ts") for row in rows])
        for at in np.flatnonzero(unreadable)[::-1].tolist():
            self._rejections.add(entry, numbers.pop(at), bad_type("ts", TIME))
            rows.pop(at)
        if not rows:
            return
        ts = ts[~unreadable]
        self._parts.append((np.full(len(rows), entry, np.int32), np.array(numbers, np.int32), ts))
        for name in self._dimensions:
            column = pa.array([row.get(name) for row in rows], pa.string())
            self._texts[name].append(column.dictionary_encode())
        for name in self._measures:
            values = [row.get(name) for row in rows]
            self._numbers[name].append(np.array([np.nan if v is None else float(v) for v in values], np.float64))

    def _check(self, event: dict[str, Any]) -> Problem | None:
        """The first problem that the columnar reader would have stumbled over, or None. The time is not looked at."""
        if not self._ignore_unknown:
            for name, value in event.items():
                if name not in self._fields and value is not None:
                    return unknown_field(name)
        for name in (*self._dimensions, "event_id"):
            if not isinstance(event.get(name), str | None):
                return bad_type(name, TEXT)
        for name in self._measures:
            value = event.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                return bad_type(name, NUMBER)
        return None

    def finish(self) -> Decoded:
        """All parts put together; one dictionary a dimension."""
        none32, none64 = np.empty(0, np.int32), np.empty(0, np.int64)
        return Decoded(
            entry=np.concatenate([part[0] for part in self._parts] or [none32]),
            line=np.concatenate([part[1] for part in self._parts] or [none32]),
            ts_us=np.concatenate([part[2] for part in self._parts] or [none64]),
            dimensions={name: _text_column(parts) for name, parts in self._texts.items()},
            measures={
                name: np.concatenate(parts) if parts else np.empty(0, np.float64)
                for name, parts in self._numbers.items()
            },
            rejections=self._rejections.freeze(),
        )


def _with_newline(data: bytes) -> bytes:
    return data if data.endswith(b"\n") else data + b"\n"


def _is_object_a_line(data: bytes, rows: int) -> bool:
    """Whether there are `rows` lines and each begins with { and ends with }.

    The reader does not mind two objects on a line, one on two lines or blank lines, any of which would give rows to the
    wrong lines, and a line `null` crashes it. Between } and { no JSON value goes on, so a line holds whole objects;
    where there are then as many rows as lines, each line holds one.
    """
    bytes_ = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(bytes_ == ord("\n"))
    if not rows or len(ends) != rows or ends[0] == 0:
        return False
    opened = bytes_[0] == ord("{") and (bytes_[ends[:-1] + 1] == ord("{")).all()
    return bool(opened and (bytes_[ends - 1] == ord("}")).all())


def _text_column(parts: list[pa.DictionaryArray]) -> TextColumn:
    if not parts:
        return TextColumn(np.empty(0, np.int32), ())
    column = pa.chunked_array(parts).unify_dictionaries()
    codes = [pc.fill_null(part.indices, -1).to_numpy(zero_copy_only=False) for part in column.chunks]
    return TextColumn(np.concatenate(codes).astype(np.int32, copy=False), tuple(column.chunk(0).dictionary.to_pylist()))


def _times(column: pa.Array) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    """Epoch microseconds of a text or millisecond column, and which rows are unreadable."""
    absent = np.asarray(column.is_null().to_numpy(zero_copy_only=False), dtype=bool)
    if pa.types.is_integer(column.type):
        millis = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
        wild = (millis > _MAX_MS) | (millis < -_MAX_MS)
        micros = np.where(wild, 0, millis) * 1000
        micros[absent] = NO_TS
        return micros, wild
    for unit, divisor in (("us", 1), ("ns", 1000)):
        try:
            stamps = column.cast(pa.timestamp(unit, "UTC"))
        except pa.ArrowException:
            continue
        micros = np.floor_divide(pc.fill_null(stamps.cast(pa.int64()), 0).to_numpy(zero_copy_only=False), divisor)
        micros[absent] = NO_TS
        return micros, np.zeros(len(micros), bool)
    if len(column) == 1:
        return np.array([NO_TS], np.int64), np.ones(1, bool)
    halves = [_times(half) for half in (column[: len(column) // 2], column[len(column) // 2 :])]
    return np.concatenate([half[0] for half in halves]), np.concatenate([half[1] for half in halves])


_MAX_MS = 253_402_300_799_999  # the end of the year 9999


def _moments(values: list[object]) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    """`_times` of JSON values of any type."""
    micros, unreadable = _times(pa.array([value if isinstance(value, str) else None for value in values], pa.string()))
    for at, value in enumerate(values):
        if value is None or isinstance(value, str):
            continue
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MAX_MS:
            micros[at] = value * 1000
        else:
            unreadable[at] = True
    return micros, unreadable


def _loads(raw: bytes) -> dict[str, Any] | Problem:
    try:
        event = orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            return NOT_UTF8
        return MALFORMED
    return event if isinstance(event, dict) else MALFORMED
