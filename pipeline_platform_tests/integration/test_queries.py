"""The queries of docs/queries.md run as they are printed, and those about streams find what is there."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipeline_platform.core.entries import Entry, EntryId
from pipeline_platform.core.rollups import Grain, Span
from pipeline_platform.warehouse.rollups import roll_up
from pipeline_platform_tests.integration.batches import TELEMETRY, event, load_entries

PAGE = (Path(__file__).parents[2] / "docs" / "queries.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def demo(engine: sa.Engine) -> sa.Engine:
    """Some hours of telemetry, rolled up, of which a part came late, and a reject."""
    now = datetime.now(UTC)
    lines = [
        event(
            source="plant-1", metric="temperature_c", value=20.0 + number % 7, ts=_at(now - timedelta(minutes=number))
        )
        for number in range(0, 26 * 60, 10)
    ]
    lines.append(event(source="plant-1", metric="temperature_c", value="hot", ts=_at(now)))
    for number, part in enumerate((lines[:-3], lines[-3:])):
        data = b"".join(line + b"\n" for line in part)
        load_entries(engine, TELEMETRY, Entry(EntryId(int(now.timestamp() * 1000) + number, 0), len(part), data))
        for grain in Grain:
            roll_up(engine, TELEMETRY, grain, Span(Grain.DAY.floor(now - timedelta(days=3)), now + timedelta(days=1)))
    return engine


def test_there_are_queries() -> None:
    assert len(QUERIES) >= 12


@pytest.mark.parametrize(
    "query",
    [pytest.param(query, id=" ".join(query.split())[:60]) for query in QUERIES],
)
def test_a_query_runs_and_finds_what_there_is(demo: sa.Engine, query: str) -> None:
    with demo.connect() as connection:
        found = connection.exec_driver_sql(query.replace("%", "%%")).all()
    if "telemetry" in query or "dead_letters" in query or "percent_late" in query:
        assert found


def _at(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
