"""The queries in docs/warehouse.md work as they stand there."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from pipeline_platform.core.entries import Entry, EntryId
from pipeline_platform_tests.integration.batches import TELEMETRY, event, load_entries, rows

FILE = Path(__file__).parents[2] / "docs" / "warehouse.md"


def test_every_query_of_the_document_finds_what_was_loaded(engine: sa.Engine) -> None:
    now = int(datetime.now(UTC).timestamp() * 1000)
    data = event(metric="temperature_c", ts=now) + b"\n"
    load_entries(engine, TELEMETRY, Entry(EntryId(now, 0), 1, data))
    queries = re.findall(r"```sql\n(.*?)```", FILE.read_text(encoding="utf-8"), re.DOTALL)
    assert queries
    for query in queries:
        assert len(rows(engine, query)) == 1
