"""When a symbol that its source refuses is parked, and when it is asked for all the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pipeline_platform.core.calendars import Calendar
from pipeline_platform.core.parking import PARKED_AFTER, PARKED_PAUSE, Refusal, refused
from pipeline_platform.core.prices import Instrument

T0 = datetime(2026, 11, 20, tzinfo=UTC)
LUNA = Instrument("binance", "LUNAUSDT")


def refuse(*hours: float) -> Refusal:
    """What is known after refusals so many hours after T0."""
    known: Refusal | None = None
    for hour in hours:
        known = refused(known, LUNA, "quotes", "Invalid symbol.", T0 + timedelta(hours=hour))
    assert known is not None
    return known


@pytest.mark.parametrize(
    ("hours", "parked_at"),
    [
        pytest.param([0], None, id="once"),
        pytest.param([0, 1, 2, 71.9], None, id="not for three days yet"),
        pytest.param([0, 1, 72], 72, id="for three days"),
        pytest.param([0, 72, 96, 120], 72, id="it stays parked since then"),
        pytest.param([0, 500], 500, id="after a downtime"),
    ],
)
def test_a_symbol_is_parked_after_three_days_of_refusals(hours: list[float], parked_at: float | None) -> None:
    known = refuse(*hours)
    assert known.parked_at == (None if parked_at is None else T0 + timedelta(hours=parked_at))
    assert (known.since, known.times) == (T0, len(hours))


def test_before_it_is_parked_it_is_asked_as_ever_and_then_once_a_day() -> None:
    young, parked = refuse(0), refuse(0, 72)
    assert young.due(young.at)
    assert not parked.due(parked.at + PARKED_PAUSE - timedelta(seconds=1))
    assert parked.due(parked.at + PARKED_PAUSE)
    assert (timedelta(days=3), timedelta(days=1)) == (PARKED_AFTER, PARKED_PAUSE)  # as docs/prices.md says


@pytest.mark.parametrize(
    ("now", "last"),
    [
        pytest.param("2024-03-27 10:00", "2024-03-26", id="a wednesday"),
        pytest.param("2024-03-25 10:00", "2024-03-22", id="a monday"),
        pytest.param("2024-04-02 10:00", "2024-03-28", id="the tuesday after easter"),
        pytest.param("2024-04-03 00:00", "2024-04-02", id="at midnight"),
        pytest.param("2024-12-27 10:00", "2024-12-24", id="after christmas"),
        pytest.param("2024-01-02 00:30", "2023-12-29", id="new year"),
        pytest.param("2024-03-01 10:00", "2024-02-29", id="after a leap day"),
        pytest.param("2024-11-04 10:00", "2024-11-01", id="when clocks have changed somewhere"),
    ],
)
def test_the_last_working_day_that_is_over(now: str, last: str) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert f"{Calendar.ECB.last_day(at):%Y-%m-%d}" == last
