"""drop_negatives and aggregate: what happens to valid events before they are loaded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline_platform.core.events import Float64s
from pipeline_platform.core.rejections import Int32s
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.validation import Columns
from pipeline_platform.core.windows import MINUTE_US, Int64s, floor_to


@dataclass(frozen=True, slots=True)
class Dropped:
    """What is left after the negatives are gone, and the entry of each event that went."""

    columns: Columns
    dropped_entry: Int32s


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
    return Dropped(columns.where(~negative), columns.entry[negative])


def aggregate(columns: Columns, width_us: int = MINUTE_US) -> Aggregates:
    """Window aggregates of every series; the order of the events does not matter.

    Of events with the same time the smallest value is the first and the largest the last.
    """
    window_us = floor_to(columns.ts_us, width_us)
    codes, keys = pd.factorize(_key(columns.series_code, window_us, width_us, len(columns.series)))
    groups = len(keys)
    some_row = np.zeros(groups, np.intp)
    some_row[codes] = np.arange(len(codes))
    data: dict[str, object] = {
        "series_code": columns.series_code[some_row],
        "window_us": window_us[some_row],
        "events": np.bincount(codes, minlength=groups),
    }
    for name, values in columns.measures.items():
        present = ~np.isnan(values)
        if present.all():
            data |= _measure(name, values, columns.ts_us, codes, groups)
        else:
            data |= _measure(name, values[present], columns.ts_us[present], codes[present], groups)
    frame = pd.DataFrame(data)
    return Aggregates(frame.sort_values(["series_code", "window_us"], ignore_index=True), width_us)


def _key(series_code: Int32s, window_us: Int64s, width_us: int, series: int) -> Int64s:
    windows = window_us // width_us
    return windows * max(series, 1) + series_code


def _measure(name: str, values: np.ndarray, ts_us: Int64s, codes: np.ndarray, groups: int) -> dict[str, object]:
    every = np.arange(groups)
    count = np.bincount(codes, minlength=groups)
    total = _sums(codes, values, groups)
    mean = np.divide(total, count, out=np.zeros(groups), where=count > 0)
    m2 = _sums(codes, (values - mean[codes]) ** 2, groups)
    grouped = pd.DataFrame({"v": values, "t": ts_us}).groupby(codes, sort=False)
    extremes = grouped["v"].agg(["min", "max"]).reindex(every)
    times = grouped["t"].agg(["min", "max"]).reindex(every, fill_value=0)
    earliest, latest = times["min"].to_numpy(), times["max"].to_numpy()
    at_first, at_last = ts_us == earliest[codes], ts_us == latest[codes]
    first = pd.Series(values[at_first]).groupby(codes[at_first]).min().reindex(every)
    last = pd.Series(values[at_last]).groupby(codes[at_last]).max().reindex(every)
    return {
        f"{name}_count": count,
        f"{name}_sum": total,
        f"{name}_min": extremes["min"].to_numpy(),
        f"{name}_max": extremes["max"].to_numpy(),
        f"{name}_m2": m2,
        f"{name}_first": first.to_numpy(),
        f"{name}_first_us": earliest,
        f"{name}_last": last.to_numpy(),
        f"{name}_last_us": latest,
    }


def _sums(codes: np.ndarray, values: np.ndarray, groups: int) -> Float64s:
    """The sum of each group; bincount of no values would be integers."""
    return np.bincount(codes, weights=values, minlength=groups).astype(np.float64, copy=False)
