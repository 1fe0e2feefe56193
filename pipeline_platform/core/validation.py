"""Columns -> valid columns + rejections: the contract that a stream's spec makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline_platform.core.entries import Entry
from pipeline_platform.core.event_ids import MAX_LENGTH, EventIds
from pipeline_platform.core.events import Decoded, Float64s, TextColumn
from pipeline_platform.core.rejections import Int32s, Problem, Reason, RejectionList, Rejections
from pipeline_platform.core.streams import Policies, StreamSpec
from pipeline_platform.core.times import NO_TS, Int64s
from pipeline_platform.core.windows import DAY_US

MAX_SERIES_BYTES = 2000  # what a btree takes as one key, with room to spare
# Sums of squares of a billion values within these bounds stay inside float64, here and in PostgreSQL,
# which refuses to overflow or to underflow.
LARGEST = 1e100
SMALLEST = 1e-100

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Columns:
    """Valid events, a row each; the dimensions are one code into `series`, a tuple of texts in the spec's order.

    `ids` are the events' ids, in a stream with `unique_event_id`.
    """

    entry: Int32s
    ts_us: Int64s
    received_us: Int64s
    series_code: Int32s
    series: tuple[tuple[str, ...], ...]
    measures: dict[str, Float64s]
    ids: EventIds | None = None

    def __len__(self) -> int:
        return len(self.entry)

    def where(self, keep: Bools) -> Columns:
        """The rows of the mask; the series stay as they are."""
        if keep.all():
            return self
        return Columns(
            self.entry[keep],
            self.ts_us[keep],
            self.received_us[keep],
            self.series_code[keep],
            self.series,
            {name: values[keep] for name, values in self.measures.items()},
            self.ids.where(keep) if self.ids is not None else None,
        )


@dataclass(frozen=True, slots=True)
class Validated:
    """The events that keep the contract, those that do not, and how many of the former came late."""

    columns: Columns
    rejections: Rejections
    late: int


def validate(decoded: Decoded, entries: Sequence[Entry], spec: StreamSpec) -> Validated:
    """Checks every row against the spec; an event is rejected for its first problem in the spec's order.

    The clock of an event is its entry's id, so that the same batch gives the same result whenever it is run again.
    """
    arrivals = np.fromiter((entry.received_us for entry in entries), np.int64, len(entries))
    received_us = arrivals[decoded.entry]
    ts_us = np.where(decoded.ts_us == NO_TS, received_us, decoded.ts_us)
    rejections = RejectionList()
    good = np.ones(len(decoded), bool)

    def reject(mask: Bools, reason: Reason, field: str, message: str) -> None:
        mask = mask & good
        if mask.any():
            rejections.add_many(decoded.entry[mask], decoded.line[mask], Problem(reason, field, message))
            good[mask] = False

    for name, dimension in spec.dimensions.items():
        column = decoded.dimensions[name]
        if dimension.default is None:
            reject(column.codes < 0, Reason.MISSING_FIELD, name, "the field is missing")
        lengths = np.array([len(value) for value in column.values] + [0])
        reject(
            (lengths > dimension.max_length)[column.codes],
            Reason.OUT_OF_RANGE,
            name,
            f"is longer than {dimension.max_length} characters",
        )
        nul = np.array(["\0" in value for value in column.values] + [False])
        reject(nul[column.codes], Reason.MALFORMED, name, "holds a NUL character")
    for name, measure in spec.measures.items():
        values = decoded.measures[name]
        if measure.required:
            reject(np.isnan(values), Reason.MISSING_FIELD, name, "the field is missing")
        reject(np.isinf(values), Reason.NOT_FINITE, name, "is not a finite number")
        reject(np.abs(values) > LARGEST, Reason.OUT_OF_RANGE, name, f"is beyond {LARGEST:g}")
    ids = decoded.event_ids
    if ids is not None:
        lengths = pc.fill_null(pc.utf8_length(ids), 1).to_numpy()
        reject(_mask(ids.is_null()), Reason.MISSING_FIELD, "event_id", "the field is missing")
        outside = (lengths < 1) | (lengths > MAX_LENGTH)
        reject(outside, Reason.OUT_OF_RANGE, "event_id", f"has to have 1 to {MAX_LENGTH} characters")
        reject(_mask(pc.match_substring(ids, "\0")), Reason.MALFORMED, "event_id", "holds a NUL character")
    policies = spec.policies
    oldest = received_us - policies.retention_days * DAY_US
    reject(
        ts_us < oldest, Reason.TS_OUT_OF_RANGE, "ts", f"is older than the {policies.retention_days} days that are kept"
    )
    ahead = int(policies.future_tolerance.total_seconds() * 1_000_000)
    reject(
        ts_us > received_us + ahead,
        Reason.TS_OUT_OF_RANGE,
        "ts",
        f"is more than {ahead // 1_000_000} s ahead of the server's clock",
    )
    for name, measure in spec.measures.items():
        if measure.negatives == "reject":
            reject(decoded.measures[name] < 0, Reason.NEGATIVE_REJECTED, name, "is negative")

    codes, series = _series(decoded, spec, good)
    long = np.array([sum(len(text.encode()) for text in texts) > MAX_SERIES_BYTES for texts in series], bool)
    if long.any():
        field = next(iter(spec.dimensions))
        reject(
            long[codes], Reason.OUT_OF_RANGE, field, f"the dimensions are longer than {MAX_SERIES_BYTES} bytes together"
        )
        codes, series = _series(decoded, spec, good)
    columns = Columns(
        decoded.entry,
        ts_us,
        received_us,
        codes,
        series,
        {name: _tidy(values) for name, values in decoded.measures.items()},
        EventIds(decoded.entry, decoded.line, received_us, ids) if ids is not None else None,
    ).where(good)
    return Validated(columns, rejections.freeze(after=decoded.rejections), late_events(columns, policies))


def late_events(columns: Columns, policies: Policies) -> int:
    """How many events came more than `late_after` behind their own time."""
    late_us = int(policies.late_after.total_seconds() * 1_000_000)
    return int(np.count_nonzero(columns.received_us - columns.ts_us > late_us))


def _mask(column: pa.Array) -> Bools:
    """An Arrow column of booleans, null as False."""
    return np.asarray(pc.fill_null(column, False).to_numpy(zero_copy_only=False), dtype=bool)


def _tidy(values: Float64s) -> Float64s:
    """-0.0 and what is smaller than SMALLEST as 0.0: equality and the warehouse's arithmetic stay unsurprising."""
    tiny = np.abs(values) < SMALLEST
    return np.where(tiny, 0.0, values) if tiny.any() else values


def _series(decoded: Decoded, spec: StreamSpec, good: Bools) -> tuple[Int32s, tuple[tuple[str, ...], ...]]:
    """One code a distinct combination of dimensions among the good rows; the rejected rows' codes mean nothing."""
    import pandas as pd  # here: it costs 35 MB, and the processes that only import this module never need it

    combined = np.zeros(int(np.count_nonzero(good)), np.int64)
    columns: list[TextColumn] = []
    for name, dimension in spec.dimensions.items():
        column = decoded.dimensions[name]
        default = dimension.default or ""
        values = column.values if default in column.values else (*column.values, default)
        digit = np.where(column.codes < 0, values.index(default), column.codes)[good]
        columns.append(TextColumn(digit.astype(np.int32), values))
        compact, _ = pd.factorize(combined * len(values) + digit)
        combined = compact.astype(np.int64)
    codes, firsts = _first_rows(combined)
    texts = [[column.values[code] for code in column.codes[firsts]] for column in columns]
    all_codes = np.zeros(len(decoded), np.int32)
    all_codes[good] = codes
    return all_codes, tuple(zip(*texts, strict=True))


def _first_rows(keys: Int64s) -> tuple[Int32s, npt.NDArray[np.intp]]:
    """Compact codes of `keys` and the first row of each; the keys are already 0..n in order of appearance."""
    count = int(keys.max()) + 1 if len(keys) else 0
    firsts = np.zeros(count, np.intp)
    # Written backwards, so that the first row of each key is what stays.
    firsts[keys[::-1]] = np.arange(len(keys) - 1, -1, -1, dtype=np.intp)
    return keys.astype(np.int32), firsts
