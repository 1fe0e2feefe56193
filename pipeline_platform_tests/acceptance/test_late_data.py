"""Late events end to end: posted over HTTP, and the hour and the day that they belong to corrected within seconds."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import requests

from pipeline_platform.local.dagster_api import DagsterApi
from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.oracle import wait_for

STREAM = "telemetry"
HOUR = (datetime.now(UTC) - timedelta(days=2)).replace(hour=7, minute=0, second=0, microsecond=0)
NEXT, DAY = HOUR + timedelta(hours=1), HOUR.replace(hour=0)  # a day that no other test of the stack sends events of
WITHIN = 30.0  # seconds; the sensor looks every 5


def post(status: dict[str, Any], *events: tuple[datetime, float]) -> None:
    """Sends one request with those times and values."""
    lines = [{"source": "late", "metric": "m", "value": value, "ts": ts.isoformat()} for ts, value in events]
    answer = requests.post(
        f"{status['gateway_url']}/v1/streams/{STREAM}/events",
        data="\n".join(map(json.dumps, lines)),
        headers={"Authorization": f"Bearer {status['api_key']}", "Content-Type": "application/x-ndjson"},
        timeout=10,
    )
    assert answer.status_code == 202, answer.text


def late(status: dict[str, Any]) -> dict[str, int]:
    """What the stream's status says of late events."""
    headers = {"Authorization": f"Bearer {status['api_key']}"}
    answer = requests.get(f"{status['gateway_url']}/v1/streams/{STREAM}", headers=headers, timeout=10)
    found: dict[str, int] = answer.json()["late"]
    return found


def grown(before: dict[str, int], after: dict[str, int]) -> tuple[int, ...]:
    """How many more events were late, how many of those behind their window, and how many windows were corrected."""
    return tuple(after[name] - before[name] for name in ("events_late", "events_behind", "windows_corrected"))


def windows(status: dict[str, Any], grain: str) -> list[tuple[datetime, int, float, float]]:
    """Start, events, sum and last value of every window of these tests."""
    query = f"select window_start, events, value_sum, value_last from {STREAM}_{grain} where source = 'late' order by 1"
    with psycopg.connect(status["warehouse_url"]) as connection:
        return [(row[0].astimezone(UTC), *row[1:]) for row in connection.execute(query.encode())]


def test_old_events_correct_their_hour_and_day_within_seconds(up: Up) -> None:
    status = up.status()
    before = late(status)
    post(status, (HOUR, 1.0), (HOUR + timedelta(minutes=30), 2.0), (NEXT, 10.0))
    first = [(HOUR, 2, 3.0, 2.0), (NEXT, 1, 10.0, 10.0)]
    wait_for("the hours are rolled up", lambda: windows(status, "1h") == first, WITHIN)
    wait_for("the day is rolled up", lambda: windows(status, "1d") == [(DAY, 3, 13.0, 10.0)], WITHIN)
    assert grown(before, late(status)) == (3, 0, 0)

    post(status, (HOUR + timedelta(minutes=45), 4.0), (HOUR + timedelta(minutes=15), 8.0))
    corrected = [(HOUR, 4, 15.0, 4.0), first[1]]
    wait_for("the hour is corrected", lambda: windows(status, "1h") == corrected, WITHIN)
    wait_for("the day is corrected", lambda: windows(status, "1d") == [(DAY, 5, 25.0, 10.0)], WITHIN)
    assert grown(before, late(status)) == (5, 2, 2)
    wait_for("nothing waits any more", lambda: late(status)["windows_to_correct"] == 0, WITHIN)

    with psycopg.connect(status["warehouse_url"]) as connection:
        rows = connection.execute(
            "select asset_key, state, sum(events_read) from assets where kind = 'etl' and partition_key like %s "
            "and asset_key like %s group by 1, 2 order by 1",
            [f"{DAY:%Y-%m-%d}%", f"warehouse/{STREAM}%"],
        ).fetchall()
    assert rows == [(f"warehouse/{STREAM}_1d", "loaded", 8), (f"warehouse/{STREAM}_1h", "loaded", 7)]


def test_hours_are_made_again_from_the_facts_by_the_command_line(up: Up) -> None:
    status = up.status()
    with psycopg.connect(status["warehouse_url"]) as connection:
        wrong = f"update {STREAM}_hours set value_sum = 99 where window_start between %s and %s"
        assert connection.execute(wrong.encode(), [HOUR, NEXT]).rowcount == 2
    day = f"{DAY:%Y-%m-%d}"
    done = up.run("backfill", f"warehouse/{STREAM}_1h", "--from", day, "--to", day, "--recompute")
    assert "24 partitions" in done.stdout
    assert [row[2] for row in windows(status, "1h")] == [15.0, 10.0]
    api = DagsterApi(status["dagster_url"], status["api_key"])
    assert api.partitions(f"warehouse/{STREAM}_1h").materialized


def test_only_hours_and_days_are_recomputed(up: Up) -> None:
    refused = up.run("backfill", "prices/daily", "--from", "2026-01-01", "--recompute", check=False)
    assert refused.returncode == 1
    assert "--recompute is for hours and days of streams" in refused.stderr
