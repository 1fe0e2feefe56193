"""NDJSON bytes -> columns.

The fast way decodes many entries at once with pyarrow's JSON reader. The lines that it stumbles over are set aside
and decoded one by one, and the rest is read again without them: a bad line costs one line. A property test holds both
ways together: `null` is an absent field. Only what stands in a field that the stream ignores goes unread the fast way.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from pipeline_platform.core.entries import Entry
from pipeline_platform.core.lines import NEWLINE, Bools, join, lines_of, no_object, with_newline
from pipeline_platform.core.rejections import Int32s, Problem, Reason, RejectionList, Rejections
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.times import Int64s, is_leap_second, leap_seconds, moments, times

CHUNK_BYTES = 8 * 2**20
READERS = 2
FEW_STUMBLES = 64
SEGMENT_ROWS = 512

Float64s = npt.NDArray[np.float64]

_QUOTE = ord('"')
_ROW = re.compile(r"in row (\d+)")


@dataclass(frozen=True, slots=True)
class TextColumn:
    """A dictionary-encoded text column: `values[codes[i]]`, code -1 where the event has no such field."""

    codes: Int32s
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Well-formed, well-typed events, a row each, and the lines that were not.

    `ts_us` is NO_TS where the event has none; a measure is NaN where the event has none (JSON cannot say NaN).
    `event_ids` is Arrow text, null where the event has none; None in a stream that does not ask for them.
    """

    entry: Int32s
    line: Int32s
    ts_us: Int64s
    dimensions: dict[str, TextColumn]
    measures: dict[str, Float64s]
    rejections: Rejections
    event_ids: pa.Array | None = None

    def __len__(self) -> int:
        return len(self.entry)


MALFORMED = Problem(Reason.MALFORMED, "", "the line is not a JSON object")
NOT_UTF8 = Problem(Reason.MALFORMED, "", "the line is not valid UTF-8")
TEXT = "has to be text"
NUMBER = "has to be a number"
TIME = "has to be an RFC 3339 time with an offset, or epoch milliseconds as a whole number"
LEAP = "has 60 for its seconds: a leap second, which epoch time has no room for; write 59, or the next minute"


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
    chunks = _chunks(entries)
    if len(chunks) < 2:
        for start, end in chunks:
            decoder.decode(entries, start, end)
        return decoder.finish()
    with ThreadPoolExecutor(READERS) as pool:  # pyarrow's reader lets go of the GIL
        ahead: deque[Future[_Chunk]] = deque()
        coming = iter(chunks)
        for start, end in chunks:
            while len(ahead) <= READERS and (following := next(coming, None)):
                ahead.append(pool.submit(decoder.read, entries, *following))
            decoder.decode(entries, start, end, ahead.popleft().result())
    return decoder.finish()


def _chunks(entries: Sequence[Entry]) -> list[tuple[int, int]]:
    """Ranges of entries of about CHUNK_BYTES each."""
    chunks = []
    start = 0
    while start < len(entries):
        end, size = start, 0
        while end < len(entries) and (end == start or size + len(entries[end].data) <= CHUNK_BYTES):
            size += len(entries[end].data)
            end += 1
        chunks.append((start, end))
        start = end
    return chunks


class _MixedTimes(Exception):
    """Some entries have their times as text and others as numbers."""


class _TooManyOdd(Exception):
    """Looking for the odd lines would cost more than decoding all of them one by one."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Some entries' data as read: the lines that are no object, and the table unless a line needs a closer look."""

    data: bytes
    odd: Bools | None
    table: pa.Table | None


class _Decoder:
    def __init__(self, spec: StreamSpec) -> None:
        self._fields = spec.fields
        self._dimensions = tuple(spec.dimensions)
        self._measures = tuple(spec.measures)
        fields = [(name, pa.string()) for name in (*self._dimensions, "event_id")]
        fields += [(name, pa.float64()) for name in self._measures]
        self._ts_kinds = [pa.string(), pa.float64()]
        self._schemas = {kind: pa.schema([*fields, ("ts", kind)]) for kind in self._ts_kinds}
        self._ignore_unknown = spec.policies.unknown_fields == "ignore"
        self._rejections = RejectionList()
        self._parts: list[tuple[Int32s, Int32s, Int64s]] = []
        self._texts: dict[str, list[pa.DictionaryArray]] = {name: [] for name in self._dimensions}
        self._numbers: dict[str, list[Float64s]] = {name: [] for name in self._measures}
        self._event_ids: list[pa.Array] | None = [] if spec.unique_event_id else None

    def read(self, entries: Sequence[Entry], start: int, end: int) -> _Chunk:
        """Reads entries[start:end] in one go; nothing of the decoder changes, so it may run beside `decode`."""
        data = b"".join(with_newline(entry.data) for entry in entries[start:end])
        rows = sum(entry.count for entry in entries[start:end])
        odd = no_object(data, rows)
        clean = odd is not None and not odd.any()
        return _Chunk(data, odd, self._read(data, rows) if clean else None)

    def decode(self, entries: Sequence[Entry], start: int, end: int, chunk: _Chunk | None = None) -> None:
        """Decodes entries[start:end]: what the columnar reader takes at once, the odd lines one by one."""
        chunk = chunk or self.read(entries, start, end)
        data, odd = chunk.data, chunk.odd
        if odd is None:  # an entry has not as many lines as it says
            self._halve(entries, start, end)
            return
        counts = np.fromiter((entry.count for entry in entries[start:end]), np.int64, end - start)
        entry = np.repeat(np.arange(start, end, dtype=np.int32), counts)
        line = (np.arange(len(entry)) - np.repeat(np.cumsum(counts) - counts, counts)).astype(np.int32)
        if chunk.table is not None:
            self._take(chunk.table, entry, line)
            return
        lines = lines_of(data)
        rest = np.flatnonzero(~odd)
        try:
            odd[rest[self._stumbles(join(lines, ~odd), len(rest), several=end - start > 1)]] = True
        except _MixedTimes:
            self._halve(entries, start, end)
            return
        except _TooManyOdd:
            odd[:] = True
        rest = np.flatnonzero(~odd)
        data = join(lines, ~odd)
        table = self._read(data, len(rest), unknown="ignore") if len(rest) else None
        if table is None:
            odd[:] = True
        else:
            suspect = self._suspects(table, data)
            odd[rest[suspect]] = True
            self._take(table.filter(pa.array(~suspect)), entry[rest[~suspect]], line[rest[~suspect]])
        self._decode_lines(entry[odd].tolist(), line[odd].tolist(), list(itertools.compress(lines, odd.tolist())))

    def _halve(self, entries: Sequence[Entry], start: int, end: int) -> None:
        """Decodes entries[start:end] in halves, a single one line by line."""
        if end - start > 1:
            middle = (start + end) // 2
            self.decode(entries, start, middle)
            self.decode(entries, middle, end)
            return
        lines = lines_of(entries[start].data)
        self._decode_lines([start] * len(lines), list(range(len(lines))), lines)

    def _read(self, data: bytes, rows: int, unknown: str = "error") -> pa.Table | None:
        """The data, an object a line, as a table of exactly `rows` rows, or None when a line needs a closer look.

        An unknown field is never inferred: that would crash on deep nesting and make a column of every field name that
        a client can think of.
        """
        for kind in tuple(self._ts_kinds):
            try:
                table = self._parse(data, kind, "ignore" if self._ignore_unknown else unknown)
            except pa.ArrowException:
                continue
            if self._ts_kinds[0] != kind:
                self._ts_kinds.reverse()
            # The reader takes NaN and Infinity, JSON does not.
            floats = self._measures if pa.types.is_string(kind) else (*self._measures, "ts")
            finite = all(pc.all(pc.is_finite(table[name])).as_py() is not False for name in floats)
            return table if finite and table.num_rows == rows else None
        return None

    def _parse(self, data: bytes, kind: pa.DataType, unexpected: str) -> pa.Table:
        return pj.read_json(
            pa.BufferReader(data),
            read_options=pj.ReadOptions(block_size=max(len(data), 1024) + 1, use_threads=False),
            parse_options=pj.ParseOptions(explicit_schema=self._schemas[kind], unexpected_field_behavior=unexpected),
        )

    def _stumbles(self, data: bytes, rows: int, *, several: bool) -> Int64s:
        """The rows that the reader stumbles over, unknown fields aside: its message names the row."""
        bounds = np.concatenate([[0], np.flatnonzero(np.frombuffer(data, np.uint8) == NEWLINE) + 1])
        found: list[int] = []
        first = times = 0
        while first < rows:
            last = min(first + SEGMENT_ROWS, rows)  # the reader's cost goes by what it is given, not by what it reads
            try:
                self._parse(data[bounds[first] : bounds[last]], self._ts_kinds[0], "ignore")
                first = last
            except pa.ArrowException as error:
                match = _ROW.search(str(error))
                times += "Column(/ts)" in str(error)
                if times and several:
                    raise _MixedTimes from None
                if match is None or times > 3 or len(found) > FEW_STUMBLES + rows // 50:
                    raise _TooManyOdd from None
                first += int(match[1])
                if first >= rows:  # more objects than lines: its rows are not our lines
                    raise _TooManyOdd from None
                found.append(first)
                first += 1
        return np.array(found, np.int64)

    def _suspects(self, table: pa.Table, data: bytes) -> Bools:
        """Which rows may have an unknown field.

        A field brings two quotes, text two more. A row with other quotes than its known fields account for has an
        unknown field, or a `null`, or an escaped quote: no harm, it is only looked at closely.
        """
        bytes_ = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(bytes_ == NEWLINE)
        starts = np.concatenate([[0], ends[:-1] + 1])
        quotes = np.add.reduceat((bytes_ == _QUOTE).astype(np.int32), starts)
        if self._ignore_unknown:
            return np.zeros(len(starts), bool)
        wanted = np.zeros(len(starts), np.int32)
        for name in table.column_names:
            column = table[name].combine_chunks()
            there = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), dtype=bool)
            wanted += there * np.int32(4 if pa.types.is_string(column.type) else 2)
        return np.asarray(quotes != wanted, dtype=bool)

    def _take(self, table: pa.Table, entry: Int32s, line: Int32s) -> None:
        """Adds a table's rows; those with an unreadable time are rejected."""
        moment = table["ts"].combine_chunks()
        ts, unreadable = times(moment)
        if unreadable.any():
            leap = unreadable & leap_seconds(moment)
            self._rejections.add_many(entry[leap], line[leap], bad_type("ts", LEAP))
            other = unreadable & ~leap
            self._rejections.add_many(entry[other], line[other], bad_type("ts", TIME))
        keep = ~unreadable if unreadable.any() else None
        self._parts.append((entry, line, ts) if keep is None else (entry[keep], line[keep], ts[keep]))
        for name in self._dimensions:
            column = table[name].combine_chunks()
            column = column if keep is None else column.filter(pa.array(keep))
            self._texts[name].append(column.dictionary_encode())
        for name in self._measures:
            numbers = table[name].combine_chunks().to_numpy(zero_copy_only=False)
            self._numbers[name].append(numbers if keep is None else numbers[keep])
        if self._event_ids is not None:
            column = table["event_id"].combine_chunks()
            self._event_ids.append(column if keep is None else column.filter(pa.array(keep)))

    def _decode_lines(self, entry: list[int], line: list[int], raws: list[bytes]) -> None:
        """The slow way: a line at a time."""
        rows: list[dict[str, Any]] = []
        entries: list[int] = []
        numbers: list[int] = []
        for at, number, raw in zip(entry, line, raws, strict=True):
            event = _loads(raw)
            problem = event if isinstance(event, Problem) else self._check(event)
            if problem is not None:
                self._rejections.add(at, number, problem)
            elif isinstance(event, dict):
                rows.append(event)
                entries.append(at)
                numbers.append(number)
        ts, unreadable = moments([row.get("ts") for row in rows])
        for at in np.flatnonzero(unreadable)[::-1].tolist():
            words = LEAP if is_leap_second(rows.pop(at)["ts"]) else TIME
            self._rejections.add(entries.pop(at), numbers.pop(at), bad_type("ts", words))
        if not rows:
            return
        ts = ts[~unreadable]
        self._parts.append((np.array(entries, np.int32), np.array(numbers, np.int32), ts))
        for name in self._dimensions:
            column = pa.array([row.get(name) for row in rows], pa.string())
            self._texts[name].append(column.dictionary_encode())
        for name in self._measures:
            values = [row.get(name) for row in rows]
            self._numbers[name].append(np.array([np.nan if v is None else float(v) for v in values], np.float64))
        if self._event_ids is not None:
            self._event_ids.append(pa.array([row.get("event_id") for row in rows], pa.string()))

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
            event_ids=_text_array(self._event_ids) if self._event_ids is not None else None,
        )


def _text_column(parts: list[pa.DictionaryArray]) -> TextColumn:
    if not parts:
        return TextColumn(np.empty(0, np.int32), ())
    column = pa.chunked_array(parts).unify_dictionaries()
    codes = [pc.fill_null(part.indices, -1).to_numpy(zero_copy_only=False) for part in column.chunks]
    return TextColumn(np.concatenate(codes).astype(np.int32, copy=False), tuple(column.chunk(0).dictionary.to_pylist()))


def _text_array(parts: list[pa.Array]) -> pa.Array:
    return pa.chunked_array(parts, pa.string()).combine_chunks()


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
