"""A trial: producers send, faults strike, and then the oracle speaks. Makes one row."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline_platform_tests.faults.crowd import Crowd
from pipeline_platform_tests.faults.form import FORM
from pipeline_platform_tests.faults.rows import Row, keep, results_file
from pipeline_platform_tests.faults.stand import Stand
from pipeline_platform_tests.oracle import judge, settled, wait_for

DRAIN_SECONDS = 60.0  # the target: after any fault the backlog is gone within so long
PATIENCE = 240.0  # for a verdict on what was lost it is waited longer
SLOWEST = """
select id, state, attempt, planned_at::time(1), requested_at::time(1), started_at::time(1), loaded_at::time(1), failures
from assets order by coalesce(loaded_at, now()) - planned_at desc limit 5
"""
EXPECTED = {200, 202, 400, 429, 503}


class Trial:
    """What a running trial gives to its faults: the stack, a seeded source of chance, and how much was accepted."""

    def __init__(self, stand: Stand, fault: str, crowd: Crowd, rng: random.Random) -> None:
        self.stand, self.fault, self.crowd, self.rng = stand, fault, crowd, rng
        self.times = 0
        self.note = ""

    def pause(self, least: float, most: float) -> None:
        """Lets the stack work for a while."""
        time.sleep(self.rng.uniform(least, most))

    def wait_for_events(self, events: int, patience: float = 600.0) -> None:
        """Waits until so many events were acknowledged."""
        wait_for(f"{events} events are acknowledged", lambda: self.crowd.acknowledged >= events, patience)


@contextmanager
def trial(
    stand: Stand,
    family: str,
    fault: str,
    *,
    events: int = 0,
    rate: float = 1500.0,
    stream: str = "telemetry",
    poison: float = 0.0,
    size: int = 250,
    drained_within: float = DRAIN_SECONDS,
) -> Iterator[Trial]:
    """The block does the faults while producers send; afterwards everything has to be where it belongs.

    Raises AssertionError on any loss or doubling, and when the backlog is not drained in time.
    """
    crowd = Crowd(stand.where, f"{FORM.seed}/{fault}", stream=stream, rate=rate, poison=poison, size=size)
    under = Trial(stand, fault, crowd, random.Random(f"{FORM.seed}/{fault}"))
    print(f"\nseed {FORM.seed}: {fault}", flush=True)
    stand.spoiled = True  # until the oracle has said otherwise
    before = stand.sent.setdefault(stream, [])
    settled_before = sum(request.events for request in before if request.outcome == "acknowledged")
    with crowd.sending():
        yield under
        under.wait_for_events(events)
    back = stand.wait_until_ready()
    before += crowd.requests
    drained, late = _drain(stand, settled_before + crowd.acknowledged, stream, drained_within)
    verdict = judge(stand.where.warehouse_url, before, stream, stand.spec(stream))
    row = Row(
        family,
        fault,
        under.times,
        crowd.acknowledged,
        verdict.lost,
        verdict.doubled,
        verdict.differences,
        back,
        drained,
        FORM.seed,
        f"answers {dict(sorted(crowd.answers.items()))} {under.note}{late}",
    )
    keep(row)
    if drained > DRAIN_SECONDS / 3 or verdict.differences:
        _explain(stand, fault)
    assert verdict.differences == (), verdict.differences
    assert not late, late
    assert set(crowd.answers) <= EXPECTED, crowd.answers
    stand.spoiled = False


def _drain(stand: Stand, events: int, stream: str, within: float) -> tuple[float, str]:
    """How long it took until everything was loaded, and what is to be said when that was too long."""
    patience = max(PATIENCE, within)
    try:
        took = wait_for("drained", lambda: settled(stand.where.warehouse_url, events, stream), patience)
    except AssertionError:
        return patience, f"not everything was loaded within {patience:.0f} s"
    return took, "" if took <= within else f"the backlog took {took:.0f} s to drain"


def _explain(stand: Stand, fault: str) -> None:
    """Shows the batches that took longest, and keeps the log beside the rows."""
    kept = results_file().parent / f"{fault.replace(' ', '-')}.log"
    kept.write_text(stand.up.log)
    print(f"  the log is in {kept}; the batches that took longest:")
    with stand.database() as connection:
        for row in connection.execute(SLOWEST):
            print("  ", *row)
