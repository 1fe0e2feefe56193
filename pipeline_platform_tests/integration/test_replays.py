"""Replay's laws: each letter is taken once, loaded once, and open again when it is refused again."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from pipeline_platform.core.edits import Edit
from pipeline_platform.core.entries import EntryId
from pipeline_platform.core.failures import FailureKind, NextStep
from pipeline_platform.core.isolation import all_poison
from pipeline_platform.errors import PermanentError, TransientError
from pipeline_platform.orchestration.ingest.planner import RunState
from pipeline_platform.warehouse import replay_batches
from pipeline_platform.warehouse.dead_letters import LetterFilter
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.load import ReadyBatch, load
from pipeline_platform.warehouse.receipts import entry_counts
from pipeline_platform.warehouse.replay_batches import split_replay
from pipeline_platform.warehouse.replay_preview import preview
from pipeline_platform.warehouse.replays import (
    Replay,
    asked_retries,
    begin,
    discard,
    get_replay,
    list_replays,
    retried,
    retry_asset,
    settle_replay,
)
from pipeline_platform.warehouse.stats import minute_rates
from pipeline_platform_tests.integration.batches import (
    NOW_MS,
    TELEMETRY,
    entry,
    event,
    execute,
    ledger_agrees,
    load_entries,
    minutes_agree,
    plan,
    ready,
    rows,
)
from pipeline_platform_tests.integration.letters import ALL, Replays, failure, refuse, whereabouts
from pipeline_platform_tests.oracle import wait_for

STREAMS = ("telemetry",)
WITHOUT_COLOUR = Edit.parse({"merge": {"colour": None}})


@pytest.fixture
def replays(engine: sa.Engine) -> Replays:
    """An empty warehouse."""
    return Replays(engine)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 25 letters."""
    monkeypatch.setattr(replay_batches, "BATCH_LETTERS", 25)


def ask(engine: sa.Engine, which: LetterFilter = ALL, edit: Edit | None = WITHOUT_COLOUR) -> Replay:
    """Begins a replay."""
    return begin(engine, which, edit, requested_by="test", streams=STREAMS, note="why")


def agree(engine: sa.Engine) -> None:
    """Facts, minutes and ledger say the same, and so do the totals."""
    assert ledger_agrees(engine, TELEMETRY).differences == ()
    assert minutes_agree(engine, TELEMETRY).differences == ()
    totals = Ledger(engine).totals("telemetry")
    assert totals.events_read == totals.events_loaded + totals.events_negative + totals.events_rejected
    ((facts, unsettled),) = rows(
        engine,
        "select (select count(*) from telemetry_events), (select count(*) from dead_letters where state <> 'replayed')",
    )
    assert (totals.events_loaded, totals.events_rejected) == (facts, unsettled)


def test_a_replay_loads_what_passes_and_tells_who_asked_and_what_came_of_it(replays: Replays) -> None:
    engine = replays.engine
    refuse(engine, range(1, 61))
    begun = ask(engine, LetterFilter(reasons=("unknown_field",)))
    assert (begun.state, begun.matched, begun.requested_by, begun.note) == ("running", 60, "test", "why")
    assert whereabouts(engine) == {"facts": Counter(), "replaying": Counter(range(1, 61))}
    planned = "select kind, asset_key, stream, job_name, replay_id, events_planned, entries from assets where id > 1"
    assert rows(engine, planned + " order by id") == [
        ("replay", "replay/telemetry", "telemetry", "replay_telemetry", begun.id, size, requests)
        for size, requests in ((25, 3), (25, 3), (10, 1))
    ]

    done = replays.finish(begun)

    assert (done.state, done.passed, done.negative, done.failed) == ("done", 60, 0, 0)
    assert done.finished_at is not None
    assert done.filter == {"reasons": ["unknown_field"]}
    assert done.edit == {"merge": {"colour": None}}
    assert whereabouts(engine) == {"facts": Counter(range(1, 61)), "replayed": Counter(range(1, 61))}
    assert list_replays(engine, limit=10) == [done]
    agree(engine)


def test_an_event_keeps_its_request_s_clock(replays: Replays) -> None:
    engine = replays.engine
    late = event(value=1, colour="red", ts=NOW_MS - 2 * 3_600_000)
    load_entries(engine, TELEMETRY, entry(0, late), entry(7, b'{"source":"s","metric":"m","value":2,"colour":1}'))
    replays.finish(ask(engine))
    facts = "select value, round(extract(epoch from ts) * 1000), round(extract(epoch from received_at) * 1000)"
    assert rows(engine, facts + " from telemetry order by value") == [
        (1.0, NOW_MS - 2 * 3_600_000, NOW_MS),
        (2.0, NOW_MS + 7, NOW_MS + 7),
    ]
    assert rows(engine, "select events_late from assets where kind = 'replay'") == [(1,)]


def test_pressed_twice_each_letter_is_taken_once(replays: Replays) -> None:
    refuse(replays.engine, range(1, 31))
    first, second = ask(replays.engine), ask(replays.engine)
    assert (first.matched, second.matched) == (30, 0)
    assert (second.state, second.finished_at is not None) == ("done", True)
    replays.finish(first)
    assert ask(replays.engine).matched == 0
    assert whereabouts(replays.engine)["facts"] == Counter(range(1, 31))


def test_raced_each_letter_is_taken_and_loaded_once(replays: Replays) -> None:
    engine = replays.engine
    refuse(engine, range(1, 301))
    barrier = threading.Barrier(4)
    begun: list[Replay] = []

    def press(first: int) -> None:
        ids = tuple(range(first, 301))
        barrier.wait()
        begun.append(ask(engine, LetterFilter(ids=ids)))

    _together([lambda first=first: press(first) for first in (1, 1, 50, 100)])  # type: ignore[misc]
    assert sum(replay.matched for replay in begun) == 300

    # Every requested run is executed twice at once.
    for _ in range(40):
        for request in replays.tick():
            batches = [replays.read(request) for _ in range(2)]
            _together([lambda batch=batch: replays.load(batch) for batch in batches])  # type: ignore[misc]
    assert all((get_replay(engine, replay.id) or replay).state == "done" for replay in begun)
    assert whereabouts(engine) == {"facts": Counter(range(1, 301)), "replayed": Counter(range(1, 301))}
    agree(engine)


def test_two_batches_that_are_settled_at_once_end_their_replay(replays: Replays) -> None:
    refuse(replays.engine, range(1, 51))
    begun = ask(replays.engine)
    first, second = (row.id for row in Ledger(replays.engine).unsettled(None, "replay"))
    counted = threading.Event()

    def settle(batch_id: int, before_commit: Callable[[], object]) -> None:
        with replays.engine.begin() as connection:
            connection.execute(sa.text("update assets set state = 'loaded' where id = :id"), {"id": batch_id})
            settle_replay(connection, begun.id)
            before_commit()

    def settle_second() -> None:
        counted.wait()
        settle(second, lambda: None)

    def let_the_second_come() -> None:
        counted.set()
        wait_for("the second waits for the first", lambda: _waiting(replays.engine), 10)

    _together([lambda: settle(first, let_the_second_come), settle_second])
    done = get_replay(replays.engine, begun.id)
    assert done is not None
    assert done.state == "done"


def test_what_is_refused_again_is_open_again_and_what_is_negative_is_settled(replays: Replays) -> None:
    engine = replays.engine

    def spoil(number: int) -> bytes:
        return [
            event(value=number, colour="red"),
            event(value=-number, colour="red"),
            event(value=number, colour="red", metric=7),
        ][number % 3]

    refuse(engine, range(1, 31), spoil)
    before = rows(engine, "select id, payload, first_failed_at, batch_id from dead_letters order by id")
    done = replays.finish(ask(engine))
    assert (done.passed, done.negative, done.failed) == (10, 10, 10)
    states = "select state, reason, field, attempts, count(*) from dead_letters group by 1, 2, 3, 4 order by 1"
    assert rows(engine, states) == [
        ("open", "bad_type", "metric", 2, 10),
        ("replayed", "unknown_field", "colour", 1, 20),
    ]
    assert rows(engine, "select id, payload, first_failed_at, batch_id from dead_letters order by id") == before
    assert rows(
        engine,
        "select bool_and(last_failed_at > first_failed_at and run_id like 'run-_-1' and settled_at is null) "
        "from dead_letters where state = 'open'",
    ) == [(True,)]
    assert rows(engine, "select bool_and(settled_at is not null) from dead_letters where state = 'replayed'") == [
        (True,)
    ]
    agree(engine)
    # It does not loop: nothing is left to run, and the next replay takes just what is open.
    assert replays.tick() == ()
    again = replays.finish(ask(engine, edit=Edit.parse({"merge": {"colour": None}, "set": {"metric": "str(metric)"}})))
    assert (again.matched, again.passed) == (10, 10)
    agree(engine)


def test_where_the_edit_does_not_apply_the_letter_is_refused_for_its_old_reason(replays: Replays) -> None:
    engine = replays.engine
    load_entries(
        engine,
        TELEMETRY,
        entry(0, event(value="12.5"), event(value=[1]), b"no json", event(value="lots")),
        entry(1, event(value=" 3 ")),
    )
    replays.finish(ask(engine, edit=Edit.parse({"set": {"value": "float(strip(value))"}})))
    assert rows(engine, "select value from telemetry order by value") == [(3.0,), (12.5,)]
    left = rows(engine, "select reason, field, message, attempts from dead_letters where state = 'open' order by id")
    assert [row[:2] for row in left] == [("bad_type", "value"), ("malformed", None), ("bad_type", "value")]
    assert all(row[2].startswith("the edit does not apply: ") and row[3] == 2 for row in left)
    agree(engine)


def test_a_killed_run_is_requested_again_and_its_ghost_changes_nothing(replays: Replays) -> None:
    engine = replays.engine
    refuse(engine, range(1, 21))
    begun = ask(engine)
    (first,) = replays.tick()
    ghost = replays.read(first)
    assert replays.tick() == ()  # its request may still be on its way
    replays.runs[first.row.id, 1] = RunState.ENDED
    assert replays.tick() == ()
    assert rows(engine, "select state, error_kind from assets where kind = 'replay'") == [("failed", "lost")]
    replays.now += timedelta(seconds=5)
    (second,) = replays.tick()
    assert second.attempt == 2
    batch = replays.read(second)
    assert replays.load(ghost).fresh
    assert not replays.load(batch).fresh
    done = get_replay(engine, begun.id)
    assert done is not None
    assert (done.state, done.passed) == ("done", 20)
    assert whereabouts(engine) == {"facts": Counter(range(1, 21)), "replayed": Counter(range(1, 21))}
    agree(engine)


def test_a_batch_that_was_halved_is_not_loaded_by_a_ghost_of_the_whole(replays: Replays) -> None:
    engine, ledger = replays.engine, Ledger(replays.engine)
    refuse(engine, range(1, 21))
    begun = ask(engine)
    (request,) = replays.tick()
    ghost = replays.read(request)
    for _ in range(2):
        row = ledger.get(request.row.id)
        assert row is not None
        ledger.fail(row.id, failure(row, FailureKind.POISON, NextStep.CAREFUL), not_before=replays.now)
    row = ledger.get(request.row.id)
    assert row is not None
    assert row.next_step is NextStep.SPLIT
    assert replays.tick() == ()
    halves = rows(engine, "select id, entries, events_planned, state, replay_id from assets where kind = 'replay'")
    assert sorted(halves) == [(2, 1, 10, "failed", begun.id), (3, 1, 10, "planned", begun.id)]
    with pytest.raises(TransientError, match="others than when they were read"):
        replays.load(ghost)
    assert replays.finish(begun).passed == 20
    assert whereabouts(engine)["facts"] == Counter(range(1, 21))
    assert not split_replay(engine, row)  # it has changed since
    agree(engine)


def test_a_dead_row_is_replayed_as_a_whole_and_its_alert_is_over(replays: Replays) -> None:
    engine = replays.engine
    _bury(engine, 1, 2, 3)
    _bury(engine, 4)
    open_alerts = "select key from alerts where resolved_at is null"
    assert rows(engine, open_alerts) == [("dead/telemetry",)]
    retried = retry_asset(engine, 1, requested_by="test", streams=STREAMS)
    assert retried.replay is not None
    with pytest.raises(PermanentError, match="no open dead letters"):
        retry_asset(engine, 1, requested_by="test", streams=STREAMS)
    assert replays.finish(retried.replay).passed == 3
    assert rows(engine, "select id, state from assets where kind = 'ingest' order by id") == [
        (1, "replayed"),
        (2, "dead"),
    ]
    assert rows(engine, open_alerts) == [("dead/telemetry",)]
    with pytest.raises(PermanentError, match="is replayed: there is nothing to retry"):
        retry_asset(engine, 1, requested_by="test", streams=STREAMS)
    agree(engine)
    discard(engine, LetterFilter(batch_id=2), requested_by="test")
    assert rows(engine, open_alerts) == []
    assert rows(engine, "select state from assets where id = 2") == [("dead",)]


def test_a_failing_row_is_due_at_once_and_others_say_why_not(replays: Replays) -> None:
    engine, ledger = replays.engine, Ledger(replays.engine)

    def retry(asset_id: int) -> None:
        retry_asset(engine, asset_id, requested_by="test", streams=STREAMS, note="it is mended")

    row = plan(engine, TELEMETRY, entry(0, event()))
    with pytest.raises(PermanentError, match="its first run is about to begin"):
        retry(row.id)
    assert ledger.request(row.id, 1)
    with pytest.raises(PermanentError, match="attempt 1 is under way"):
        retry(row.id)
    asked = ledger.get(row.id)
    assert asked is not None
    ledger.fail(row.id, failure(asked, FailureKind.PERMANENT), not_before=replays.now + timedelta(hours=1))
    retry(row.id)
    assert rows(engine, "select not_before <= now() from assets") == [(True,)]
    audit = "select action, filter, requested_by, note, state, finished_at is not null from replays"
    assert rows(engine, audit) == [("retry", {"asset_id": row.id}, "test", "it is mended", "done", True)]
    load(engine, TELEMETRY, ready(TELEMETRY, row, [entry(0, event(), b"x")]))
    with pytest.raises(PermanentError, match=r"is loaded: there is nothing to retry\. Its 1 rejected events"):
        retry(row.id)
    with pytest.raises(PermanentError, match="no row 99"):
        retry(99)
    execute(engine, "update assets set kind = 'etl', state = 'failed', job_name = 'prices'")
    retry(row.id)
    with pytest.raises(PermanentError, match="its next run is requested already"):
        retry(row.id)
    (waiting,) = asked_retries(engine)
    assert (waiting.asset_id, waiting.partition_key) == (row.id, None)
    retried(engine, waiting, begun=True)
    assert asked_retries(engine) == []
    execute(engine, "update assets set asset_key = 'job/__ASSET_JOB'")
    with pytest.raises(PermanentError, match="materialized again in the Dagster UI"):
        retry(row.id)
    execute(engine, "update assets set state = 'loaded'")
    with pytest.raises(PermanentError, match="is loaded: there is nothing to retry"):
        retry(row.id)


def test_discarded_letters_are_not_replayed(replays: Replays) -> None:
    refuse(replays.engine, range(1, 21))
    given_up = discard(replays.engine, LetterFilter(ids=(1, 2, 3)), requested_by="test", note="test data")
    assert (given_up.action, given_up.state, given_up.matched) == ("discard", "done", 3)
    assert discard(replays.engine, LetterFilter(ids=(1, 2, 3)), requested_by="test").matched == 0
    assert replays.finish(ask(replays.engine)).passed == 17
    assert rows(replays.engine, "select id from dead_letters where state = 'discarded' and settled_at is not null") == [
        (1,),
        (2,),
        (3,),
    ]
    with pytest.raises(PermanentError, match="Only open dead letters"):
        ask(replays.engine, LetterFilter(states=("discarded",)))
    agree(replays.engine)


def test_letters_of_a_stream_that_is_not_declared_stay_open(replays: Replays) -> None:
    refuse(replays.engine, range(1, 11))
    assert begin(replays.engine, ALL, requested_by="test", streams=()).matched == 0
    assert set(whereabouts(replays.engine)) == {"facts", "open"}


def test_poison_is_tried_apart_from_the_others(replays: Replays) -> None:
    refuse(replays.engine, range(1, 11))
    execute(replays.engine, "update dead_letters set reason = 'poison' where id in (3, 4)")
    ask(replays.engine)
    assert rows(replays.engine, "select events_planned from assets where kind = 'replay' order by id") == [(8,), (2,)]


def test_a_dry_run_tells_what_would_come_of_it_and_changes_nothing(replays: Replays) -> None:
    engine = replays.engine

    def spoil(number: int) -> bytes:
        return event(value=-number if number % 5 == 0 else number, colour="red", metric=7 if number % 10 == 1 else "m")

    refuse(engine, range(1, 41), spoil)
    execute(engine, "update dead_letters set reason = 'poison' where id = 2")
    state = rows(engine, "select * from dead_letters order by id")
    seen = preview(engine, {"telemetry": TELEMETRY}, ALL, WITHOUT_COLOUR)
    assert (seen.matched, seen.tried, seen.would_pass, seen.negative, seen.poison) == (40, 39, 27, 8, 1)
    assert seen.would_fail == {"bad_type": 4}
    assert not seen.sampled
    examples = Counter(example.outcome for example in seen.examples)
    assert examples == {"pass": 5, "bad_type": 4}
    assert all("colour" in each.before and "colour" not in (each.after or "") for each in seen.examples)
    assert rows(engine, "select * from dead_letters order by id") == state
    assert preview(engine, {"telemetry": TELEMETRY}, ALL).would_fail["unknown_field"] == 39
    sample = preview(engine, {"telemetry": TELEMETRY}, ALL, WITHOUT_COLOUR, limit=10)
    assert (sample.matched, sample.tried + sample.poison, sample.sampled) == (40, 10, True)


def test_receipts_and_rates_after_a_replay(replays: Replays) -> None:
    engine = replays.engine
    load_entries(engine, TELEMETRY, entry(0, event(), event(colour=1), b"x"), entry(1, event(value=-1)))
    replays.finish(ask(engine))
    ids = [EntryId(NOW_MS, 0), EntryId(NOW_MS + 1, 0)]
    counts = entry_counts(engine, 1, ids)
    first, second = counts[ids[0]], counts[ids[1]]
    assert (first.received, first.loaded, first.rejected, first.replayed) == (3, 1, 2, 1)
    assert (second.received, second.negative, second.replayed) == (1, 1, 0)
    rates = minute_rates(engine)["telemetry"]
    assert (rates.read * 60, rates.loaded * 60, rates.negative * 60, rates.rejected * 60) == (4, 2, 1, 2)


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_happens_every_event_is_in_one_place(replays: Replays, seed: int) -> None:
    rng = random.Random(seed)
    engine, ledger = replays.engine, Ledger(replays.engine)

    def spoil(number: int) -> bytes:
        extra = {"colour": "red"} if number % 2 else {"shape": "round"}
        return event(value=-number if number % 7 == 0 else number, **extra)

    refuse(engine, range(1, 121), spoil)
    edits = [Edit.parse({"merge": {name: None}}) for name in ("colour", "shape")]
    ghosts: list[ReadyBatch] = []
    for _ in range(50):
        step = rng.choice(["press", "run", "run", "ghost", "kill", "poison", "late", "discard", "wait"])
        which = LetterFilter(ids=tuple(rng.sample(range(1, 121), 40)))
        if step == "press":
            ask(engine, which, rng.choice(edits))
        elif step == "discard":
            discard(engine, LetterFilter(ids=which.ids[:1]), requested_by="test")
        elif step == "wait":
            replays.now += timedelta(seconds=40)
        elif step == "late" and ghosts:
            with contextlib.suppress(TransientError):
                replays.load(ghosts.pop(rng.randrange(len(ghosts))))
        else:
            for request in replays.tick():
                batch = replays.read(request)
                row = request.row.id
                if step == "run":
                    replays.load(batch)
                    continue
                ghosts.append(batch)
                if step == "kill":
                    replays.runs[row, request.attempt] = RunState.ENDED
                started = ledger.get(row)
                if step == "poison" and started is not None:
                    ledger.fail(row, failure(started, FailureKind.POISON, NextStep.CAREFUL), not_before=replays.now)
        agree(engine)
    for replay in list_replays(engine, limit=100):
        replays.runs |= {(row.id, row.attempt): RunState.ENDED for row in ledger.unsettled(None, "replay")}
        assert replays.finish(replay).state == "done"
    for edit in edits:
        replays.finish(ask(engine, edit=edit))
    for ghost in ghosts:
        with contextlib.suppress(TransientError):
            assert not replays.load(ghost).fresh
    agree(engine)
    found = whereabouts(engine)
    gone = Counter(abs(number) for number in found.get("discarded", {}))
    assert set(found) <= {"facts", "replayed", "discarded"}
    assert found["facts"] == Counter(number for number in range(1, 121) if number % 7 and number not in gone)
    assert {abs(number) for number in found["replayed"]} == set(range(1, 121)) - set(gone)
    sums = rows(engine, "select sum(matched), sum(passed + negative + failed) from replays where action = 'replay'")
    assert sums[0][0] == sums[0][1]


def _bury(engine: sa.Engine, *numbers: int) -> None:
    """A request that was given up for reasons of the past: it is good now."""
    request = entry(numbers[0], *(event(value=number) for number in numbers))
    row = plan(engine, TELEMETRY, request)
    nothing = ready(TELEMETRY, row, ())
    load(engine, TELEMETRY, replace(nothing, entries=[request], rejections=all_poison([request], "boom"), buried=True))


def _waiting(engine: sa.Engine) -> bool:
    """Whether a transaction waits for another's lock."""
    return rows(engine, "select count(*) from pg_locks where not granted") != [(0,)]


def _together(calls: list[Callable[[], object]]) -> None:
    """Calls all at once; their errors are the test's."""
    errors: list[BaseException] = []

    def call(what: Callable[[], object]) -> None:
        try:
            what()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=call, args=(each,)) for each in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
