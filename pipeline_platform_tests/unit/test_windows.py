"""Half-open windows and days, before 1970 too."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.core.windows import DAY_US, MINUTE_US, days_touched, floor_to, to_datetime, to_micros

YEAR_1_US, YEAR_9999_US = -62_135_596_800_000_000, 253_402_300_799_999_999
micros = st.integers(YEAR_1_US, YEAR_9999_US)


@given(st.lists(micros, max_size=20), st.sampled_from([MINUTE_US, 60 * MINUTE_US, DAY_US]))
def test_a_time_lies_in_its_half_open_window(times: list[int], width: int) -> None:
    ts_us = np.array(times, np.int64)
    starts = floor_to(ts_us, width)
    assert ((starts <= ts_us) & (ts_us < starts + width)).all()
    assert (starts % width == 0).all()


def test_the_end_of_a_window_is_the_start_of_the_next() -> None:
    assert floor_to(np.array([-1, 0, MINUTE_US - 1, MINUTE_US]), MINUTE_US).tolist() == [-MINUTE_US, 0, 0, MINUTE_US]


@given(st.lists(micros, max_size=20))
def test_the_days_touched_are_each_days_date_once_ascending(times: list[int]) -> None:
    assert days_touched(np.array(times, np.int64)) == sorted({to_datetime(time).date() for time in times})


def test_midnight_belongs_to_the_day_that_begins() -> None:
    assert days_touched(np.array([DAY_US, -1])) == [date(1969, 12, 31), date(1970, 1, 2)]


@given(micros)
def test_a_time_survives_the_way_to_a_datetime_and_back(time: int) -> None:
    assert to_micros(to_datetime(time)) == time


@pytest.mark.parametrize("hours", [-11, 0, 2])
def test_the_offset_of_a_datetime_is_taken_off(hours: int) -> None:
    moment = datetime(2025, 11, 21, 8, tzinfo=timezone(timedelta(hours=hours)))
    assert to_datetime(to_micros(moment)) == moment.astimezone(UTC)
