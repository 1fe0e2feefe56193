"""Receipts: what became of one accepted request. No status is ever written for it; the ledger's ranges answer."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import sqlalchemy as sa
from pydantic import BaseModel, Field

from pipeline_platform.core.entries import EntryId, Receipt, TaggedReceipt
from pipeline_platform.core.windows import to_datetime
from pipeline_platform.errors import PermanentError
from pipeline_platform.gateway.problems import ProblemError, shown
from pipeline_platform.queue.protocol import Queue
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.ledger_rows import LedgerRow
from pipeline_platform.warehouse.receipts import EntryCounts, entry_counts, entry_reasons, settled_entries

State = Literal["queued", "running", "loaded", "partial", "failed"]


class Counts(BaseModel):
    """Events of this request; without an outcome yet only `received` is known."""

    received: int
    loaded: int | None = None
    negative: int | None = None
    rejected: int | None = None
    replayed: int | None = Field(None, description="Those of the rejected that a replay has settled since.")


class BatchDocument(BaseModel):
    """The batch that the request is part of."""

    id: int
    state: str
    attempt: int
    entries: int
    events: int
    first_receipt: str
    last_receipt: str


class RunDocument(BaseModel):
    """The Dagster run of the batch's latest attempt."""

    id: str
    url: str


class Times(BaseModel):
    """When each stage was reached, UTC."""

    received_at: datetime
    planned_at: datetime | None = None
    requested_at: datetime | None = None
    started_at: datetime | None = None
    loaded_at: datetime | None = None
    visible_at: datetime | None = Field(
        default=None, description="When the load's commit was made; null where PostgreSQL does not keep that."
    )


class FailureDocument(BaseModel):
    """Why the latest attempt failed, and when the next one may begin."""

    kind: Literal["transient", "permanent", "poison", "lost", "canceled"] | None
    message: str = Field(description="What it said; for keys without the scope `read` only what `kind` means.")
    attempt: int
    next_attempt_at: datetime | None = None


class ReceiptDocument(BaseModel):
    """What became of one accepted request."""

    receipt: str
    stream: str
    state: State = Field(
        description="loaded: nothing is rejected, or all of it was replayed; partial: some events are; failed: all "
        "are, or the batch's latest attempt failed and will be repeated."
    )
    final: bool = Field(description="Nothing more happens to it by itself.")
    counts: Counts
    reasons: dict[str, int] = Field(
        description="How many were rejected for which reason; not those whose dead letters are kept no longer."
    )
    batch: BatchDocument | None = Field(None, description="For keys with the scope `read`.")
    run: RunDocument | None = Field(None, description="For keys with the scope `read`.")
    error: FailureDocument | None = None
    times: Times
    links: dict[str, str]


class ReceiptBook:
    """Finds receipts. Blocking: for a worker thread."""

    def __init__(self, queue: Queue, engine: sa.Engine, dagster_link: str) -> None:
        self._queue = queue
        self._engine = engine
        self._ledger = Ledger(engine)
        self._dagster = dagster_link

    def find(self, asked: TaggedReceipt, *, whole: bool) -> ReceiptDocument:
        """The outcome so far; the 404 problem when the request never was. `whole` is with batch, run and error texts.

        The ledger is asked twice because an entry may be settled and trimmed while the queue is asked.
        """
        document = self._find(asked)
        return document if whole else _own_part(document)

    def _find(self, asked: TaggedReceipt) -> ReceiptDocument:
        receipt = asked.receipt
        for _ in range(2):
            row = self._ledger.holding(receipt.stream, receipt.entry)
            if row is not None and row.settled:
                counts = entry_counts(self._engine, row.id, [receipt.entry]).get(receipt.entry)
                if counts is not None:
                    return self._document(asked, row, counts)
                if row.state == "loaded":
                    break
            entry = next(iter(self._queue.read(receipt.stream, receipt.entry, receipt.entry)), None)
            if entry is not None:
                return self._document(asked, row, EntryCounts(entry.count, 0, 0))
        raise unknown_receipt(str(asked))

    def settled(self, stream: str, entries: list[EntryId]) -> set[EntryId]:
        """Those of `entries` that have their outcome."""
        return settled_entries(self._engine, stream, entries)

    def _document(self, asked: TaggedReceipt, row: LedgerRow | None, counts: EntryCounts) -> ReceiptDocument:
        receipt = asked.receipt
        state = _state(row, counts)
        final = row is not None and row.state in ("loaded", "replayed")
        times = Times(received_at=to_datetime(receipt.entry.ms * 1000))
        error: FailureDocument | None = None
        if row is not None:
            times = Times(
                received_at=times.received_at,
                planned_at=row.planned_at,
                requested_at=row.requested_at,
                started_at=row.started_at,
                loaded_at=row.loaded_at,
                visible_at=row.visible_at,
            )
            if row.failing or row.state == "dead":
                error = FailureDocument(
                    kind=row.failures[-1].kind.value if row.failures else None,
                    message=row.error_message or "The run failed.",
                    attempt=row.attempt,
                    next_attempt_at=row.not_before,
                )
        return ReceiptDocument(
            receipt=str(asked),
            stream=receipt.stream,
            state=state,
            final=row is not None and row.state in ("loaded", "dead", "replayed"),
            counts=Counts(
                received=counts.received,
                loaded=counts.loaded if final else None,
                negative=counts.negative if final else None,
                rejected=counts.rejected if final else None,
                replayed=counts.replayed if final else None,
            ),
            reasons=entry_reasons(self._engine, receipt) if final and counts.rejected else {},
            batch=_batch(row) if row is not None else None,
            run=RunDocument(id=row.run_id, url=f"{self._dagster}/runs/{row.run_id}") if row and row.run_id else None,
            error=error,
            times=times,
            links=receipt_links(asked),
        )


def _state(row: LedgerRow | None, counts: EntryCounts) -> State:
    if row is None:
        return "queued"
    if row.failing or row.state == "dead":
        return "failed"
    if row.state == "planned":
        return "running" if row.started_at is not None else "queued"
    rejected = counts.rejected - counts.replayed
    if row.state == "replayed" or rejected <= 0:
        return "loaded"
    return "failed" if rejected == counts.received else "partial"


def _batch(row: LedgerRow) -> BatchDocument:
    return BatchDocument(
        id=row.id,
        state=row.state,
        attempt=row.attempt,
        entries=row.entries,
        events=row.events_planned,
        first_receipt=str(Receipt(row.stream, row.first_id)),
        last_receipt=str(Receipt(row.stream, row.last_id)),
    )


_MEANING = {
    "transient": "Something that the run needs was away; it is tried again.",
    "permanent": "The run failed, and whoever runs this platform has to act.",
    "poison": "Some events of the batch cannot be processed; they are looked for.",
    "lost": "The run was lost; it is tried again.",
    "canceled": "The run was canceled; it is tried again.",
}


def _own_part(document: ReceiptDocument) -> ReceiptDocument:
    """What a producer needs of its own request: nothing of others' in the same batch, of runs, or of what they said."""
    error = document.error
    if error is not None:
        error = error.model_copy(update={"message": _MEANING.get(error.kind or "", "The run failed.")})
    return document.model_copy(update={"batch": None, "run": None, "error": error})


def receipt_links(receipt: TaggedReceipt) -> dict[str, str]:
    """Where to go on from a receipt."""
    stream = f"/v1/streams/{receipt.receipt.stream}"
    return {"receipt": f"/v1/receipts/{receipt}", "stream": stream, "aggregates": f"{stream}/aggregates"}


def parse_receipt(text: str) -> TaggedReceipt:
    """A receipt from a URL; what cannot be one was never given out, hence the 404 problem."""
    try:
        found = TaggedReceipt.parse(text)
    except PermanentError:
        raise unknown_receipt(text) from None
    if max(found.receipt.entry) >= 2**63 or not text.isascii():
        raise unknown_receipt(text)
    return found


def unknown_receipt(text: str) -> ProblemError:
    """The 404 problem."""
    return ProblemError(
        "unknown-receipt", f"There never was a receipt {shown(text)!r}, or its batch is kept no longer."
    )
