"""One tick of a stream's planner: settle what went wrong, plan what is waiting, trim what is settled.

Knows the queue and the ledger but not Dagster, so that every decision can be tested without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from pipeline_platform.core.batches import plan_batches, retry_pause, whole_batch, without_rest
from pipeline_platform.core.breaker import BreakerState
from pipeline_platform.core.entries import ZERO
from pipeline_platform.core.failures import RUN_CANCELED, Failure, FailureKind, NextStep
from pipeline_platform.errors import PermanentError
from pipeline_platform.orchestration.resources import PlanLimits
from pipeline_platform.queue.protocol import Position, Queue
from pipeline_platform.warehouse.breakers import Breakers
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.ledger_rows import LedgerRow

LOOK_AHEAD = 20_000  # entries looked at a tick: more are planned on the next


class RunState(Enum):
    """What became of the run that was requested for an attempt."""

    ABSENT = "absent"
    ALIVE = "alive"
    SUCCEEDED = "succeeded"
    ENDED = "ended"
    CANCELED = "canceled"


@dataclass(frozen=True)
class Request:
    """A run to request: attempt `attempt` of a batch, in the way that its failures so far call for."""

    row: LedgerRow
    attempt: int
    mode: NextStep = NextStep.PLAIN


@dataclass(frozen=True)
class Tick:
    """What a tick decided, a sentence for its log, and what somebody has to look at.

    `charged` of the requests count towards the pace of runs: those of full batches do not.
    """

    requests: tuple[Request, ...]
    note: str
    alarm: str = ""
    paused: bool = False
    charged: int = 0


def tick(
    stream: str,
    queue: Queue,
    ledger: Ledger,
    breakers: Breakers,
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
        backwards = (
            f"The queue of {stream} is at {position.last_id}, behind the last planned entry {last_planned}: it was "
            "restored from an old copy, or its clock went back. See docs/operations.md, 'The queue went backwards'."
        )
        ledger.alarm(stream, backwards)
        raise PermanentError(backwards)
    unsettled = ledger.unsettled(stream)

    def halve(row: LedgerRow) -> None:
        _split(row, queue, ledger)

    requests = [again for row in unsettled if (again := retry(row, ledger, limits, run_state, now, halve))]
    room = limits.in_flight - len(unsettled)
    breaker, most = breakers.review(stream, asset_key, limits.breaker, now), limits.max_events
    if breaker.state is not BreakerState.CLOSED:
        room, most = int(breaker.probing), min(most, limits.breaker.probe_events)
    full: set[int] = set()
    if room > 0 and position.last_id > last_planned:
        waiting = queue.waiting(stream, last_planned, LOOK_AHEAD)
        batches = without_rest(
            plan_batches(stream, waiting, max_events=most, max_bytes=limits.max_bytes, max_batches=room)
        )
        planned = ledger.plan(stream, batches, asset_key=asset_key, job_name=job_name)
        full = {row.id for row, batch in zip(planned, batches, strict=False) if batch.full}
        if breaker.probing and planned:
            breakers.probe(stream, planned[0].id)
        requests += [Request(row, 1) for row in planned]
    granted = tuple(request for request in requests if ledger.request(request.row.id, request.attempt))
    alarm = _trim(stream, queue, ledger, position)
    paused = breaker.state is not BreakerState.CLOSED
    note = _note(position, len(unsettled), granted)
    if paused:
        note = f"{note}; its breaker is {breaker.state}: {breaker.reason}"
    return Tick(granted, note, alarm, paused, charged=sum(request.row.id not in full for request in granted))


def retry(
    row: LedgerRow,
    ledger: Ledger,
    limits: PlanLimits,
    run_state: Callable[[LedgerRow], RunState],
    now: datetime,
    halve: Callable[[LedgerRow], object],
) -> Request | None:
    """The next attempt of an unsettled batch, when its time has come. `halve` makes two batches of one."""
    if row.not_before is not None:  # an attempt has failed
        if now < row.not_before:
            return None
    elif row.requested_at is not None:
        state = run_state(row)
        if state is RunState.ALIVE:
            return None
        if state is RunState.ABSENT and now - row.requested_at < timedelta(seconds=limits.lost_run_after):
            return None  # the request may still be on its way
        if state in (RunState.ENDED, RunState.CANCELED):
            # The run did not record its own failure: it was killed, or never started. Look again after the pause.
            ledger.fail(row.id, _ended(row, state), not_before=now + timedelta(seconds=retry_pause(row.attempt)))
            return None
    step = row.next_step
    if step is NextStep.SPLIT:
        halve(row)
        return None  # the halves are looked at in the next tick
    return Request(row, row.attempt + 1, step)


def _ended(row: LedgerRow, state: RunState) -> Failure:
    kind, name = FailureKind.LOST, "RunLost"
    words = "The run ended without recording an outcome: it was killed, or it could not start."
    if state is RunState.CANCELED:
        kind, name, words = FailureKind.CANCELED, RUN_CANCELED, "The run was canceled."
    return Failure(kind, name, words, attempt=row.attempt, mode=row.next_step, run_id=row.run_id)


def _split(row: LedgerRow, queue: Queue, ledger: Ledger) -> None:
    """Halves a batch that cannot be loaded as a whole, so that what is good in it does not wait for what is not."""
    sizes = [size for size in queue.waiting(row.stream, row.first_id.before(), row.entries) if size.id <= row.last_id]
    half = len(sizes) // 2
    if half:
        ledger.split(row, whole_batch(row.stream, sizes[:half]), whole_batch(row.stream, sizes[half:]))


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
        alarm = (
            f"The queue of {stream} holds {held} events below {watermark}, but the ledger planned {known} there. "
            "Nothing is trimmed until somebody has looked: see docs/operations.md, 'The queue went backwards'."
        )
        ledger.alarm(stream, alarm)
        return alarm
    queue.trim(stream, watermark)
    ledger.alarm(stream, "")
    return ""


def _note(position: Position, unsettled: int, granted: tuple[Request, ...]) -> str:
    planned = sum(request.row.events_planned for request in granted)
    again = sum(request.attempt > 1 for request in granted)
    return (
        f"{position.entries} entries ({position.events} events) in the queue, {unsettled} batches in flight; "
        f"requested {len(granted)} runs for {planned} events, {again} of them again"
    )
