"""The comparisons find what does not agree: each is tried on data that was tampered with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from pipeline_platform.core.entries import EntryId
from pipeline_platform.core.windows import to_datetime
from pipeline_platform.warehouse.reconcile import facts_equal_ledger, freshness, minutes_equal_facts
from pipeline_platform_tests.integration.batches import (
    NOW_MS,
    TELEMETRY,
    WIDE,
    entry,
    event,
    execute,
    ledger_agrees,
    load_entries,
    minutes_agree,
    plan,
    rows,
    wide,
)

NOW = to_datetime(NOW_MS * 1000)


@pytest.mark.parametrize(
    "tamper",
    [
        "update wide_minutes set events = events + 1",
        "update wide_minutes set b_count = b_count - 1",
        "update wide_minutes set b_sum = b_sum + 0.001",
        "update wide_minutes set a_sum = a_sum + 1",
        "update wide_minutes set b_min = b_min - 1e-12",
        "update wide_minutes set b_max = null",
        "update wide_minutes set b_m2 = b_m2 * 1.00001",
        "update wide_minutes set b_first = b_last",
        "update wide_minutes set b_last = b_first",
        "delete from wide_minutes",
        "insert into wide_minutes (series_id, window_start, events) values (1, '2025-11-21 07:59+00', 0)",
        "delete from wide_events where b = 3",
        "update wide_events set b = b + 1e-3 where b = 3",
        "update wide_events set b = null where b = 3",
        "insert into wide_events select * from wide_events where b = 3",
        "update wide_events set ts = ts + interval '1 minute' where b = 3",
        "update wide_events set series_id = series_id + 1 where b = 3",
    ],
)
def test_tampered_aggregates_or_facts_are_found(engine: sa.Engine, tamper: str) -> None:
    # `a` is a million times larger than `b`: what is tolerated of one must not hide the other.
    lines = [wide(a=1e6 + n, b=float(n), ts=NOW_MS + n) for n in range(1, 200)]
    load_entries(engine, WIDE, entry(0, *lines))
    assert minutes_agree(engine, WIDE).holds
    execute(engine, tamper)
    agreement = minutes_agree(engine, WIDE)
    assert not agreement.holds
    assert "window 2025-11-21 0" in agreement.differences[0]


def test_small_numbers_that_cancel_out_do_not_alarm(engine: sa.Engine) -> None:
    lines = [wide(a=sign * 1e-10 * (n + 0.1), ts=NOW_MS + n) for n in range(200) for sign in (1, -1)]
    for number in range(4):
        load_entries(engine, WIDE, entry(number, *lines[number::4]))
    assert minutes_agree(engine, WIDE).differences == ()


def test_only_the_asked_windows_are_compared(engine: sa.Engine) -> None:
    load_entries(engine, TELEMETRY, entry(0, event(ts=NOW_MS - 60_000), event(), event(ts=NOW_MS + 60_000)))
    execute(engine, "update telemetry_minutes set events = 9 where window_start <> :now", now=NOW)
    minute = timedelta(minutes=1)
    assert minutes_equal_facts(engine, TELEMETRY, NOW, NOW + minute).holds
    assert minutes_equal_facts(engine, TELEMETRY, NOW, NOW + minute).compared == 1
    assert not minutes_equal_facts(engine, TELEMETRY, NOW, NOW + 2 * minute).holds
    assert not minutes_equal_facts(engine, TELEMETRY, NOW - minute, NOW + minute).holds


@pytest.mark.parametrize(
    "tamper",
    [
        "delete from telemetry_events where value = 1",
        "insert into telemetry_events select * from telemetry_events where value = 1",
        "update telemetry_events set batch_id = 2 where value = 1",
        "delete from dead_letters",
        "insert into dead_letters (stream, reason, message, payload, batch_id) values ('telemetry', 'x', '', '', 1)",
        "update assets set events_loaded = 3, events_read = 4 where id = 1",
    ],
)
def test_facts_or_dead_letters_that_the_ledger_does_not_know_are_found(engine: sa.Engine, tamper: str) -> None:
    load_entries(engine, TELEMETRY, entry(0, event(value=1.0), event(value=2.0), b"x"))
    load_entries(engine, TELEMETRY, entry(1, event(value=3.0)))
    assert ledger_agrees(engine, TELEMETRY).holds
    assert ledger_agrees(engine, TELEMETRY).compared == 2
    execute(engine, tamper)
    assert not ledger_agrees(engine, TELEMETRY).holds


def test_a_batch_that_was_planned_before_an_outage_and_loaded_after_it_is_compared(engine: sa.Engine) -> None:
    load_entries(engine, TELEMETRY, entry(0, event()))
    execute(engine, "update assets set planned_at = now() - interval '1 day'")
    execute(engine, "delete from telemetry_events")
    recently = datetime.now(UTC) - timedelta(minutes=15)
    assert not facts_equal_ledger(engine, TELEMETRY, recently).holds
    execute(engine, "update assets set loaded_at = now() - interval '1 hour'")
    assert facts_equal_ledger(engine, TELEMETRY, recently).compared == 0


def test_other_streams_do_not_disturb(engine: sa.Engine) -> None:
    load_entries(engine, TELEMETRY, entry(0, event()))
    load_entries(engine, WIDE, entry(0, wide(a=1.0)))
    assert rows(engine, "select id, stream from assets order by 1") == [(1, "telemetry"), (2, "wide")]
    assert ledger_agrees(engine, TELEMETRY).holds
    assert ledger_agrees(engine, WIDE).holds


def test_freshness_is_the_age_of_the_oldest_accepted_event_that_is_not_settled(engine: sa.Engine) -> None:
    assert freshness(engine, TELEMETRY) == timedelta(0)
    load_entries(engine, TELEMETRY, entry(0, event()))
    assert freshness(engine, TELEMETRY) == timedelta(0)
    row = plan(engine, TELEMETRY, entry(1, event()))
    assert row.first_id == EntryId(NOW_MS + 1, 0)
    waited = freshness(engine, TELEMETRY)
    assert abs(waited - (datetime.now(UTC) - NOW)) < timedelta(minutes=1)
    execute(engine, "update assets set state = 'failed' where id = :id", id=row.id)
    assert freshness(engine, TELEMETRY) >= waited
