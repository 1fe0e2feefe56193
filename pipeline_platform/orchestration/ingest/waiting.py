"""What a tick of the ingest sensor does before it plans: it waits on the queue, and lingers for more.

A tick that only looked would be as late as the daemon's interval; one that waits inside starts the run when the data
comes. See docs/decisions for why the ceiling on runs exists.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from pipeline_platform.core.batches import Pace, linger
from pipeline_platform.core.entries import EntryId
from pipeline_platform.orchestration.resources import PlanLimits
from pipeline_platform.queue.protocol import Queue
from pipeline_platform.warehouse.ledger import Ledger

BUSY_SECONDS = 1.0  # with batches in flight, look after them at least so often
SLOT_POLL_SECONDS = 0.05


def wait_for_work(
    stream: str,
    queue: Queue,
    ledger: Ledger,
    limits: PlanLimits,
    pace: Pace,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Returns when there is something to plan, or to look after; how long it lingered for more, in seconds."""
    until = clock() + limits.hold_seconds
    last_planned = ledger.last_planned(stream)
    in_flight = len(ledger.unsettled(stream))
    while in_flight >= limits.in_flight and clock() < until:  # full: nothing can be planned before a batch is settled
        sleep(SLOT_POLL_SECONDS)
        in_flight = len(ledger.unsettled(stream))
    hold = min(BUSY_SECONDS, limits.hold_seconds) if in_flight else limits.hold_seconds
    if in_flight >= limits.in_flight or not queue.wait(stream, last_planned, hold):
        return 0.0
    began = clock()
    pause = linger(pace, began, limits.pace)
    while (left := pause - (clock() - began)) > 0:
        if _full(stream, queue, last_planned, limits):
            break
        sleep(min(left, 0.2))
    return clock() - began


def _full(stream: str, queue: Queue, last_planned: EntryId, limits: PlanLimits) -> bool:
    """Whether a whole batch waits to be planned already: more would not fit in."""
    untrimmed = queue.position(stream).events
    return untrimmed >= limits.max_events and (
        untrimmed - queue.events_below(stream, last_planned.next()) >= limits.max_events
    )


def cursor_of(pace: Pace, lingered: float, note: str) -> str:
    """The cursor: for the next tick the pace, for people the rest. The ledger is what planning goes by."""
    return json.dumps({**pace.noted(), "lingered": round(lingered, 3), "note": note})
