"""A bad deploy opens the breaker: planning pauses, nothing is lost, and a small batch decides when it goes on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline_platform.core.breaker import BreakerLimits, BreakerState
from pipeline_platform.orchestration.ingest.planner import RunState
from pipeline_platform.queue.protocol import NewEntry
from pipeline_platform.warehouse import breakers
from pipeline_platform.warehouse.breakers import Breakers
from pipeline_platform.warehouse.health import HealthState, stream_health
from pipeline_platform_tests.integration.batches import event, rows
from pipeline_platform_tests.integration.planning import LIMITS, NAME, World

BREAKER = BreakerLimits(share=0.2, window=100, minimum=10, pause=60.0, probe_events=3)
PLANS = replace(LIMITS, max_events=20, breaker=BREAKER)


def test_a_bad_deploy_opens_it_and_an_alert_says_why_with_three_examples(world: World) -> None:
    _open(world)
    before = world.queue.position(NAME).last_id
    _post(world, good=30)

    paused = world.tick(PLANS)

    assert (paused.requests, paused.paused) == ((), True)
    assert "20 of the last 20 events were rejected" in paused.note
    assert world.queue.position(NAME).last_id > before
    ((kind, severity, sample),) = rows(
        world.engine, "select kind, severity, sample from alerts where resolved_at is null"
    )
    assert (kind, severity, len(sample)) == ("breaker_open", "critical", 3)
    assert {"missing_field", "unknown_field"} <= {example["reason"] for example in sample}
    assert all(len(example["payload"]) <= 200 for example in sample)
    assert stream_health(world.engine, NAME).state is HealthState.PAUSED


def test_a_good_probe_closes_it_and_everything_that_waited_is_loaded(world: World) -> None:
    _open(world)
    _post(world, good=30)
    world.tick(PLANS)
    world.wait(59)
    assert world.tick(PLANS).requests == ()
    world.wait(2)
    (probe,) = world.tick(PLANS).requests
    assert probe.row.events_planned == 3
    world.runs[probe.row.id, 1] = RunState.ALIVE
    assert world.tick(PLANS).requests == (), "one probe, not several"
    world.load(probe)

    assert _drain(world) == 27

    assert rows(world.engine, "select resolved_at is not null from alerts where kind = 'breaker_open'") == [(True,)]
    assert Breakers(world.engine).get(NAME).state is BreakerState.CLOSED
    assert stream_health(world.engine, NAME).state is HealthState.OK


def test_a_bad_probe_opens_it_again_for_twice_as_long(world: World) -> None:
    _open(world)
    _post(world, bad=30)
    world.tick(PLANS)
    for seconds in (60, 120, 240):
        world.wait(seconds - 1)
        assert world.tick(PLANS).requests == ()
        world.wait(1)
        (probe,) = world.tick(PLANS).requests
        world.load(probe)
        assert world.tick(PLANS).paused
    assert rows(world.engine, "select openings from breakers") == [(4,)]
    assert rows(world.engine, "select times from alerts") == [(4,)]


def test_a_probe_that_was_the_last_event_is_judged_too(world: World) -> None:
    _open(world)
    _post(world, good=1)
    world.tick(PLANS)
    world.wait(61)
    (probe,) = world.tick(PLANS).requests
    world.load(probe)
    world.tick(PLANS)
    assert Breakers(world.engine).get(NAME).state is BreakerState.CLOSED


def test_resume_goes_on_regardless_and_old_rejects_no_longer_count(world: World) -> None:
    _open(world)
    _post(world, good=30)
    assert world.tick(PLANS).paused
    breakers = Breakers(world.engine)
    assert breakers.resume(NAME, "key k1", world.now)
    assert not breakers.resume(NAME, "key k1", world.now)
    assert _drain(world) == 30
    assert breakers.get(NAME).reason == "Resumed by key k1."


def test_few_rejects_and_repeats_of_an_event_id_do_not_open_it(world: World) -> None:
    _post(world, bad=9)
    assert _drain(world) == 9
    assert not world.tick(PLANS).paused
    _post(world, bad=20)
    for request in world.tick(PLANS).requests:
        world.load(request)
    with world.engine.begin() as connection:
        connection.exec_driver_sql("update assets set events_duplicate = events_rejected")
    assert not world.tick(PLANS).paused


@pytest.mark.parametrize(("calm", "openings"), [(800, 2), (901, 1)])
def test_one_that_opens_again_soon_after_it_closed_waits_longer(world: World, calm: float, openings: int) -> None:
    _open(world)
    _post(world, good=30)
    world.tick(PLANS)
    world.wait(60)
    _drain(world)
    assert Breakers(world.engine).get(NAME).state is BreakerState.CLOSED
    world.wait(calm)
    _open(world)
    breaker = Breakers(world.engine).get(NAME)
    assert breaker.openings == openings
    assert breaker.probe_at == world.now + timedelta(seconds=60 * 2 ** (openings - 1))


def test_a_stream_of_one_event_a_batch_is_judged_by_its_last_events_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breakers, "BATCHES", 5)
    single = replace(PLANS, max_events=1, in_flight=100)
    _post(world, bad=12)
    for request in world.tick(single).requests:
        world.load(request)
    assert world.tick(single).paused
    assert "12 of the last 12 events" in str(Breakers(world.engine).get(NAME).reason)


def _open(world: World) -> None:
    _post(world, bad=20)
    for request in world.tick(PLANS).requests:
        world.load(request)
    assert world.tick(PLANS).paused


def _post(world: World, *, good: int = 0, bad: int = 0) -> None:
    kinds = [b'{"source": "s1"}', event(colour="red"), event(value="x" * 500)]
    lines = [event()] * good + [kinds[number % 3] for number in range(bad)]
    world.queue.append([NewEntry(NAME, 1, line + b"\n", "k1") for line in lines])


def _drain(world: World) -> int:
    read = 0
    for _ in range(50):
        for request in world.tick(PLANS).requests:
            read += world.load(request)
        world.wait(timedelta(seconds=0.1).total_seconds())
    return read
