"""Streams with `unique_event_id`: every id is loaded once in its time, whatever races, fails or is tried again."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline_platform.core.edits import Edit
from pipeline_platform.core.entries import Entry, EntryId
from pipeline_platform.errors import PermanentError, TransientError
from pipeline_platform.warehouse import load as load_module
from pipeline_platform.warehouse.dead_letters import LetterFilter
from pipeline_platform.warehouse.event_ids import purge_expired_ids
from pipeline_platform.warehouse.load import Loaded, load
from pipeline_platform.warehouse.replay_preview import preview
from pipeline_platform.warehouse.replays import begin
from pipeline_platform_tests.integration.batches import (
    NOW_MS,
    UNIQUE,
    execute,
    ledger_agrees,
    load_entries,
    minutes_agree,
    plan,
    ready,
    rows,
)
from pipeline_platform_tests.integration.letters import Replays

HOUR_MS = 3_600_000
TABLES = "assets, batch_receipts, dead_letters, payments_events, payments_minutes, payments_series, payments_event_ids"


def payment(event_id: str, amount: float = 1.0, **fields: Any) -> bytes:
    """An event of UNIQUE."""
    return orjson.dumps({"shop": "s", "amount": amount, "event_id": event_id} | fields)


def received(after_ms: int, *lines: bytes) -> Entry:
    """A request made durable so long after NOW_MS."""
    return Entry(EntryId(NOW_MS + after_ms, 0), len(lines), b"".join(line + b"\n" for line in lines))


def ids(engine: sa.Engine) -> list[tuple[Any, ...]]:
    """What is taken: the id, by which batch, and since when in milliseconds after NOW_MS."""
    since = f"(extract(epoch from received_at) * 1000)::bigint - {NOW_MS}"
    return rows(engine, f"select event_id, batch_id, {since} from payments_event_ids order by 1")


def agree(engine: sa.Engine) -> None:
    """Facts, aggregates, ledger and dead letters are one."""
    assert ledger_agrees(engine, UNIQUE).differences == ()
    assert minutes_agree(engine, UNIQUE).differences == ()


def test_repeats_within_and_across_batches_become_dead_letters_and_leave_the_aggregates_alone(
    engine: sa.Engine,
) -> None:
    first = load_entries(engine, UNIQUE, received(0, payment("a", 1), payment("b", 2), payment("a", 10)))
    assert (first.read, first.loaded, first.negative, first.rejected, first.duplicate) == (3, 2, 0, 1, 1)
    second = load_entries(engine, UNIQUE, received(1, payment("b", 20)), received(2, payment("c", 3)))
    assert (second.read, second.loaded, second.rejected, second.duplicate) == (2, 1, 1, 1)
    assert rows(engine, "select amount from payments order by 1") == [(1.0,), (2.0,), (3.0,)]
    assert rows(engine, "select sum(amount_sum), sum(events) from payments_1m") == [(6.0, 3)]
    assert ids(engine) == [("a", 1, 0), ("b", 1, 0), ("c", 2, 2)]
    assert rows(engine, "select reason, field, line, receipt, payload from dead_letters order by id") == [
        ("duplicate_event_id", "event_id", 2, f"payments.{NOW_MS}-0", payment("a", 10).decode()),
        ("duplicate_event_id", "event_id", 0, f"payments.{NOW_MS + 1}-0", payment("b", 20).decode()),
    ]
    assert rows(engine, "select events_rejected, events_duplicate from assets order by id") == [(1, 1), (1, 1)]
    assert rows(engine, "select received, rejected from batch_receipts order by 1") == [([1, 1], [1, 0]), ([3], [1])]
    agree(engine)


def test_a_dropped_negative_has_its_id_and_is_counted_once(engine: sa.Engine) -> None:
    first = load_entries(engine, UNIQUE, received(0, payment("a", -1), payment("a", -1), payment("a", 5)))
    assert (first.loaded, first.negative, first.duplicate) == (0, 1, 2)
    assert load_entries(engine, UNIQUE, received(1, payment("a", -1))).duplicate == 1
    assert rows(engine, "select sum(events_negative) from assets") == [(1,)]
    agree(engine)


def test_a_rejected_event_leaves_its_id_to_the_corrected_one(engine: sa.Engine) -> None:
    bad = load_entries(engine, UNIQUE, received(0, payment("a", colour="red"), payment("a", shop=None)))
    assert (bad.loaded, bad.rejected, bad.duplicate) == (0, 2, 0)
    assert load_entries(engine, UNIQUE, received(1, payment("a"))).loaded == 1


def test_an_event_without_an_id_is_rejected(engine: sa.Engine) -> None:
    assert load_entries(engine, UNIQUE, received(0, b'{"shop": "s", "amount": 1}')).rejected == 1
    assert rows(engine, "select reason, field from dead_letters") == [("missing_field", "event_id")]


@pytest.mark.parametrize(("later_ms", "loaded"), [(HOUR_MS - 1, 1), (HOUR_MS, 2)])
def test_an_id_is_free_again_for_what_is_received_a_whole_period_later(
    engine: sa.Engine, later_ms: int, loaded: int
) -> None:
    load_entries(engine, UNIQUE, received(0, payment("a")))
    load_entries(engine, UNIQUE, received(later_ms, payment("a")))
    assert rows(engine, "select count(*) from payments") == [(loaded,)]
    assert ids(engine) == [("a", loaded, later_ms if loaded == 2 else 0)]
    agree(engine)


def test_within_one_batch_too(engine: sa.Engine) -> None:
    """An id that another batch has, asked for before and after it is free, thrice."""
    load_entries(engine, UNIQUE, received(0, payment("a")))
    times = (HOUR_MS - 1, HOUR_MS, HOUR_MS + 1, 2 * HOUR_MS - 1, 2 * HOUR_MS, 5 * HOUR_MS)
    again = load_entries(engine, UNIQUE, *(received(time, payment("a", time), payment("b", time)) for time in times))
    assert rows(engine, "select amount from payments where batch_id = 2 and amount > 1 order by 1, 1") == sorted(
        (float(time),) for time in (HOUR_MS, 2 * HOUR_MS, 5 * HOUR_MS, HOUR_MS - 1, 2 * HOUR_MS - 1, 5 * HOUR_MS)
    )
    assert (again.read, again.loaded, again.duplicate) == (12, 6, 6)
    assert ids(engine) == [("a", 2, 5 * HOUR_MS), ("b", 2, 5 * HOUR_MS)]
    agree(engine)


def test_an_older_event_that_is_loaded_later_is_the_repeat(engine: sa.Engine) -> None:
    early = received(0, payment("a", 1))
    row = plan(engine, UNIQUE, early)
    assert load_entries(engine, UNIQUE, received(3 * HOUR_MS, payment("a", 2))).loaded == 1
    assert load(engine, UNIQUE, ready(UNIQUE, row, (early,))).duplicate == 1
    assert ids(engine) == [("a", 2, 3 * HOUR_MS)]


def test_a_batch_that_is_tried_again_does_not_meet_its_own_ids(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = received(0, payment("a"), payment("b"))
    row = plan(engine, UNIQUE, request)
    batch = ready(UNIQUE, row, (request,))

    def breaks(*_: Any) -> None:
        raise TransientError("the connection was lost")

    monkeypatch.setattr(load_module, "_park", breaks)
    with pytest.raises(TransientError):
        load(engine, UNIQUE, batch)
    assert ids(engine) == []
    monkeypatch.undo()
    assert not load(engine, UNIQUE, batch, rehearse=True).duplicate
    assert load(engine, UNIQUE, batch).loaded == 2
    assert not load(engine, UNIQUE, batch).fresh
    agree(engine)


def test_a_run_from_before_the_ids_had_to_be_unique_does_not_load_without_them(engine: sa.Engine) -> None:
    request = received(0, payment("a"))
    old = UNIQUE.model_copy(update={"unique_event_id": False})
    with pytest.raises(PermanentError, match="before event ids"):
        load(engine, UNIQUE, ready(old, plan(engine, UNIQUE, request), (request,)))


def test_of_batches_that_load_beside_each_other_exactly_one_has_each_id(engine: sa.Engine) -> None:
    workers, wanted = 6, 400
    dice = random.Random(7)
    batches = []
    for worker in range(workers):
        entries = []
        for number in range(4):
            mine = dice.sample(range(wanted), 120)
            lines = [payment(f"id-{n}", -1.0 if n % 50 == 0 else n, ts=NOW_MS + n % 5 * 60_000) for n in mine]
            entries.append(received(worker * 4 + number, *lines))
        batches.append((plan(engine, UNIQUE, *entries), entries))
    asked = {
        orjson.loads(line)["event_id"]
        for _, entries in batches
        for entry in entries
        for line in entry.data.split(b"\n")[:-1]
    }
    start = threading.Barrier(workers)

    def run(number: int) -> Loaded:
        row, mine = batches[number]
        batch = ready(UNIQUE, row, mine)
        start.wait()
        return load(engine, UNIQUE, batch)

    with ThreadPoolExecutor(workers) as pool:
        outcomes = list(pool.map(run, range(workers)))
    negative = {f"id-{n}" for n in range(0, wanted, 50)} & asked
    assert sum(outcome.loaded for outcome in outcomes) == len(asked - negative)
    assert sum(outcome.negative for outcome in outcomes) == len(negative)
    assert sum(outcome.read for outcome in outcomes) == workers * 4 * 120
    assert rows(engine, "select amount, count(*) from payments group by 1 having count(*) > 1") == []
    assert {row[0] for row in ids(engine)} == asked
    agree(engine)


pauses = st.sampled_from([0, 0, 0, 5, 20, 59, 60])
events = st.tuples(pauses, st.sampled_from("abc"), st.sampled_from([1.0, -1.0]))


@pytest.mark.parametrize(("commits", "loaded"), [(True, 1), (False, 2)])
def test_a_load_waits_for_another_that_is_taking_the_same_id(engine: sa.Engine, commits: bool, loaded: int) -> None:
    request = received(0, payment("a"), payment("b"))
    batch = ready(UNIQUE, plan(engine, UNIQUE, request), (request,))
    with ThreadPoolExecutor(1) as pool, engine.connect() as other:
        other.execute(sa.text(f"insert into payments_event_ids values ('a', to_timestamp({NOW_MS / 1000}), 99)"))
        loading = pool.submit(load, engine, UNIQUE, batch)
        waiting = (
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
        until = time.monotonic() + 10
        while rows(engine, waiting) == [(0,)]:
            assert time.monotonic() < until, "the load did not wait"
        other.commit() if commits else other.rollback()
        assert loading.result().loaded == loaded
    assert {name: number for name, number, _ in ids(engine)} == {"a": 99 if commits else batch.batch_id, "b": 1}
    agree(engine)


arrivals = st.lists(st.lists(events, max_size=6), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals, st.randoms(use_true_random=False))
def test_whatever_comes_in_whatever_order_each_id_is_loaded_as_the_rule_says(
    engine: sa.Engine, batches: list[list[tuple[int, str, float]]], dice: random.Random
) -> None:
    """The rule, an event at a time. `batches`: how many minutes after the one before, the id and the amount of each."""
    execute(engine, f"truncate {TABLES} restart identity")
    planned = []
    minute = number = 0
    for events in batches:
        requests = []
        for pause, event_id, amount in events:
            minute, number = minute + pause, number + 1
            requests.append(Entry(EntryId(NOW_MS + minute * 60_000, number), 1, payment(event_id, amount) + b"\n"))
        if requests:
            planned.append((plan(engine, UNIQUE, *requests), requests))
    dice.shuffle(planned)
    taken: dict[str, int] = {}
    kept = negative = 0
    for row, requests in planned:
        load(engine, UNIQUE, ready(UNIQUE, row, requests))
        for request in requests:
            event = orjson.loads(request.data)
            if request.id.ms >= taken.get(event["event_id"], -HOUR_MS) + HOUR_MS:
                taken[event["event_id"]] = request.id.ms
                kept += event["amount"] > 0
                negative += event["amount"] < 0
    assert rows(engine, "select count(*) from payments") == [(kept,)]
    assert rows(engine, "select coalesce(sum(events_negative), 0)::int from assets") == [(negative,)]
    assert {row[0]: row[2] + NOW_MS for row in ids(engine)} == taken
    agree(engine)


def test_the_purge_takes_only_what_nothing_in_the_queue_may_repeat(engine: sa.Engine) -> None:
    load_entries(engine, UNIQUE, received(0, payment("a"), payment("b")))
    load_entries(engine, UNIQUE, received(HOUR_MS - 1, payment("c"), payment("a")))
    assert purge_expired_ids(engine, UNIQUE) == 0  # years have passed, and the backlog may begin right after
    waiting = received(HOUR_MS, payment("b"))
    row = plan(engine, UNIQUE, waiting)
    load_entries(engine, UNIQUE, received(HOUR_MS + 5_000, payment("d")))
    assert purge_expired_ids(engine, UNIQUE) == 0  # not while a batch of that time is unsettled
    assert load(engine, UNIQUE, ready(UNIQUE, row, (waiting,))).loaded == 1
    assert purge_expired_ids(engine, UNIQUE, step=1) == 1
    assert [name for name, _, _ in ids(engine)] == ["b", "c", "d"]
    load_entries(engine, UNIQUE, received(9 * HOUR_MS, payment("a")))
    assert purge_expired_ids(engine, UNIQUE, step=1) == 3
    assert [name for name, _, _ in ids(engine)] == ["a"]


def test_the_purge_needs_no_batch_of_that_time_in_the_ledger(engine: sa.Engine) -> None:
    load_entries(engine, UNIQUE, received(0, payment("a")))
    load_entries(engine, UNIQUE, received(9 * HOUR_MS, payment("b")))
    execute(engine, "delete from assets where id = 1")  # past a retention that is shorter than `unique_for`
    assert purge_expired_ids(engine, UNIQUE) == 1
    assert [name for name, _, _ in ids(engine)] == ["b"]


def test_the_purge_leaves_alone_what_a_load_is_looking_at(engine: sa.Engine) -> None:
    load_entries(engine, UNIQUE, received(0, payment("a"), payment("b")))
    load_entries(engine, UNIQUE, received(9 * HOUR_MS, payment("c")))
    with engine.begin() as other:
        other.execute(sa.text("select 1 from payments_event_ids where event_id = 'a' for update"))
        assert purge_expired_ids(engine, UNIQUE) == 1
    assert purge_expired_ids(engine, UNIQUE) == 1


def test_the_purge_of_a_stream_that_never_had_ids_does_nothing(engine: sa.Engine) -> None:
    assert purge_expired_ids(engine, UNIQUE.model_copy(update={"name": "orders"})) == 0


def test_a_dead_letter_that_is_replayed_has_its_id_unless_somebody_else_has(engine: sa.Engine) -> None:
    """a: sent again, in order, just now. b: refused twice. c: a negative. d: sent again in order long ago."""
    wrong = [payment(name, colour="red") for name in "abbd"]
    load_entries(engine, UNIQUE, received(0, *wrong, payment("c", -1, colour="red")))
    load_entries(engine, UNIQUE, received(1, payment("a"), payment("d")))
    execute(engine, "update payments_event_ids set received_at = now() where event_id = 'a'")
    ignore = Edit(merge={"colour": None})
    seen = preview(engine, {"payments": UNIQUE}, LetterFilter(), ignore)
    assert (seen.would_pass, seen.negative, seen.would_fail) == (2, 1, {"duplicate_event_id": 2})
    replay = begin(engine, LetterFilter(), ignore, requested_by="test", streams=["payments"])
    done = Replays(engine, {"payments": UNIQUE}).finish(replay)
    assert (done.matched, done.passed, done.negative, done.failed) == (5, 2, 1, 2)
    assert rows(engine, "select payload::json ->> 'event_id', state, reason from dead_letters order by id") == [
        ("a", "open", "duplicate_event_id"),
        ("b", "replayed", "unknown_field"),
        ("b", "open", "duplicate_event_id"),
        ("d", "replayed", "unknown_field"),
        ("c", "replayed", "unknown_field"),
    ]
    taken = "select event_id from payments_event_ids where received_at > now() - interval '1 minute' and batch_id = 3"
    assert rows(engine, f"{taken} order by 1") == [("b",), ("c",), ("d",)]
    assert rows(engine, "select events_rejected, events_duplicate from assets where id = 3") == [(2, 2)]
    agree(engine)
