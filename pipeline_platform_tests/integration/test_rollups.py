"""Hours and days equal a recomputation from the facts, however late events come and whoever loads meanwhile."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from pipeline_platform.core.rollups import Grain, Span
from pipeline_platform.core.windows import to_datetime
from pipeline_platform.warehouse.reconcile import rollups_equal_facts
from pipeline_platform.warehouse.rollup_marks import marked
from pipeline_platform.warehouse.rollups import RolledUp, roll_up
from pipeline_platform_tests.integration.batches import (
    NOW_MS,
    TELEMETRY,
    WIDE,
    entry,
    event,
    execute,
    load_entries,
    rows,
    wide,
)

HOUR_MS = 3_600_000
DAY = Grain.DAY.floor(to_datetime(NOW_MS * 1000))
WHOLE = Span(DAY - timedelta(days=2), DAY + timedelta(days=2))


def test_hours_and_days_are_what_the_facts_say(engine: sa.Engine) -> None:
    lines = [
        wide(ts=NOW_MS - number * 700_000, a=(-1) ** number * 1.5 * number, unit=f"u{number % 3}")
        for number in range(90)
    ]
    lines += [wide(ts=NOW_MS, b=1e9 + number) for number in range(5)]
    load_entries(engine, WIDE, entry(0, *lines))

    hours, days = roll_up(engine, WIDE, Grain.HOUR, WHOLE), roll_up(engine, WIDE, Grain.DAY, WHOLE)

    assert (hours.events, days.events) == (95, 95)
    for grain in Grain:
        agreed = rollups_equal_facts(engine, WIDE, grain, WHOLE.start, WHOLE.end)
        assert agreed.compared > 0
        assert agreed.differences == ()
    before = rows(engine, "select * from wide_1d order by 1, 2, 3")
    roll_up(engine, WIDE, Grain.DAY, WHOLE, recompute=True)
    after = rows(engine, "select * from wide_1d order by 1, 2, 3")
    assert [row[:5] for row in before] == [row[:5] for row in after]
    assert rollups_equal_facts(engine, WIDE, Grain.DAY, WHOLE.start, WHOLE.end).holds


def test_tampering_is_found(engine: sa.Engine) -> None:
    load_entries(engine, TELEMETRY, entry(0, event()))
    roll_up(engine, TELEMETRY, Grain.HOUR, WHOLE)
    execute(engine, "update telemetry_hours set value_sum = value_sum + 1")
    assert not rollups_equal_facts(engine, TELEMETRY, Grain.HOUR, WHOLE.start, WHOLE.end).holds


def test_tampering_is_found_though_another_hour_is_marked(engine: sa.Engine) -> None:
    load_entries(engine, TELEMETRY, entry(0, event()))
    roll_up(engine, TELEMETRY, Grain.HOUR, WHOLE)
    load_entries(engine, TELEMETRY, entry(1, event(ts=NOW_MS - 3 * HOUR_MS)))  # as the hour under way always is
    assert rollups_equal_facts(engine, TELEMETRY, Grain.HOUR, WHOLE.start, WHOLE.end).compared == 1
    execute(engine, "update telemetry_hours set value_sum = value_sum + 1")
    assert not rollups_equal_facts(engine, TELEMETRY, Grain.HOUR, WHOLE.start, WHOLE.end).holds


def test_a_load_marks_its_hours_and_a_rollup_takes_the_marks_away(engine: sa.Engine) -> None:
    load_entries(engine, TELEMETRY, entry(0, event(), event(ts=NOW_MS - 3 * HOUR_MS)))
    later = DAY + timedelta(days=2)
    assert [mark.late for mark in marked(engine, Grain.HOUR, later)] == [False, False]
    hours = {to_datetime((NOW_MS - ago * HOUR_MS) * 1000): 1 for ago in (0, 3)}
    assert roll_up(engine, TELEMETRY, Grain.HOUR, WHOLE) == RolledUp(hours, rows=2, corrected=0)
    assert marked(engine, Grain.HOUR, later) == []
    assert [mark.window_start for mark in marked(engine, Grain.DAY, later)] == [DAY]
    roll_up(engine, TELEMETRY, Grain.DAY, WHOLE)
    assert marked(engine, Grain.DAY, later) == []


def test_a_late_event_marks_its_hour_again_and_is_counted(engine: sa.Engine) -> None:
    load_entries(engine, TELEMETRY, entry(0, event(), event(ts=NOW_MS - 3 * HOUR_MS)))
    for grain in Grain:
        roll_up(engine, TELEMETRY, grain, WHOLE)
    load_entries(engine, TELEMETRY, entry(1, event(ts=NOW_MS - 3 * HOUR_MS, value=9.0), event(ts=NOW_MS - 5 * HOUR_MS)))

    late = marked(engine, Grain.HOUR, DAY + timedelta(days=2))

    assert [(mark.late, mark.window_start.hour) for mark in late] == [(False, 3), (True, 5)]
    assert rows(engine, "select events_behind from assets order by id") == [(0,), (1,)]
    span = Span(late[1].window_start, late[1].window_start + Grain.HOUR.width)
    assert roll_up(engine, TELEMETRY, Grain.HOUR, span).corrected == 1
    assert rows(engine, "select value_sum from telemetry_1h where window_start = :w", w=span.start) == [(10.0,)]
    assert [mark.late for mark in marked(engine, Grain.DAY, DAY + timedelta(days=2))] == [True]


@pytest.mark.timeout(60)
def test_a_rollup_waits_for_a_load_that_holds_its_hour(engine: sa.Engine) -> None:
    # Given an hour that is marked, and a load of it that has not committed
    load_entries(engine, TELEMETRY, entry(0, event()))
    blocker = engine.connect()
    blocker.execute(sa.text("select from assets for update")).all()
    blocker.execute(sa.text("select from rollup_marks for share")).all()
    series = blocker.scalar(sa.text("select series_id from telemetry_series"))
    blocker.execute(
        sa.text("update telemetry_minutes set events = events + 1 where series_id = :series"), {"series": series}
    )
    # If it is rolled up meanwhile
    done: list[RolledUp] = []
    thread = threading.Thread(target=lambda: done.append(roll_up(engine, TELEMETRY, Grain.HOUR, WHOLE)))
    thread.start()
    thread.join(0.5)
    # I expect the rollup to wait, and to see what the load wrote
    assert done == []
    blocker.commit()
    thread.join(20)
    blocker.close()
    assert done[0].events == 2


def test_what_is_past_retention_keeps_its_rollup(engine: sa.Engine) -> None:
    load_entries(engine, TELEMETRY, entry(0, event()))
    for grain in Grain:
        roll_up(engine, TELEMETRY, grain, WHOLE)
    execute(engine, "truncate telemetry_events, telemetry_minutes")
    for grain in Grain:
        roll_up(engine, TELEMETRY, grain, WHOLE)
        roll_up(engine, TELEMETRY, grain, WHOLE, recompute=True)
    assert rows(engine, "select events from telemetry_1h union all select events from telemetry_1d") == [(1,), (1,)]


def test_loads_and_rollups_at_once_lose_nothing(engine: sa.Engine) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def keep_rolling() -> None:
        while not stop.is_set():
            try:
                for grain in Grain:
                    roll_up(engine, TELEMETRY, grain, WHOLE)
            except BaseException as error:  # noqa: BLE001  shown by the assertion below
                failures.append(error)
                return

    thread = threading.Thread(target=keep_rolling)
    thread.start()
    for number in range(60):
        load_entries(engine, TELEMETRY, entry(number, event(ts=NOW_MS - (number % 5) * HOUR_MS)))
    stop.set()
    thread.join()
    assert failures == []
    until = datetime.now(UTC) + timedelta(days=1)
    for grain in Grain:
        for mark in marked(engine, grain, until):
            roll_up(engine, TELEMETRY, grain, Span(mark.window_start, mark.window_start + grain.width))
    for view in ("telemetry_1h", "telemetry_1d"):
        assert rows(engine, f"select sum(events) from {view}") == [(60,)]
