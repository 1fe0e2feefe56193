"""`?strict=true`: the whole request is held to the stream's contract at once, by the code that the run uses."""

from __future__ import annotations

import time

from pipeline_platform.core.entries import Entry, EntryId
from pipeline_platform.core.events import decode
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.validation import validate
from pipeline_platform.gateway.ndjson import Events
from pipeline_platform.gateway.problems import ProblemError

LISTED = 100


def require_contract(events: Events, spec: StreamSpec, *, now_ms: int | None = None) -> None:
    """Raises the 422 problem with an entry a bad event, the first LISTED of them. Blocking: for a worker thread."""
    entry = Entry(EntryId(now_ms if now_ms is not None else time.time_ns() // 1_000_000, 0), events.count, events.data)
    rejections = validate(decode([entry], spec), [entry], spec).rejections
    total = len(rejections)
    if not total:
        return
    found = []
    for line, kind in zip(rejections.line[:LISTED].tolist(), rejections.kind[:LISTED].tolist(), strict=True):
        problem = rejections.problems[kind]
        found.append(
            {"index": line, "code": problem.reason.value, "field": problem.field or None, "message": problem.message}
        )
    detail = f"{total} of {events.count} events break the contract of {spec.name}; nothing was accepted."
    raise ProblemError("contract", detail, errors=found, total=total)
