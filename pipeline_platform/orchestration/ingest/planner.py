"""One tick of a stream's planner: settle what went wrong, plan what is waiting, trim what is settled.

Knows the queue and the ledger but not Dagster, so that every decision can be tested without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from pipeline_platform.core.batches import plan_batches, retry_pause
from pipeline_platform.core.entries import ZERO
from pipeline_platform.errors import PermanentError
from pipeline_platform.orchestration.resources import PlanLimits
from pipeline_platform.queue.protocol import Position, Queue
from pipeline_platform.warehouse.ledger import Ledger, LedgerRow

LOOK_AHEAD = 20_000  # entries looked at a tick: more are planned on the next


class RunState(Enum):
    """What became of the run that was requested for an attempt."""

    ABSENT = "absent"
    ALIVE = "alive"
    SUCCEEDED = "succeeded"
    ENDED = "ended"


@dataclass(frozen=True)
class Request:
    """A run to request: attempt `attempt` of a batch."""

    row: LedgerRow
    attempt: int


@dataclass(frozen=True)
class Tick:
    """What a tick decided, a sentence for its log, and what somebody has to look at."""

    requests: tuple[Request, ...]
    note: str
    alarm: str = ""


def tick(
    stream: str,
    queue: Queue,
    ledger: Ledger,
    limits: PlanLimits,
    run_state: Callable[[LedgerRow], RunState],
    now: datetime,
    *,
    asset_key: str,
    job_name: str,
) -> Tick:
    """Decides what to request. A batch is requested only after its attempt is in the ledger.

    Raises PermanentError when the queue's ids went backwards: entries below the last planned id would never be read.
    """
    position = queue.position(stream)
    last_planned = ledger.last_planned(stream)
    if position.entries and position.last_id < last_planned:
        raise PermanentError(
            f"The queue of {stream} is at {position.last_id}, behind the last planned entry {last_planned}: it was "
            "restored from an old copy, or its clock went back. See docs/operations.md, 'The queue went backwards'."
        )
    unsettled = ledger.unsettled(stream)
    requests = [again for row in unsettled if (again := _retry(row, ledger, limits, run_state, now))]
    room = limits.in_flight - len(unsettled)
    if room > 0 and position.last_id > last_planned:
        waiting = queue.waiting(stream, last_planned, LOOK_AHEAD)
        batches = plan_batches(
            stream, waiting, max_events=limits.max_events, max_bytes=limits.max_bytes, max_batches=room
        )
        requests += [Request(row, 1) for row in ledger.plan(stream, batches, asset_key=asset_key, job_name=job_name)]
    granted = tuple(request for request in requests if ledger.request(request.row.id, request.attempt))
    alarm = _trim(stream, queue, ledger, position)
    return Tick(granted, _note(position, len(unsettled), granted), alarm)


def _retry(
    row: LedgerRow,
    ledger: Ledger,
    limits: PlanLimits,
    run_state: Callable[[LedgerRow], RunState],
    now: datetime,
) -> Request | None:
    """The next attempt of an unsettled batch, when its time has come."""
    if row.requested_at is None:
        return Request(row, row.attempt + 1)
    if row.state == "planned":
        state = run_state(row)
        if state is RunState.ALIVE:
            return None
        if state is RunState.ABSENT and now - row.requested_at < timedelta(seconds=limits.lost_run_after):
            return None  # the request may still be on its way
        if state is RunState.ENDED:
            # The run did not record its own failure: it was killed, or never started. Look again after the pause.
            ledger.fail(
                row.id,
                row.attempt,
                run_id=row.run_id,
                error_class="RunLost",
                message="The run ended without recording an outcome: it was killed, or it could not start.",
                not_before=now + timedelta(seconds=retry_pause(row.attempt)),
            )
            return None
    elif row.not_before is not None and now < row.not_before:
        return None
    return Request(row, row.attempt + 1)


def _trim(stream: str, queue: Queue, ledger: Ledger, position: Position) -> str:
    """Trims what is settled; returns an alarm instead when the queue holds there what the ledger does not know of.

    Such events were never planned: the queue was emptied and its clock set back, so that new ids fell below old ones.
    """
    watermark = ledger.watermark(stream)
    oldest = position.oldest_id
    if watermark == ZERO or oldest is None or oldest >= watermark:
        return ""
    held, known = queue.events_below(stream, watermark), ledger.events_planned(stream, oldest, watermark)
    if held != known:
        return (
            f"The queue of {stream} holds {held} events below {watermark}, but the ledger planned {known} there. "
            "Nothing is trimmed until somebody has looked: see docs/operations.md, 'The queue went backwards'."
        )
    queue.trim(stream, watermark)
    return ""


def _note(position: Position, unsettled: int, granted: tuple[Request, ...]) -> str:
    planned = sum(request.row.events_planned for request in granted)
    again = sum(request.attempt > 1 for request in granted)
    return (
        f"{position.entries} entries ({position.events} events) in the queue, {unsettled} batches in flight; "
        f"requested {len(granted)} runs for {planned} events, {again} of them again"
    )
