"""Columns as PostgreSQL's binary COPY rows and as array parameters, without a Python object a value."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

from pipeline_platform.core.validation import Columns

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
CHUNK_ROWS = 1 << 16
# A NumPy type as PostgreSQL's: the oid of int8, int4 or float8, and how a value of it is sent.
_ELEMENTS = {"i8": (20, ">i8"), "i4": (23, ">i4"), "f8": (701, ">f8")}
_PG_EPOCH_US = 946_684_800_000_000  # 2000-01-01, where PostgreSQL's timestamps begin


def fact_rows(columns: Columns, batch_id: int, series_ids: npt.NDArray[np.int32]) -> Iterator[bytes]:
    """The rows of `<stream>_events` (ts, received_at, batch_id, series_id, measures) as COPY data in chunks.

    `series_ids[columns.series_code]` is the row's series_id; a NaN measure is NULL.
    """
    measures = list(columns.measures)
    head = [("ts", ">i8"), ("received_at", ">i8"), ("batch_id", ">i8"), ("series_id", ">i4")]
    body = [(f"measure_{number}", ">f8") for number in range(len(measures))]
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for name, kind in head + body:
        fields += [(f"{name}_length", ">i4"), (name, kind)]
    dtype = np.dtype(fields)
    ids = series_ids[columns.series_code]
    yield HEADER
    for start in range(0, len(columns), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        rows = np.empty(len(ids[part]), dtype)
        rows["fields"] = len(head) + len(body)
        for name, kind in head + body:
            rows[f"{name}_length"] = np.dtype(kind).itemsize
        rows["ts"] = columns.ts_us[part] - _PG_EPOCH_US
        rows["received_at"] = columns.received_us[part] - _PG_EPOCH_US
        rows["batch_id"] = batch_id
        rows["series_id"] = ids[part]
        for number, name in enumerate(measures):
            rows[f"measure_{number}"] = columns.measures[name][part]
        yield _without_nulls(rows, len(measures))
    yield TRAILER


def _without_nulls(rows: npt.NDArray[np.void], measures: int) -> bytes:
    """The rows' bytes; a NaN becomes the length -1 with no value behind it."""
    nulls = {number: np.isnan(rows[f"measure_{number}"]) for number in range(measures)}
    if not any(mask.any() for mask in nulls.values()):
        return rows.tobytes()
    keep = np.ones((len(rows), rows.dtype.itemsize), bool)
    for number, mask in nulls.items():
        rows[f"measure_{number}_length"][mask] = -1
        offset = rows.dtype.fields[f"measure_{number}"][1]  # type: ignore[index]
        keep[mask, offset : offset + 8] = False
    return rows.view(np.uint8).reshape(len(rows), -1)[keep].tobytes()


class BinaryArray(bytes):
    """An array parameter as it goes over the wire. The statement has to cast it to its type."""


class ArrayDumper(Dumper):
    """How psycopg sends a BinaryArray; register it with the cursor."""

    format = Format.BINARY

    def dump(self, obj: BinaryArray) -> Buffer | None:
        """The bytes as they are."""
        return obj


def binary_array(values: npt.NDArray[np.generic]) -> BinaryArray:
    """A column of int4, int8 or float8 as an array parameter; NaN is NULL."""
    element, kind = _ELEMENTS[values.dtype.str[1:]]
    rows = np.empty(len(values), [("length", ">i4"), ("value", kind)])
    rows["length"] = np.dtype(kind).itemsize
    rows["value"] = values
    nulls = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
    keep = np.ones((len(rows), rows.itemsize), bool)
    if nulls.any():
        rows["length"][nulls] = -1
        keep[nulls, 4:] = False
    # One dimension, whether there are nulls, the elements' type, how many, the first index.
    head = struct.pack(">5i", 1, bool(nulls.any()), element, len(rows), 1)
    return BinaryArray(head + rows.view(np.uint8).reshape(keep.shape)[keep].tobytes())


def id_rows(values: pa.Array, received_us: npt.NDArray[np.int64], batch_id: int) -> Iterator[bytes]:
    """The rows of `<stream>_event_ids` (event_id, received_at, batch_id) as COPY data in chunks.

    `values` is Arrow text without nulls.
    """
    before = np.dtype([("fields", ">i2"), ("event_id_length", ">i4")])
    after = np.dtype([("l1", ">i4"), ("received_at", ">i8"), ("l2", ">i4"), ("batch_id", ">i8")])
    yield HEADER
    for start in range(0, len(values), CHUNK_ROWS):
        part = values[start : start + CHUNK_ROWS]
        offsets = np.frombuffer(part.buffers()[1], np.int32)[part.offset : part.offset + len(part) + 1].astype(np.int64)
        sizes = np.diff(offsets)
        heads, tails = np.empty(len(part), before), np.empty(len(part), after)
        heads["fields"], heads["event_id_length"] = 3, sizes
        tails["l1"] = tails["l2"] = 8
        tails["received_at"] = received_us[start : start + CHUNK_ROWS] - _PG_EPOCH_US
        tails["batch_id"] = batch_id
        fixed = before.itemsize + after.itemsize
        begins = np.cumsum(sizes + fixed) - sizes - fixed
        out = np.empty(int(sizes.sum()) + fixed * len(part), np.uint8)
        out[begins[:, None] + np.arange(before.itemsize)] = heads.view(np.uint8).reshape(len(part), -1)
        texts = np.repeat(begins + before.itemsize - (offsets[:-1] - offsets[0]), sizes) + np.arange(int(sizes.sum()))
        out[texts] = np.frombuffer(part.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
        out[(begins + before.itemsize + sizes)[:, None] + np.arange(after.itemsize)] = tails.view(np.uint8).reshape(
            len(part), -1
        )
        yield out.tobytes()
    yield TRAILER
