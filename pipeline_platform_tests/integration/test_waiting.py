"""How long a tick lingers for more, by what waits to be planned."""

from __future__ import annotations

from pipeline_platform.core.batches import Pace
from pipeline_platform.orchestration.ingest.waiting import wait_for_work
from pipeline_platform_tests.integration.planning import LIMITS, NAME, World

BUSY = Pace(0.0, 0.0)  # no token: the next run is due in a second


def lingered(world: World) -> float:
    """How long a tick that may linger a second does, on a clock that only sleeping moves."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return wait_for_work(NAME, world.queue, world.ledger, LIMITS, BUSY, lambda: now[0], sleep)


def test_less_than_a_batch_lingers_for_more(world: World) -> None:
    world.post(1, events=LIMITS.max_events - 1)
    assert lingered(world) >= 1.0


def test_a_whole_batch_does_not_wait_for_what_would_not_fit_in(world: World) -> None:
    world.post(1, events=LIMITS.max_events)
    assert lingered(world) == 0.0


def test_what_is_planned_and_not_yet_trimmed_does_not_count(world: World) -> None:
    world.post(2, events=LIMITS.max_events)
    assert len(world.tick().requests) == 2
    world.post(1)
    assert lingered(world) >= 1.0


def test_a_full_pipeline_is_not_lingered_for(world: World) -> None:
    world.post(5, events=LIMITS.max_events)
    assert len(world.tick().requests) == LIMITS.in_flight
    assert lingered(world) == 0.0
