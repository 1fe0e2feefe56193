"""A row of the ledger as a value, and the columns that tell of its runs and of its latest failure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH

from pipeline_platform.core.entries import EntryId
from pipeline_platform.core.failures import KEPT, Failure, FailureKind, NextStep, next_step
from pipeline_platform.warehouse.schema import UNSETTLED, assets
from pipeline_platform.warehouse.text import storable

# An attempt has failed and the next one is not requested yet, whatever kind of failure it was.
BETWEEN_ATTEMPTS = sa.and_(assets.c.state.in_(UNSETTLED), assets.c.not_before.is_not(None))
# What the halves of a batch keep of its failures: enough for them to be looked at with care, not to be halved at once.
PLAIN_FAILURES = sa.func.jsonb_path_query_array(assets.c.failures, sa.cast('$[*] ? (@.mode == "plain")', JSONPATH))

RUNS_KEPT = 50  # run ids that a row remembers

_RUNS_WITH = f"""
    case when cast(:run as text) = any(run_ids) then run_ids
    else (run_ids || cast(:run as text))[greatest(cardinality(run_ids) + 2 - {RUNS_KEPT}, 1):] end
"""


def runs_with(run_id: str) -> sa.TextClause:
    """`run_ids` with one more run, for an update of `assets`."""
    return sa.text(_RUNS_WITH).bindparams(run=run_id)


@dataclass(frozen=True)
class LedgerRow:
    """One batch, of the queue or of a replay, as the ledger has it. Times are aware UTC datetimes."""

    id: int
    stream: str
    state: str
    attempt: int
    run_id: str | None
    first_id: EntryId
    last_id: EntryId
    entries: int
    events_planned: int
    bytes_planned: int
    events_read: int
    events_loaded: int
    events_negative: int
    events_rejected: int
    error_message: str | None
    failures: tuple[Failure, ...]
    planned_at: datetime
    requested_at: datetime | None
    started_at: datetime | None
    not_before: datetime | None
    loaded_at: datetime | None
    kind: str = "ingest"
    replay_id: int | None = None
    visible_at: datetime | None = None  # from `get` and `holding`, where the server keeps it

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do for this batch."""
        return self.state not in UNSETTLED

    @property
    def failing(self) -> bool:
        """Whether its latest attempt has failed and the next one is not requested yet."""
        return not self.settled and self.not_before is not None

    @property
    def next_step(self) -> NextStep:
        """What the next attempt has to be like, after the failures so far."""
        return next_step(self.failures, self.entries)


def ledger_row(row: Any) -> LedgerRow:
    """A row of `assets` as it was read."""
    return LedgerRow(
        id=row.id,
        stream=row.stream,
        state=row.state,
        attempt=row.attempt,
        run_id=row.run_id,
        first_id=EntryId(row.first_ms, row.first_seq),
        last_id=EntryId(row.last_ms, row.last_seq),
        entries=row.entries,
        events_planned=row.events_planned,
        bytes_planned=row.bytes_planned,
        events_read=row.events_read,
        events_loaded=row.events_loaded,
        events_negative=row.events_negative,
        events_rejected=row.events_rejected,
        error_message=row.error_message,
        failures=_failures(row.failures),
        planned_at=row.planned_at,
        requested_at=row.requested_at,
        started_at=row.started_at,
        not_before=row.not_before,
        loaded_at=row.loaded_at,
        kind=row.kind,
        replay_id=row.replay_id,
        visible_at=getattr(row, "visible_at", None),
    )


def last_failure(failure: Failure) -> dict[str, Any]:
    """The columns that tell of the latest failure."""
    message = storable(f"{failure.op}: {failure.message}" if failure.op else failure.message)[:2000]
    note = {
        "mode": failure.mode.value,
        "op": failure.op,
        "retried": failure.retried,
        "final": failure.final,
        "kind": failure.kind.value,
        "error_class": failure.error_class[:200],
        "message": storable(failure.message)[:500],
        "run_id": failure.run_id,
    }
    of_row = sa.func.jsonb_build_object("at", sa.func.now(), "attempt", assets.c.attempt)
    dated = sa.func.jsonb_build_array(sa.literal(note, JSONB).op("||")(of_row))
    latest = sa.func.jsonb_path_query_array(
        assets.c.failures.op("||")(dated), sa.cast(f"$[last - {KEPT - 1} to last]", JSONPATH)
    )
    return {
        "error_kind": failure.kind.value,
        "error_class": failure.error_class[:200],
        "error_message": message,
        "failed_at": sa.func.now(),
        "failures": latest,
    }


def _failures(notes: Any) -> tuple[Failure, ...]:
    return tuple(
        Failure(
            kind=FailureKind(note["kind"]),
            error_class=note["error_class"],
            message=note["message"],
            attempt=note["attempt"],
            mode=NextStep(note["mode"]),
            op=note["op"],
            run_id=note["run_id"],
            retried=note["retried"],
            final=note["final"],
            at=note["at"],
        )
        for note in notes
    )
