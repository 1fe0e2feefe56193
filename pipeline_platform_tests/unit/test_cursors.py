"""Cursors that people edited: a sensor goes on as if it had none, soon, and says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from pipeline_platform.core.batches import Pace, PaceLimits, linger
from pipeline_platform.orchestration.cursors import fields, kept, moment
from pipeline_platform_tests.unit.examples import EDITED_CURSORS

NONE = Pace(5.0, 0.0)
LIMITS = PaceLimits()


def pace(cursor: str | None) -> Pace:
    """As the ingest sensors read it."""
    with dg.build_sensor_context(cursor=cursor) as context:
        return kept(context, lambda text: Pace.read(fields(text)), NONE)


@pytest.mark.parametrize("cursor", [None, "", *EDITED_CURSORS], ids=lambda each: str(each)[:40])
def test_no_cursor_holds_up_a_sensor(cursor: str | None) -> None:
    assert linger(pace(cursor), 1000.0, LIMITS) <= (1 + LIMITS.burst) / LIMITS.per_second


def test_what_a_tick_left_is_read() -> None:
    left = Pace(2.5, 999.0)
    assert pace('{"tokens": 2.5, "at": 999.0, "note": "3 batches"}') == left
    assert linger(left, 1000.0, LIMITS) == LIMITS.idle


def test_an_unreadable_cursor_is_warned_of_with_a_bounded_text(caplog: pytest.LogCaptureFixture) -> None:
    with dg.build_sensor_context(cursor="x" * 10_000) as context:
        context.log.addHandler(caplog.handler)
        assert kept(context, moment, None) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "cannot be read" in record.getMessage()
    assert len(record.getMessage()) < 300


@pytest.mark.parametrize("text", ["2026-01-01", "2026-01-01T00:00:00", "9999-12-31T23:59:59+00:00", "soon", ""])
def test_a_moment_has_a_zone_and_is_not_in_the_future(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        moment(text)


def test_a_clock_that_is_a_little_ahead_is_believed() -> None:
    at = datetime.now(UTC) + timedelta(minutes=5)
    assert moment(at.isoformat()) == at
