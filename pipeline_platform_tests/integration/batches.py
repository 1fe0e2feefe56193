"""Batches to load: entries, their plan, and what the ops of a run would make of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import orjson
import sqlalchemy as sa

from pipeline_platform.core.batches import Batch
from pipeline_platform.core.entries import Entry, EntryId
from pipeline_platform.core.events import decode
from pipeline_platform.core.streams import StreamSpec, load_specs, parse_spec
from pipeline_platform.core.transforms import aggregate, drop_negatives
from pipeline_platform.core.validation import validate
from pipeline_platform.core.windows import to_datetime
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.ledger_rows import LedgerRow
from pipeline_platform.warehouse.load import Loaded, ReadyBatch, load
from pipeline_platform.warehouse.reconcile import Agreement, facts_equal_ledger, minutes_equal_facts

NOW_MS = 1_763_712_000_000  # 2025-11-21 08:00 UTC
TELEMETRY = load_specs()["telemetry"]
# Further than a stream of a file may reach: tests have events of any time.
WIDEST = {"retention_days": 36_500, "future_tolerance": timedelta(days=36_500)}


def reaching(spec: StreamSpec) -> StreamSpec:
    """The stream, for events of any time."""
    return spec.model_copy(update={"policies": spec.policies.model_copy(update=WIDEST)})


# Two measures that may be absent and be negative: what NULLs and cancellation need.
WIDE = reaching(
    parse_spec(
        """
name: wide
dimensions: {site: {}, unit: {default: none}}
measures:
  a: {required: false, negatives: keep}
  b: {required: false, negatives: keep}
""",
        "wide.yaml",
    )
)

# Event ids are unique for an hour.
UNIQUE = reaching(
    parse_spec(
        """
name: payments
dimensions: [shop]
measures: [amount]
policies: {unique_for: 1h}
unique_event_id: true
""",
        "payments.yaml",
    )
)


def event(**fields: Any) -> bytes:
    """A telemetry event at NOW_MS, with some fields replaced."""
    return orjson.dumps({"source": "s1", "metric": "m1", "value": 1.0, "ts": NOW_MS} | fields)


def wide(**fields: Any) -> bytes:
    """An event of WIDE at NOW_MS, with some fields replaced."""
    return orjson.dumps({"site": "x", "ts": NOW_MS} | fields)


def entry(number: int, *lines: bytes) -> Entry:
    """A request made durable at NOW_MS + number."""
    return Entry(EntryId(NOW_MS + number, 0), len(lines), b"".join(line + b"\n" for line in lines))


def batch_of(spec: StreamSpec, entries: Sequence[Entry]) -> Batch:
    """The plan of one batch of those entries."""
    events, size = sum(each.count for each in entries), sum(len(each.data) for each in entries)
    return Batch(spec.name, entries[0].id, entries[-1].id, len(entries), events, size)


def plan(engine: sa.Engine, spec: StreamSpec, *entries: Entry) -> LedgerRow:
    """One planned batch of those entries."""
    (row,) = Ledger(engine).plan(spec.name, [batch_of(spec, entries)], asset_key="warehouse/x", job_name="ingest_x")
    return row


def ready(spec: StreamSpec, row: LedgerRow, entries: Sequence[Entry], run_id: str = "run-1") -> ReadyBatch:
    """What the ops before the load make of the entries."""
    valid = validate(decode(entries, spec), entries, spec)
    left = drop_negatives(valid.columns, spec)
    return ReadyBatch(
        batch_id=row.id,
        run_id=run_id,
        entries=entries,
        columns=left.columns,
        aggregates=aggregate(left.columns),
        rejections=valid.rejections,
        negative_entry=left.dropped_entry,
        late=valid.late,
        negative_ids=left.dropped_ids,
    )


def load_entries(engine: sa.Engine, spec: StreamSpec, *entries: Entry) -> Loaded:
    """Plans and loads one batch of those entries."""
    return load(engine, spec, ready(spec, plan(engine, spec, *entries), entries))


def rows(engine: sa.Engine, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query), parameters)]


def execute(engine: sa.Engine, statement: str, **parameters: Any) -> None:
    """Runs one statement and commits."""
    with engine.begin() as connection:
        connection.execute(sa.text(statement), parameters)


def minutes_agree(engine: sa.Engine, spec: StreamSpec) -> Agreement:
    """All aggregates there are against the facts."""
    century = 100 * 366 * 86_400 * 1_000_000
    return minutes_equal_facts(engine, spec, to_datetime(NOW_MS * 1000 - century), to_datetime(NOW_MS * 1000 + century))


def ledger_agrees(engine: sa.Engine, spec: StreamSpec) -> Agreement:
    """All loaded batches against facts and dead letters."""
    return facts_equal_ledger(engine, spec, to_datetime(0))
