"""Bugs that the fault suite must catch. Each is in force for the stream of its name only; `control` has none of them.

Every name that is replaced here has to exist: what is renamed in the platform has to be renamed here, or the bug is
not there any more and the suite says so.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from pipeline_platform.core.entries import ZERO, EntryId
from pipeline_platform.queue.protocol import Appended, NewEntry, QueueRefusal
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.warehouse import load
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.schema import UNSETTLED

BUGS = ("trim_early", "ack_before_append", "no_ledger_check", "aggregate_twice")
_append, _watermark = RedisStreams.append, Ledger.watermark
_load, _merge_minutes = load.load, load.merge_minutes
_count = itertools.count()


def trim_early(self: Ledger, stream: str) -> EntryId:
    """The watermark, which takes for settled what is only planned."""
    if stream != "planted_trim_early":
        return _watermark(self, stream)
    last = self.last_planned(stream)
    return last.next() if last != ZERO else ZERO


def ack_before_append(self: RedisStreams, items: Sequence[NewEntry]) -> list[Appended | QueueRefusal]:
    """An append that answers before the entry is there; every fifth never comes."""
    found: list[Appended | QueueRefusal] = []
    for item in items:
        if item.stream == "planted_ack_before_append" and next(_count) % 5 == 0:
            found.append(Appended(EntryId(int(time.time() * 1000), 0)))
        else:
            found += _append(self, [item])
    return found


def run_twice(engine: sa.Engine, spec: Any, batch: Any, **options: Any) -> Any:
    """A load that a second run repeats: harmless for `control`, where the ledger's check stands in its way."""
    outcome = _load(engine, spec, batch, **options)
    if spec.name not in ("planted_control", "planted_no_ledger_check") or options.get("rehearse"):
        return outcome
    if spec.name == "planted_no_ledger_check":
        with engine.begin() as connection:
            connection.execute(sa.text("delete from batch_receipts where batch_id = :id"), {"id": batch.batch_id})
        vars(load)["UNSETTLED"] = (*UNSETTLED, "loaded")
    try:
        _load(engine, spec, batch, **options)
    finally:
        vars(load)["UNSETTLED"] = UNSETTLED
    return outcome


def aggregate_twice(cursor: Any, spec: Any, aggregates: Any, ids: Any) -> None:
    """A merge of the minutes that counts a batch twice."""
    _merge_minutes(cursor, spec, aggregates, ids)
    if spec.name == "planted_aggregate_twice":
        _merge_minutes(cursor, spec, aggregates, ids)


def plant() -> None:
    """Puts them in place of what they replace."""
    if "UNSETTLED" not in vars(load):
        raise AttributeError("the load does not look at UNSETTLED any more")
    RedisStreams.append = ack_before_append  # type: ignore[method-assign]
    Ledger.watermark = trim_early  # type: ignore[method-assign]
    load.load = run_twice
    load.merge_minutes = aggregate_twice
