"""Validation of a batch, in the way that its failures so far call for."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from pipeline_platform.core.entries import Entry
from pipeline_platform.core.events import decode
from pipeline_platform.core.failures import NextStep
from pipeline_platform.core.isolation import Bad, all_poison, as_poison, find_bad, without
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.validation import Validated, validate
from pipeline_platform.errors import TooManyBadLinesError
from pipeline_platform.orchestration.ingest.rehearsal import Task, rehearsing
from pipeline_platform.warehouse.ledger_rows import LedgerRow

MOST_BAD = 100  # lines; a batch of several requests that has more is halved, and each half looked at by itself
SHARE = 1 / 3  # of the time that a run may take, to find the bad lines in
UNDECIDED = (
    "It is in a request with more lines that cannot be processed than there was time to find; it may be a good one. A "
    "replay tries it again."
)


def validated(
    spec: StreamSpec,
    row: LedgerRow | None,
    entries: Sequence[Entry],
    mode: NextStep,
    warehouse_url: str,
    max_run_seconds: float,
) -> Validated:
    """The events that keep the contract. Lines that no process survives are rejected as `poison`, with what they did.

    Raises TransientError or PermanentError where a rehearsal says nothing about the lines, TooManyBadLinesError where
    the batch has to be halved first.
    """
    if row is None or mode in (NextStep.PLAIN, NextStep.SPLIT):
        return validate(decode(entries, spec), entries, spec)
    if mode is NextStep.BURY:
        nothing = validate(decode((), spec), (), spec)
        message = row.error_message or "The request cannot be loaded."
        return Validated(nothing.columns, all_poison(entries, message), 0)
    until = time.monotonic() + SHARE * max_run_seconds
    most = MOST_BAD if len(entries) > 1 else math.inf
    lines = sum(entry.count for entry in entries)
    with rehearsing(Task(spec, entries, row.id, warehouse_url)) as rehearsal:
        bad, undecided = find_bad(lines, rehearsal.processed, lambda found: found <= most and time.monotonic() < until)
        if not undecided:  # what is left may still be too much for the load; mostly one trial says that it is not
            rehearsal.leave_out(bad)
            more, undecided = find_bad(
                lines, rehearsal.loaded, lambda found: len(bad) + found <= most and time.monotonic() < until
            )
            bad += more
    if undecided and len(entries) > 1:
        raise TooManyBadLinesError(
            f"{len(bad)} lines that cannot be processed were found, and there are more: the batch is halved."
        )
    bad += [Bad(start, end, UNDECIDED) for start, end in undecided]
    cleaned, messages = without(entries, bad)
    valid = validate(decode(cleaned, spec), cleaned, spec)
    return Validated(valid.columns, as_poison(valid.rejections, messages), valid.late) if messages else valid
