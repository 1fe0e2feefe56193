"""drop_negatives and aggregate: what happens to valid events before they are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline_platform.core.event_ids import EventIds
from pipeline_platform.core.events import Float64s
from pipeline_platform.core.rejections import Int32s
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.validation import Columns
from pipeline_platform.core.windows import MINUTE_US, Int64s, floor_to

if TYPE_CHECKING:
    import pandas as pd

CELLS_PER_EVENT = 4  # series times windows up to which all of them are counted, used or not


@dataclass(frozen=True, slots=True)
class Dropped:
    """What is left after the negatives are gone; the entry and, where the stream has them, the id of each that went."""

    columns: Columns
    dropped_entry: Int32s
    dropped_ids: EventIds | None = None


@dataclass(frozen=True, slots=True)
class Aggregates:
    """One row a (series, window). Frame columns: series_code, window_us, events, and for every measure m
    m_count, m_sum, m_min, m_max, m_m2, m_first, m_first_us, m_last, m_last_us.

    `m2` is the sum of squared distances from the mean: it merges without the cancellation that a sum of squares
    suffers. Where a measure has no value in a window its count is 0, its sum 0 and the rest NaN (times 0).
    """

    frame: pd.DataFrame
    width_us: int


def drop_negatives(columns: Columns, spec: StreamSpec) -> Dropped:
    """Without the events in which a measure with `negatives: drop` is below zero."""
    negative = np.zeros(len(columns), bool)
    for name, measure in spec.measures.items():
        if measure.negatives == "drop":
            negative |= columns.measures[name] < 0
    ids = columns.ids.where(negative) if columns.ids is not None else None
    return Dropped(columns.where(~negative), columns.entry[negative], ids)


def aggregate(columns: Columns, width_us: int = MINUTE_US) -> Aggregates:
    """Window aggregates of every series; the order of the events does not matter.

    Of events with the same time the smallest value is the first and the largest the last.
    """
    import pandas as pd  # here: it costs 35 MB, and the processes that only import this module never need it

    window_us = floor_to(columns.ts_us, width_us)
    codes, series_code, window = _groups(columns.series_code, window_us // width_us, len(columns.series))
    groups = len(window)
    data: dict[str, object] = {
        "series_code": series_code,
        "window_us": window * width_us,
        "events": np.bincount(codes, minlength=groups),
    }
    for name, values in columns.measures.items():
        present = ~np.isnan(values)
        if present.all():
            data |= _measure(name, values, columns.ts_us, codes, groups)
        else:
            data |= _measure(name, values[present], columns.ts_us[present], codes[present], groups)
    return Aggregates(pd.DataFrame(data), width_us)


def _groups(series_code: Int32s, window: Int64s, series: int) -> tuple[npt.NDArray[np.intp], Int32s, Int64s]:
    """The group of each row, and each group's series and window, in their order."""
    if not len(window):
        return np.empty(0, np.intp), series_code, window
    lowest = int(window.min())
    span = int(window.max()) - lowest + 1
    key = series_code * np.int64(span) + (window - lowest)
    if series * span <= CELLS_PER_EVENT * len(key):  # faster than hashing
        used = np.flatnonzero(np.bincount(key, minlength=1))
        number = np.zeros(int(used[-1]) + 1, np.intp)
        number[used] = np.arange(len(used))
        codes = number[key]
    else:
        import pandas as pd

        codes, used = pd.factorize(key, sort=True)
    return codes, (used // span).astype(np.int32), used % span + lowest


def _measure(name: str, values: Float64s, ts_us: Int64s, codes: npt.NDArray[np.intp], groups: int) -> dict[str, object]:
    count = np.bincount(codes, minlength=groups)
    there = count > 0
    total = _sums(codes, values, groups)
    mean = np.divide(total, count, out=np.zeros(groups), where=there)
    m2 = _sums(codes, (values - mean[codes]) ** 2, groups)
    earliest = np.full(groups, np.iinfo(np.int64).max)
    latest = np.full(groups, np.iinfo(np.int64).min)
    np.minimum.at(earliest, codes, ts_us)
    np.maximum.at(latest, codes, ts_us)
    at_first, at_last = ts_us == earliest[codes], ts_us == latest[codes]
    return {
        f"{name}_count": count,
        f"{name}_sum": total,
        f"{name}_min": _extremes(np.minimum, np.inf, codes, values, there),
        f"{name}_max": _extremes(np.maximum, -np.inf, codes, values, there),
        f"{name}_m2": m2,
        f"{name}_first": _extremes(np.minimum, np.inf, codes[at_first], values[at_first], there),
        f"{name}_first_us": np.where(there, earliest, 0),
        f"{name}_last": _extremes(np.maximum, -np.inf, codes[at_last], values[at_last], there),
        f"{name}_last_us": np.where(there, latest, 0),
    }


def _extremes(
    pick: np.ufunc, start: float, codes: npt.NDArray[np.intp], values: Float64s, there: npt.NDArray[np.bool_]
) -> Float64s:
    """The smallest or largest value of each group; NaN where there is none."""
    found = np.where(there, start, np.nan)
    pick.at(found, codes, values)
    return found


def _sums(codes: npt.NDArray[np.intp], values: Float64s, groups: int) -> Float64s:
    """The sum of each group; bincount of no values would be integers."""
    return np.bincount(codes, weights=values, minlength=groups).astype(np.float64, copy=False)
