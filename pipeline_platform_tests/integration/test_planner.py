"""The planner's tick on a real ledger: every entry is planned once, and no batch is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from pipeline_platform.core.entries import EntryId
from pipeline_platform.core.failures import Failure, FailureKind
from pipeline_platform.errors import PermanentError
from pipeline_platform.orchestration.ingest.planner import Request, RunState, Tick
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.ledger_rows import LedgerRow
from pipeline_platform_tests.integration.batches import event, execute, rows
from pipeline_platform_tests.integration.planning import LIMITS, NAME, World


def test_an_empty_queue_asks_for_nothing(world: World) -> None:
    assert world.tick().requests == ()
    assert world.ledger.unsettled(NAME) == []


def test_every_entry_is_loaded_once_within_the_bounds(world: World) -> None:
    world.post(7, events=4)
    loaded, ticks = 0, 0
    while world.queue.position(NAME).entries:
        decided = world.tick()
        for request in decided.requests:
            assert request.row.events_planned <= LIMITS.max_events
            loaded += world.load(request)
        world.post(2 if ticks < 5 else 0, events=3)
        ticks += 1
        assert ticks < 20
    assert loaded == 7 * 4 + 5 * 2 * 3
    assert rows(world.engine, "select count(*) from telemetry") == [(loaded,)]
    assert world.ledger.totals(NAME).events_loaded == loaded


def test_no_more_batches_are_in_flight_than_allowed(world: World) -> None:
    world.post(100, events=5)
    assert len(world.tick().requests) == 3
    assert world.tick().requests == ()
    first = world.ledger.unsettled(NAME)[0]
    world.load(Request(first, 1))
    assert len(world.tick().requests) == 1
    assert len(world.ledger.unsettled(NAME)) == 3


def test_a_failed_batch_keeps_its_place_in_flight(world: World) -> None:
    world.post(100, events=10)
    for request in world.tick().requests:
        _fail(world, request, seconds=60)
    assert world.tick().requests == ()


def test_a_lost_request_is_repeated_only_after_a_while(world: World) -> None:
    world.post(1)
    (first,) = world.tick().requests
    requested = _get(world, first).requested_at
    assert requested is not None
    world.now = requested + timedelta(seconds=59.9)
    assert world.tick().requests == ()
    world.now = requested + timedelta(seconds=60)
    (again,) = world.tick().requests
    assert (again.row.id, again.attempt) == (first.row.id, 2)
    assert world.tick().requests == ()


def test_a_run_that_is_queued_or_running_is_waited_for(world: World) -> None:
    world.post(1)
    (first,) = world.tick().requests
    world.runs[first.row.id, 1] = RunState.ALIVE
    world.wait(3600)
    assert world.tick().requests == ()


def test_a_run_that_ended_without_a_word_is_written_down_and_tried_again_after_a_pause(world: World) -> None:
    world.post(1)
    (first,) = world.tick().requests
    world.runs[first.row.id, 1] = RunState.ENDED
    assert world.tick().requests == ()
    assert rows(world.engine, "select state, error_class, run_id, attempt from assets") == [
        ("failed", "RunLost", None, 1)
    ]
    world.wait(1.9)
    assert world.tick().requests == ()
    world.wait(0.2)
    (again,) = world.tick().requests
    assert again.attempt == 2
    assert world.load(again) == 1


def test_a_run_that_failed_is_tried_again_after_its_pause(world: World) -> None:
    world.post(1)
    (first,) = world.tick().requests
    _fail(world, first, seconds=4)
    world.wait(3.9)
    assert world.tick().requests == ()
    world.wait(0.2)
    assert [request.attempt for request in world.tick().requests] == [2]


def test_a_run_that_succeeded_without_loading_is_requested_again(world: World) -> None:
    world.post(1)
    (first,) = world.tick().requests
    world.runs[first.row.id, 1] = RunState.SUCCEEDED
    assert [request.attempt for request in world.tick().requests] == [2]


def test_a_batch_that_is_loaded_while_the_planner_looks_is_not_requested_again(world: World) -> None:
    world.post(1)
    (first,) = world.tick().requests

    def loads_meanwhile(row: LedgerRow) -> RunState:
        world.load(first)
        return RunState.SUCCEEDED

    assert _tick_with(world, loads_meanwhile).requests == ()
    assert rows(world.engine, "select state, attempt from assets") == [("loaded", 1)]


def test_a_crash_between_plan_and_request_is_made_good_by_the_next_tick(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.post(30)
    monkeypatch.setattr(Ledger, "request", _crash)
    with pytest.raises(KeyboardInterrupt):
        world.tick()
    monkeypatch.undo()
    assert [row.requested_at for row in world.ledger.unsettled(NAME)] == [None, None, None]
    assert [(request.row.id, request.attempt) for request in world.tick().requests] == [(1, 1), (2, 1), (3, 1)]


def test_two_planners_request_each_batch_once(world: World) -> None:
    world.post(25)
    requested: list[Request] = []

    def second_planner(row: LedgerRow) -> RunState:
        requested.extend(world.tick().requests)
        return RunState.SUCCEEDED

    requested += world.tick(replace(LIMITS, in_flight=1)).requests
    requested += _tick_with(world, second_planner).requests
    keys = [(request.row.id, request.attempt) for request in requested]
    assert sorted(keys) == sorted(set(keys))


def test_only_what_is_below_the_watermark_is_trimmed(world: World) -> None:
    world.post(30)
    first, second, third = world.tick().requests
    world.load(second)
    world.tick()
    assert world.queue.position(NAME).entries == 30
    world.load(first)
    world.tick()
    assert world.queue.position(NAME).oldest_id == third.row.first_id
    world.load(third)
    world.post(1)
    (fourth,) = world.tick().requests
    assert world.queue.position(NAME).oldest_id == fourth.row.first_id


def test_everything_settled_leaves_an_empty_queue_and_a_new_event_is_planned_after_it(world: World) -> None:
    world.post(1)
    world.load(world.tick().requests[0])
    world.tick()
    assert world.queue.position(NAME).entries == 0
    world.post(1)
    (request,) = world.tick().requests
    assert world.load(request) == 1


def test_entries_that_the_ledger_never_knew_are_not_trimmed(engine: sa.Engine, ledger: Ledger, redis_url: str) -> None:
    # Given a queue that was emptied, and whose clock was set back for a while
    client = connect(redis_url)
    world = World(engine, RedisStreams(client), ledger)
    world.post(3)
    world.load(world.tick().requests[0])
    client.flushdb()
    low = EntryId(ledger.last_planned(NAME).ms - 1000, 0)
    client.xadd(f"pp:{{{NAME}}}:entries", {"n": 1, "k": "k", "d": event() + b"\n"}, id=str(low))
    client.xadd(f"pp:{{{NAME}}}:sizes", {"n": 1, "b": 10, "e": 1}, id=str(low))
    client.hincrby(f"pp:{{{NAME}}}:totals", "events", 1)
    # If its ids pass the last planned one again
    world.post(2)
    world.load(world.tick().requests[0])
    after = world.tick()
    # I expect the entry that nobody planned to stay, and somebody to be told
    assert "holds 3 events" in after.alarm
    assert "went backwards" in after.alarm
    assert next(world.queue.read(NAME, low, low)).id == low
    assert rows(engine, "select kind, severity from alerts where resolved_at is null") == [
        ("queue_backwards", "critical")
    ]


def test_a_queue_that_went_backwards_stops_the_planner(world: World) -> None:
    ahead = EntryId(10**14, 0)
    world.post(1)
    world.tick()
    execute(world.engine, "update assets set last_ms = :ms", ms=ahead.ms)
    with pytest.raises(PermanentError, match="went backwards"):
        world.tick()
    assert world.queue.position(NAME).entries == 1


def _tick_with(world: World, run_state: Callable[[LedgerRow], RunState]) -> Tick:
    return world.tick_with(run_state)


def _fail(world: World, request: Request, *, seconds: float) -> None:
    assert world.ledger.fail(
        request.row.id,
        Failure(FailureKind.PERMANENT, "E", "m", attempt=request.attempt, run_id="run"),
        not_before=world.now + timedelta(seconds=seconds),
    )


def _get(world: World, request: Request) -> LedgerRow:
    row = world.ledger.get(request.row.id)
    assert row is not None
    return row


def _crash(*_: object) -> bool:
    raise KeyboardInterrupt


def test_full_batches_are_free_and_what_is_left_behind_them_is_planned_next(world: World) -> None:
    world.post(25)
    first = world.tick()
    assert ([request.row.events_planned for request in first.requests], first.charged) == ([10, 10], 0)
    second = world.tick()
    assert ([request.row.events_planned for request in second.requests], second.charged) == ([5], 1)
