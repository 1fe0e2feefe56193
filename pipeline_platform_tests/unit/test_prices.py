"""Candles: when one is closed, and what can be wrong with one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.core.prices import Candle, Interval, faults, is_closed, last_closed

OPENED = datetime(2026, 3, 29, 1, tzinfo=UTC)  # when clocks in Europe are put forward
GOOD = Candle(
    source="binance",
    symbol="BTCUSDT",
    interval=Interval.HOUR,
    open_time=OPENED,
    open=Decimal("10"),
    high=Decimal("12.5"),
    low=Decimal("9"),
    close=Decimal("11"),
    volume=Decimal("3.2"),
    closed=True,
)
moments = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"volume": Decimal(0)}, []),
        ({"open": Decimal(9), "close": Decimal("12.5")}, []),
        ({"low": Decimal("10.5")}, ["open 10 is below low 10.5"]),
        ({"high": Decimal("10.5")}, ["close 11 is above high 10.5"]),
        ({"high": Decimal(8)}, ["high 8 is below low 9", "open 10 is above high 8", "close 11 is above high 8"]),
        ({"low": Decimal(-1)}, ["low -1 is negative"]),
        ({"volume": Decimal("-0.1")}, ["volume -0.1 is negative"]),
        ({"close": Decimal("NaN")}, ["close NaN is not a number"]),
        ({"high": Decimal("Infinity")}, ["high Infinity is not a number"]),
        ({"low": Decimal("sNaN")}, ["low sNaN is not a number"]),
        (
            {"open_time": OPENED + timedelta(seconds=1)},
            ["open_time 2026-03-29T01:00:01Z is not the start of a 1h candle"],
        ),
        (
            {"open_time": OPENED.astimezone(timezone(timedelta(hours=2)))},
            ["open_time 2026-03-29 03:00:00+02:00 is not in UTC"],
        ),
    ],
)
def test_what_is_wrong_with_a_candle_is_named(change: dict[str, Decimal], words: list[str]) -> None:
    assert faults(replace(GOOD, **change)) == words  # type: ignore[arg-type]


def test_a_candle_is_closed_when_it_is_over_and_the_grace_too() -> None:
    end, grace = OPENED + timedelta(hours=1), timedelta(seconds=30)
    assert not is_closed(OPENED, Interval.HOUR, end - timedelta(microseconds=1))
    assert is_closed(OPENED, Interval.HOUR, end)
    assert not is_closed(OPENED, Interval.HOUR, end + grace - timedelta(microseconds=1), grace)
    assert is_closed(OPENED, Interval.HOUR, end + grace, grace)


@given(moments, st.sampled_from(list(Interval)), st.integers(0, 10_000))
def test_the_end_of_the_closed_ones_is_where_the_first_open_one_opens(
    now: datetime, interval: Interval, seconds: int
) -> None:
    grace = timedelta(seconds=seconds)
    end = last_closed(interval, now, grace)
    assert not is_closed(end, interval, now, grace)
    assert is_closed(end - interval.length, interval, now, grace)


@given(moments, st.sampled_from(list(Interval)))
def test_floor_and_ceiling_hold_the_moment_between_them(at: datetime, interval: Interval) -> None:
    floor, ceiling = interval.floor(at), interval.ceiling(at)
    assert floor <= at <= ceiling
    assert ceiling - floor in (timedelta(), interval.length)
    assert (at == floor) == (at == ceiling)
    assert interval.floor(floor) == interval.ceiling(floor) == floor
