"""`up` itself: clear words when it cannot start, a clean end, no orphans, and all data found again."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator

import pytest

from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.oracle import Producer, differences, settled, wait_for


@pytest.fixture
def stack() -> Iterator[Up]:
    up = Up()
    yield up
    up.remove()


@pytest.mark.timeout(300)
def test_it_survives_a_kill_of_the_parent_and_a_stop_and_finds_everything_again(stack: Up) -> None:
    stack.start()
    where = stack.status()
    producer = Producer(where["gateway_url"], where["api_key"], random.Random(3))
    producer.send(500)

    stack.kill()
    wait_for("no orphan is left", lambda: stack.orphans() == [], 60)

    stack.start()
    again = stack.status()
    assert again["api_key"] == where["api_key"]
    producer.send(500)
    wait_for("everything is loaded", lambda: settled(again["warehouse_url"], 1000), 90)
    assert differences(again["warehouse_url"], producer.requests) == []

    assert stack.interrupt() == 0
    assert stack.orphans() == []
    assert "Traceback" not in stack.log
    told = stack.run("status", "--json", check=False)  # where things were
    assert told.returncode == 3
    stopped = json.loads(told.stdout)
    assert stopped["healthy"] is False
    assert {row["state"] for row in stopped["services"]} == {"stopped"}


def test_a_second_up_on_the_same_state_is_one_sentence(up: Up) -> None:
    assert up.process is not None
    second = up.run("up", "--port", str(up.port), check=False)
    assert second.returncode == 1
    assert f"in use by process {up.process.pid}" in " ".join(second.stderr.split())
    assert "Traceback" not in second.stderr


def test_a_taken_port_is_one_sentence(stack: Up) -> None:
    with socket.create_server(("127.0.0.1", stack.port)):
        refused = stack.run("up", "--port", str(stack.port), check=False)
    assert refused.returncode == 1
    assert f"Port {stack.port} on 127.0.0.1 is taken by another program; pass --port" in " ".join(
        refused.stderr.split()
    )


def test_a_folder_that_cannot_be_written_is_one_sentence(stack: Up) -> None:
    stack.state_dir = stack.folder / "file" / "state"
    (stack.folder / "file").write_text("not a folder")
    refused = stack.run("up", check=False)
    assert refused.returncode == 1
    assert "cannot be written" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_without_a_stack_status_says_what_to_do(stack: Up) -> None:
    refused = stack.run("status", "--json", check=False)
    assert refused.returncode == 1
    assert "Run `pipeline-platform up`" in " ".join(refused.stderr.split())


def test_a_bad_stream_file_names_the_file_the_line_and_the_field(stack: Up) -> None:
    streams = stack.folder / "streams"
    streams.mkdir()
    (streams / "bad.yaml").write_text("name: readings\ndimensions: [place]\nmeasures:\n  value: {negatives: perhaps}\n")
    stack.env["PIPELINE_STREAMS_DIR"] = str(streams)
    refused = stack.run("up", "--port", str(stack.port), "--dagster-port", str(stack.dagster_port), check=False)
    assert refused.returncode == 1
    said = " ".join(refused.stderr.split())
    assert "bad.yaml, line 4, field measures.value.negatives" in said
    assert "Traceback" not in said
