"""`assets` and `dlq`: look, a dry run, in earnest, wait, export; and how hard they are to misuse."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline_platform.core.breaker import BreakerLimits
from pipeline_platform.core.failures import Failure, FailureKind
from pipeline_platform.warehouse.breakers import Breakers
from pipeline_platform.warehouse.etl_ledger import EtlLedger
from pipeline_platform.warehouse.obsolete import close_partitions
from pipeline_platform_tests.integration.letters import Replays
from pipeline_platform_tests.integration.test_cli.conftest import Stack
from pipeline_platform_tests.integration.test_cli.kit import Network, readings, run, write_ndjson

SPOILT = [{**each, "colour": "\x1b[31mred"} for each in readings(5)]


@pytest.fixture
def here(stack: Stack, tmp_path: Path) -> tuple[object, ...]:
    """A stack with five letters for an unknown field and one for a text as a number; and a failing batch."""
    here = ("--state-dir", stack.folder)
    bad: list[dict[str, Any]] = [*SPOILT, {"source": "a", "metric": "m", "value": "12.5"}]
    file = write_ndjson(tmp_path / "bad.ndjson", bad)
    assert run("ingest", "telemetry", file, *here, "--max-rejected", 100).code == 0
    stack.pipeline.run()
    assert run("ingest", "telemetry", write_ndjson(tmp_path / "good.ndjson", readings(2)), *here).code == 0
    (row,) = stack.pipeline.plan("telemetry")
    stack.pipeline.start(row, run_id="run-2")
    failure = Failure(
        FailureKind.PERMANENT, "PermanentError", "no right to write", attempt=1, op="load", run_id="run-2"
    )
    assert stack.pipeline.ledger.fail(row.id, failure, not_before=datetime(2100, 1, 1, tzinfo=UTC))
    return here


def letters(here: tuple[object, ...], *options: object) -> list[dict[str, Any]]:
    """What `dlq list` finds."""
    found: list[dict[str, Any]] = run("dlq", "list", *options, *here, "--json").document
    return found


def test_assets_are_listed_and_shown(here: tuple[object, ...]) -> None:
    listed = run("assets", "list", *here, "--json").document
    assert [(row["id"], row["state"], row["failing"]) for row in listed] == [(2, "failed", True), (1, "loaded", False)]
    assert [row["id"] for row in run("assets", "list", "--state", "failing", *here, "--json").document] == [2]
    assert [row["id"] for row in run("assets", "list", "--limit", 1, *here, "--json").document] == [2]
    assert run("assets", "list", "--since", "1h", "--stream", "telemetry", *here, "--json").document == listed
    assert run("assets", "list", "--until", "1h", *here).out.strip() == "No rows."
    assert "warehouse/telemetry_events" in run("assets", "list", *here).out.replace("\n", "")
    shown = run("assets", "show", 2, *here)
    assert "no right to write" in shown.out
    assert "http://dagster.test:3000/runs/run-2" in shown.out
    assert "2100-01-01 00:00:00" in shown.out
    assert "pipeline-platform dlq list --batch 1" in run("assets", "show", 1, *here).out
    assert "There is no row of assets 9" in run("assets", "show", 9, *here).error
    assert "state" in run("assets", "list", "--state", "wrong", *here).error


def test_a_failing_row_is_tried_again(here: tuple[object, ...], stack: Stack) -> None:
    done = run("assets", "replay", 2, "--note", "rights are granted", *here)
    assert (done.code, "due now" in done.out) == (0, True)
    row = stack.pipeline.ledger.get(2)
    assert row is not None
    assert row.not_before is not None
    assert row.not_before <= datetime.now(UTC)
    refused = run("assets", "replay", 1, *here)
    assert (refused.code, "replay those, by the filter batch_id 1" in refused.error) == (1, True)


def test_a_row_of_what_no_longer_exists_says_so(here: tuple[object, ...], stack: Stack) -> None:
    engine, key = stack.pipeline.engine, "2026-11-20|binance:BTCUSDX"
    ledger = EtlLedger(engine)
    row = ledger.begin("prices/candles", [key], "run-3", "prices_candles")
    unknown = Failure(FailureKind.PERMANENT, "SourceRefusedError", "Invalid symbol.", attempt=1, run_id="run-3")
    assert ledger.fail(row.id, unknown, not_before=datetime.now(UTC))
    assert close_partitions(engine, "prices/candles", [key], "binance:BTCUSDX is not in prices.yaml any more.") == 1
    (listed,) = run("assets", "list", "--state", "obsolete", *here, "--json").document
    assert (listed["id"], listed["failing"]) == (row.id, False)
    assert "Before: Invalid symbol." in run("assets", "show", row.id, *here).out
    refused = run("assets", "replay", row.id, *here)
    assert (refused.code, "binance:BTCUSDX is not in prices.yaml any more" in refused.error) == (1, True)


def test_a_paused_stream_goes_on_when_it_is_resumed(here: tuple[object, ...], stack: Stack) -> None:
    limits = BreakerLimits(minimum=5)
    Breakers(stack.pipeline.engine).review("telemetry", "warehouse/telemetry_events", limits, datetime.now(UTC))
    assert run("streams", "resume", "telemetry", *here).out.strip() == "telemetry goes on."
    assert "telemetry was not paused" in run("streams", "resume", "telemetry", *here).out
    assert "nope" in run("streams", "resume", "nope", *here).error


def test_letters_are_listed_and_shown_without_steering_the_terminal(here: tuple[object, ...]) -> None:
    assert len(letters(here)) == 6
    assert len(letters(here, "--batch", 1)) == 6
    assert len(letters(here, "--reason", "unknown_field", "--reason", "bad_type")) == 6
    assert [letter["field"] for letter in letters(here, "--reason", "bad_type")] == ["value"]
    assert len(letters(here, "--text", "colour", "--limit", 3)) == 3
    assert letters(here, "--state", "replayed") == []
    shown, listed = run("dlq", "show", 1, *here).out, run("dlq", "list", *here).out
    assert "unknown_field" in shown
    assert "http://dagster.test:3000/runs/run-1" in shown
    assert "\x1b[31mred" not in shown + listed
    assert "There is no dead letter 99" in run("dlq", "show", 99, *here).error


def test_many_letters_are_a_dry_run_until_yes(here: tuple[object, ...], stack: Stack) -> None:
    asked = ("dlq", "replay", "--reason", "unknown_field", "--merge", '{"colour": null}', "--set", "value=value * 2")
    dry = run(*asked, *here)
    assert dry.code == 0
    assert "5 open dead letters match; 5 would pass now" in dry.out
    assert "The same command with --yes does it." in dry.out
    plain = run("dlq", "replay", "--all", *here, "--json").document["preview"]
    assert (plain["would_pass"], plain["would_fail"]) == (0, {"unknown_field": 5, "bad_type": 1})
    assert {letter["state"] for letter in letters(here)} == {"open"}

    ended = threading.Event()

    def worker() -> None:
        world = Replays(stack.pipeline.engine)
        while not ended.wait(0.05):
            for request in world.tick():
                world.load(world.read(request))

    thread = threading.Thread(target=worker)
    thread.start()
    try:
        done = run(*asked, "--yes", "--wait", 30, "--note", "as agreed", *here)
    finally:
        ended.set()
        thread.join()
    assert done.code == 0, done
    assert "It is done: 5 passed, 0 negative, 0 refused again." in done.out
    assert "5 of 5" in done.err
    with stack.pipeline.engine.connect() as connection:
        values = connection.exec_driver_sql("select value from telemetry order by 1").scalars().all()
    assert values == [0.0, 2.0, 4.0, 6.0, 8.0]
    again = run(*asked, "--yes", *here)
    assert (again.code, "No open dead letter matches" in again.out) == (0, True)
    audit = run("dlq", "replays", *here, "--json").document
    assert [(each["matched"], each["note"]) for each in audit] == [(0, None), (5, "as agreed")]
    one = run("dlq", "replays", 1, *here, "--json").document
    assert one["edit"] == {"merge": {"colour": None}, "set": {"value": "value * 2"}}
    assert "as agreed" in run("dlq", "replays", *here).out.replace("\n", " ")


def test_one_letter_needs_no_yes_and_waiting_ends(here: tuple[object, ...]) -> None:
    (letter,) = letters(here, "--reason", "bad_type")
    assert "would pass" in run("dlq", "replay", letter["id"], "--dry-run", *here).out
    # Nobody runs it: the waiting ends without an outcome.
    done = run("dlq", "replay", letter["id"], "--set", "value=float(value)", "--wait", 0.3, *here)
    assert done.code == 1
    assert "How it goes: pipeline-platform dlq replays 1" in done.out
    assert letters(here, "--state", "replaying")[0]["id"] == letter["id"]


def test_letters_are_discarded(here: tuple[object, ...]) -> None:
    assert "would be discarded" in run("dlq", "discard", "--stream", "telemetry", *here).out
    assert len(letters(here, "--state", "open")) == 6
    done = run("dlq", "discard", "--stream", "telemetry", "--yes", "--note", "a test rig", *here, "--json").document
    assert (done["dry_run"], done["matched"]) == (False, 6)
    assert len(letters(here, "--state", "discarded")) == 6


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["replay"], "Say which dead letters"),
        (["replay", "--yes"], "Say which dead letters"),
        (["discard", "--yes"], "Say which dead letters"),
        (["replay", "1", "--stream", "telemetry"], "Say which dead letters"),
        (["discard", "1", "--all"], "Say which dead letters"),
        (["replay", "--all", "--yes", "--dry-run"], "Choose one of"),
        (["replay", "1", "--set", "value"], "--set is written --set FIELD=EXPRESSION, not 'value'"),
        (["replay", "1", "--set", "a=1", "--set", "a=2"], "twice"),
        (["replay", "1", "--merge", "[1]"], "--merge is a JSON object"),
        (["replay", "1", "--merge", "{"], "--merge is a JSON object"),
        (["replay", "1", "--set", "value=open('x')"], "The gateway refused"),
        (["replay", "1", "--rename", "a"], "--rename is written --rename OLD=NEW, not 'a'"),
        (["replay", "1", "--rename", "a="], "--rename OLD=NEW"),
        (["replay", "1", "--rename", "=b"], "--rename OLD=NEW"),
        (["list", "--stream", "nope"], "There is no stream 'nope'; there are orders, telemetry."),
        (["export", "--stream", "nope"], "There is no stream 'nope'; there are orders, telemetry."),
        (["replay", "--stream", "nope"], "There is no stream 'nope'; there are orders, telemetry."),
        (["replay", "--reason", "nonsense"], "The gateway refused"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(here: tuple[object, ...], arguments: list[str], says: str) -> None:
    done = run("dlq", *arguments, *here)
    assert (done.code, says in done.error) == (1, True), done
    assert {letter["state"] for letter in letters(here)} == {"open"}


def test_letters_are_exported_to_a_file_or_standard_output(here: tuple[object, ...], tmp_path: Path) -> None:
    out = run("dlq", "export", "--reason", "unknown_field", *here).out
    assert [json.loads(line)["id"] for line in out.splitlines()] == [1, 2, 3, 4, 5]
    file = tmp_path / "letters.ndjson"
    assert run("dlq", "export", "-o", file, *here).err == f"6 dead letters are in {file}.\n"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert json.loads(lines[0]["payload"]) == SPOILT[0]
    assert file.stat().st_mode & 0o777 == 0o600
    assert "cannot be written" in run("dlq", "export", "-o", tmp_path / "none" / "x", *here).error


def test_a_key_without_the_scope_is_refused(here: tuple[object, ...]) -> None:
    reader = run("keys", "create", "reader", "--scope", "read", *here, "--json").document["token"]
    assert run("assets", "list", "--key", reader, *here).code == 0
    for scope, command in (
        ("admin", ["dlq", "list"]),
        ("admin", ["dlq", "export"]),
        ("admin", ["dlq", "discard", "1"]),
        ("operate", ["dlq", "replay", "1"]),
        ("operate", ["assets", "replay", "2"]),
    ):
        assert f"the scope {scope}" in run(*command, "--key", reader, *here).error, command


def test_a_lost_answer_is_not_asked_for_again(here: tuple[object, ...], network: Network) -> None:
    network.action = lambda _: "cut-after"
    done = run("dlq", "discard", 1, "--url", network.url, *here)
    assert done.code == 1
    assert "Whether it began: `pipeline-platform dlq replays`" in done.error
    assert [each["matched"] for each in run("dlq", "replays", *here, "--json").document] == [1]
