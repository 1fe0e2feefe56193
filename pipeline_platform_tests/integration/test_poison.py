"""A batch that fails for its own sake: the lines to blame are found and parked, the others are loaded."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest
import sqlalchemy as sa

from pipeline_platform.core.failures import NextStep
from pipeline_platform.core.isolation import find_bad
from pipeline_platform.errors import TransientError
from pipeline_platform.orchestration.ingest import careful
from pipeline_platform.orchestration.ingest.rehearsal import Task, rehearsing
from pipeline_platform_tests.integration.batches import TELEMETRY, entry, event, execute, plan, rows
from pipeline_platform_tests.integration.test_ingest_run import STREAM, Stack, reading, stack  # noqa: F401
from pipeline_platform_tests.planted import FOLDER, poisonous

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder of this process, and of those that it starts, cannot bear a planted line."""
    monkeypatch.setattr(careful, "decode", poisonous)
    path = os.pathsep.join([str(FOLDER), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("PYTHONPLANTED", "decode")


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("kind", ["raise", "kill", "hang"])
def test_a_rehearsal_finds_the_line_whatever_it_does_and_leaves_nothing(engine: sa.Engine, kind: str) -> None:
    poison = event(metric=f"poison: {kind}")
    batch = [entry(0, *[event()] * 20), entry(1, *[event()] * 5, poison, *[event()] * 7), entry(2, event())]
    row = plan(engine, TELEMETRY, *batch)
    url = engine.url.render_as_string(hide_password=False)
    seconds = 1.0 if kind == "hang" else 60.0
    with rehearsing(Task(TELEMETRY, batch, row.id, url, seconds=seconds)) as trying:
        (found,), _ = find_bad(34, trying.processed, lambda _: True)
    assert (found.start, found.end) == (25, 26)
    said = {"raise": "ZeroDivisionError", "kill": "SIGKILL", "hang": "did not end within 1 s"}
    assert said[kind] in found.message
    assert rows(engine, "select count(*) from telemetry") == [(0,)]
    assert rows(engine, "select state from assets") == [("planned",)]


def test_a_load_that_hangs_says_nothing_about_the_lines(engine: sa.Engine) -> None:
    batch = [entry(0, event())]
    row = plan(engine, TELEMETRY, *batch)
    task = Task(TELEMETRY, batch, row.id, engine.url.render_as_string(hide_password=False), load_seconds=0.5)
    with engine.begin() as frozen:
        frozen.execute(sa.text("select * from assets for update"))
        with rehearsing(task) as trying, pytest.raises(TransientError, match="did not end within"):
            trying.loaded(0, 1)


@pytest.mark.usefixtures("planted")
def test_a_machine_without_memory_says_nothing_about_a_line(engine: sa.Engine) -> None:
    batch = [entry(0, event(), event(metric="poison: memory"))]
    row = plan(engine, TELEMETRY, *batch)
    url = engine.url.render_as_string(hide_password=False)
    with rehearsing(Task(TELEMETRY, batch, row.id, url)) as trying:
        assert "MemoryError" in str(trying.processed(0, 2))  # of less it may be enough
        with pytest.raises(TransientError, match="MemoryError"):
            find_bad(2, trying.processed, lambda _: True)


def test_the_time_of_a_trial_grows_with_its_lines() -> None:
    task = Task(TELEMETRY, (), 1, "")
    assert [task.limit(lines) for lines in (1, 50_000, 10_000_000)] == [pytest.approx(5.0, abs=0.1), 10.0, 60.0]


def test_a_rehearsal_without_a_warehouse_says_nothing_about_the_lines(engine: sa.Engine) -> None:
    row = plan(engine, TELEMETRY, entry(0, event()))
    away = "postgresql://nobody@127.0.0.1:1/none"
    with rehearsing(Task(TELEMETRY, [entry(0, event())], row.id, away)) as trying, pytest.raises(TransientError):
        find_bad(1, trying.loaded, lambda _: True)


@pytest.mark.usefixtures("planted")
def test_a_batch_with_a_line_that_crashes_the_decoder_loads_without_it(stack: Stack) -> None:  # noqa: F811
    stack.post(reading(), reading(), reading(metric="poison: raise"), reading(value=-1))
    stack.post(reading(metric="poison: raise"), b"no json", reading())
    (first,) = stack.tick()
    assert not stack.run(first).success
    assert (stack.row().state, stack.row().next_step) == ("failed", NextStep.CAREFUL)
    execute(stack.engine, "update assets set not_before = now()")

    (second,) = stack.tick()
    result = stack.run(second)

    assert result.success
    assert rows(stack.engine, "select state, events_loaded, events_negative, events_rejected from assets") == [
        ("loaded", 3, 1, 3)
    ]
    letters = rows(stack.engine, "select reason, receipt, line, payload, message from dead_letters order by id")
    assert [row[0] for row in letters] == ["poison", "poison", "malformed"]
    assert [row[2] for row in letters] == [2, 0, 1]
    assert all(orjson.loads(row[3])["metric"] == "poison: raise" for row in letters[:2])
    assert "ZeroDivisionError" in letters[0][4]
    assert all(stack.check().values())


@pytest.mark.usefixtures("planted")
def test_no_good_line_is_parked_however_many_bad_ones_its_batch_has(
    stack: Stack,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a batch of two requests, half of whose lines are poison, and care for two of them a run
    monkeypatch.setattr(careful, "MOST_BAD", 2)
    for _ in range(2):
        stack.post(*[reading(), reading(metric="poison: raise")] * 2)
    # If its attempts are made as they are asked for
    _settle(stack, ticks=20)
    # I expect it to have been halved, every good line to be loaded and every bad one to be a dead letter
    batches = rows(stack.engine, "select state, entries, events_loaded, events_rejected from assets order by first_ms")
    assert batches == [("loaded", 1, 2, 2)] * 2
    assert rows(stack.engine, "select count(*), count(distinct receipt) from dead_letters") == [(4, 2)]
    assert rows(stack.engine, "select distinct payload::jsonb ->> 'metric' from dead_letters") == [("poison: raise",)]
    assert all(stack.check().values())


@pytest.mark.usefixtures("planted")
def test_what_there_was_no_time_to_try_of_one_request_is_parked_with_that_reason(engine: sa.Engine) -> None:
    poison = event(metric="poison: raise")
    batch = [entry(0, event(), poison, event(), event())]
    row = plan(engine, TELEMETRY, *batch)
    url = engine.url.render_as_string(hide_password=False)
    valid = careful.validated(TELEMETRY, row, batch, NextStep.CAREFUL, url, max_run_seconds=0.0)
    assert len(valid.columns) == 0
    assert valid.rejections.counts() == {"poison": 4}
    assert {problem.message for problem in valid.rejections.problems} == {careful.UNDECIDED}
    valid = careful.validated(TELEMETRY, row, batch, NextStep.CAREFUL, url, max_run_seconds=900.0)
    assert (len(valid.columns), valid.rejections.counts()) == (3, {"poison": 1})


@pytest.mark.usefixtures("planted")
def test_what_care_does_not_help_is_halved_until_only_the_bad_request_is_buried(
    stack: Stack,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given poison that shows only in the run itself, never in a rehearsal
    monkeypatch.setenv("PYTHONPLANTED", "")
    for number in range(4):
        stack.post(reading(), reading(metric="poison: raise" if number == 2 else "m"))
    # If its attempts are made as they are asked for
    _settle(stack, ticks=40)
    # I expect the other requests to be loaded, and the bad one to be dead letters
    states = rows(stack.engine, "select state, entries, events_loaded, events_rejected from assets order by first_ms")
    assert sum(row[2] for row in states) == 6
    assert [row for row in states if row[0] == "dead"] == [("dead", 1, 0, 2)]
    assert rows(stack.engine, "select count(*), min(reason), max(reason) from dead_letters") == [
        (2, "poison", "poison")
    ]
    assert rows(stack.engine, "select key from alerts where resolved_at is null") == [("dead/telemetry",)]
    assert all(stack.check().values())


def _settle(stack: Stack, *, ticks: int) -> None:  # noqa: F811
    """Makes each attempt that is asked for at once, until every batch is settled or after so many ticks."""
    for _ in range(ticks):
        for request in stack.tick():
            stack.run(request)
        execute(stack.engine, "update assets set not_before = now() where not_before is not null")
        if not stack.ledger.unsettled(STREAM):
            break
