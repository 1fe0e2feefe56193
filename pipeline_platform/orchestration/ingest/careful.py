"""Validation of a batch, in the way that its failures so far call for."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline_platform.core.entries import Entry
from pipeline_platform.core.events import decode
from pipeline_platform.core.failures import NextStep
from pipeline_platform.core.isolation import all_poison, as_poison, find_bad, without
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.validation import Validated, validate
from pipeline_platform.orchestration.ingest.rehearsal import Task, rehearsing
from pipeline_platform.warehouse.ledger_rows import LedgerRow

TRIALS = 2_000  # parts of one batch that are tried; what is undecided then is parked as a whole


def validated(
    spec: StreamSpec, row: LedgerRow | None, entries: Sequence[Entry], mode: NextStep, warehouse_url: str
) -> Validated:
    """The events that keep the contract. Lines that no process survives are rejected as `poison`, with what they did.

    Raises TransientError or PermanentError where a rehearsal says nothing about the lines.
    """
    if row is None or mode in (NextStep.PLAIN, NextStep.SPLIT):
        return validate(decode(entries, spec), entries, spec)
    if mode is NextStep.BURY:
        nothing = validate(decode((), spec), (), spec)
        message = row.error_message or "The request cannot be loaded."
        return Validated(nothing.columns, all_poison(entries, message), 0)
    with rehearsing(Task(spec, entries, row.id, warehouse_url)) as rehearsal:
        bad = find_bad(sum(entry.count for entry in entries), rehearsal.trial, trials=TRIALS)
    cleaned, messages = without(entries, bad)
    valid = validate(decode(cleaned, spec), cleaned, spec)
    return Validated(valid.columns, as_poison(valid.rejections, messages), valid.late) if messages else valid
