"""`ingest`: every event once, whatever happens on the way."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
import zstandard

from pipeline_platform_tests.integration.test_cli.conftest import Stack
from pipeline_platform_tests.integration.test_cli.kit import Network, readings, run, write_ndjson
from pipeline_platform_tests.integration.test_gateway.kit import until


def test_every_format_means_the_same(stack: Stack, tmp_path: Path) -> None:
    now = int(time.time() * 1000)
    events = [{**event, "ts": now + n} for n, event in enumerate(readings(25))]
    lines = "".join(json.dumps(event) + "\n" for event in events).encode()
    table = io.StringIO()
    writer = csv.DictWriter(table, ["ts", "source", "metric", "value"], lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(events)
    (tmp_path / "a.ndjson").write_bytes(b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n\n"))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines[:300]) + gzip.compress(lines[300:]))
    zstd = zstandard.ZstdCompressor()
    (tmp_path / "c.ndjson.zst").write_bytes(zstd.compress(lines[:300]) + zstd.compress(lines[300:]))
    (tmp_path / "d.json").write_text(json.dumps(events, indent=1))
    (tmp_path / "e.csv").write_text("\ufeff" + table.getvalue(), newline="")
    columns: dict[str, Any] = {name: [event[name] for event in events] for name in ("source", "metric", "value")}
    columns["ts"] = pa.array([now + n for n in range(25)], pa.timestamp("ms", "UTC"))
    pq.write_table(pa.table(columns), tmp_path / "f.parquet", row_group_size=10)
    (tmp_path / "g.json").write_text(
        "\n".join(json.dumps({**event, "ts": float(event["ts"])}, indent=2) for event in events)
    )
    files = sorted(tmp_path.iterdir())
    for file in files:
        done = run("ingest", "telemetry", file, "--state-dir", stack.folder, "--batch-size", 10, "--json")
        assert (done.code, done.error) == (0, "")
        assert (done.document["events"], done.document["requests"]) == (25, 3), file
    assert stack.values() == sorted([event["value"] for event in events] * len(files))
    totals = stack.pipeline.ledger.totals("telemetry")
    assert totals.events_read == totals.events_loaded == 25 * len(files)
    done = run("sql", "select count(distinct (source, metric, value, ts)) as n from telemetry", "--json",
               "--state-dir", stack.folder)  # fmt: skip
    assert done.document == [{"n": 25}]


def parquet(**columns: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"source": ["a"], "metric": ["m"], **columns}), file)
    return file.getvalue()


def test_what_is_not_exact_is_refused_by_its_place(stack: Stack, tmp_path: Path) -> None:
    refusals = [
        ("a.json", b'[{"source":"a","metric":"m","value":1,"value":2}]', "event 1: the field 'value' is given twice"),
        (
            "b.json",
            b'[{"source":"a","metric":"m","value":1%s}]' % (b"0" * 29),
            "event 1: value: an integer is beyond 64 bits",
        ),
        ("c.json", b'[\n{"source":"a","metric":"m",\n"value":1e400}]', "event 1: value: a number is too large"),
        ("d.csv", b"source,metric,value\na,m,1%s\n" % (b"0" * 29), "line 2: value: an integer is beyond 64 bits"),
        ("e.parquet", parquet(value=[math.inf]), "row 1: value: is infinite"),
        ("f.parquet", parquet(value=[1.0], ts=pa.array([0], pa.timestamp("ms"))), "row 1: ts: has no time zone"),
        ("g.parquet", parquet(value=[1.0], ts=pa.array([2**62], pa.timestamp("ms", "UTC"))), "row 1: ts: is outside"),
    ]
    for name, content, words in refusals:
        (tmp_path / name).write_bytes(content)
        done = run("ingest", "telemetry", tmp_path / name, "--state-dir", stack.folder)
        assert done.code == 1
        assert f"{name}, {words}" in done.error
    assert stack.values() == []


def test_a_csv_of_what_is_odd(stack: Stack, tmp_path: Path) -> None:
    # Given a CSV with an empty measure, a value that is no number, and text that spans lines
    (tmp_path / "x.csv").write_text('source,metric,value\n007,"a\nb",1e2\nx,m,\nx,m,high\nx,m,-1\n')
    # If it is sent
    done = run("ingest", "telemetry", tmp_path / "x.csv", "--state-dir", stack.folder, "--json")
    assert done.document["events"] == 4
    stack.pipeline.run()
    # I expect the text as text, the number as a number, and the others counted
    rows = run("sql", "select source, metric, value from telemetry", "--json", "--state-dir", stack.folder).document
    assert rows == [{"source": "007", "metric": "a\nb", "value": 100.0}]
    reasons = run("sql", "select reason from dead_letters order by 1", "--csv", "--state-dir", stack.folder).out.split()
    assert reasons == ["reason", "bad_type", "missing_field"]
    # And a row with another number of fields to be refused by its line
    (tmp_path / "y.csv").write_text('source,metric,value\nx,"a\nb",1\nx,m\n')
    done = run("ingest", "telemetry", tmp_path / "y.csv", "--state-dir", stack.folder)
    assert "y.csv, line 4: 2 fields, the header has 3." in done.error


def test_a_busy_gateway_and_lost_answers_double_nothing(stack: Stack, network: Network, tmp_path: Path) -> None:
    # Given a network that loses a request, then an answer, and a gateway that is busy in between
    file = write_ndjson(tmp_path / "x.ndjson", readings(30))
    network.action = lambda n: {1: "cut-before", 2: "busy", 3: "cut-after"}.get(n, "pass")
    began = time.monotonic()
    # If a file is sent
    done = run("ingest", "telemetry", file, "--state-dir", stack.folder, "--url", network.url, "--batch-size", 10,
               "--concurrency", 1, "--json")  # fmt: skip
    # I expect the same key until there is an answer, the wait that was asked for, and every event once
    assert (done.code, done.error) == (0, "")
    assert len(set(network.keys[:4])) == 1
    assert len(set(network.keys)) == 3
    assert time.monotonic() - began >= 1
    assert done.document["events"] == 30
    assert done.document["repeated"] == 1
    assert stack.values() == [float(n) for n in range(30)]


def test_an_interrupted_file_goes_on_where_it_stopped(stack: Stack, network: Network, tmp_path: Path) -> None:
    # Given a gateway that goes away in the middle, having taken a batch without saying so
    file = write_ndjson(tmp_path / "x.ndjson", readings(100))
    network.action = lambda n: "pass" if n <= 3 else "cut-after" if n == 4 else "busy"
    arguments = ("ingest", "telemetry", file, "--state-dir", stack.folder, "--url", network.url, "--json")
    done = run(*arguments, "--batch-size", 10, "--patience", 0)
    assert done.code == 1
    assert "the same command goes on from there" in done.error
    # If the same is started again, with other batches
    network.action = lambda _: "pass"
    done = run(*arguments, "--batch-size", 7)
    # I expect every event once
    assert (done.code, done.error) == (0, "")
    assert done.document["resumed_after"] in (20, 30)
    assert done.document["repeated"] in (1, 2)
    assert stack.values() == [float(n) for n in range(100)]


def test_what_was_acknowledged_is_not_sent_again_even_after_its_keys_are_forgotten(
    stack: Stack, network: Network, tmp_path: Path
) -> None:
    file = write_ndjson(tmp_path / "x.ndjson", readings(100))
    network.action = lambda n: "pass" if n <= 3 else "busy"
    arguments = ("ingest", "telemetry", file, "--state-dir", stack.folder, "--url", network.url, "--batch-size", 10)
    assert run(*arguments, "--patience", 0, "--concurrency", 1).code == 1
    with redis.Redis.from_url(stack.where.redis_url) as client:
        assert client.delete(*client.scan_iter("pp:{telemetry}:idem:*")) == 3
    network.action = lambda _: "pass"
    assert run(*arguments).code == 0
    assert len(network.keys) == 3 + 1 + 7
    assert stack.values() == [float(n) for n in range(100)]


def test_a_killed_run_goes_on_where_it_was(stack: Stack, network: Network, tmp_path: Path) -> None:
    file = write_ndjson(tmp_path / "x.ndjson", readings(2000))

    def slowly(_: int) -> str:
        time.sleep(0.02)
        return "pass"

    network.action = slowly
    arguments = ["ingest", "telemetry", str(file), "--state-dir", str(stack.folder), "--url", network.url, "--json"]
    command = [sys.executable, "-m", "pipeline_platform.cli.main", *arguments, "--batch-size", "10"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: len(network.keys) >= 30, 30)
    child.send_signal(signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL
    time.sleep(0.3)  # what was on its way arrives
    network.action = lambda _: "pass"
    done = run(*arguments, "--batch-size", 500)
    assert (done.code, done.error) == (0, "")
    assert done.document["resumed_after"] >= 200
    assert stack.values() == [float(n) for n in range(2000)]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_what_interrupts_it_says_how_to_go_on(
    stack: Stack, network: Network, tmp_path: Path, how: signal.Signals
) -> None:
    file = write_ndjson(tmp_path / "x.ndjson", readings(100))
    network.action = lambda n: "pass" if n <= 2 else "busy"
    arguments = ["ingest", "telemetry", str(file), "--state-dir", str(stack.folder), "--url", network.url]
    command = [sys.executable, "-m", "pipeline_platform.cli.main", *arguments, "--batch-size", "10"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as child:
        until(lambda: len(network.keys) >= 4, 30)
        child.send_signal(how)
        _, complaint = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "Interrupted. 20 events were acknowledged; the same command goes on from there." in complaint
    assert "20 rows may have arrived without an answer; the rest was not sent." in complaint
    assert "Traceback" not in complaint
    network.action = lambda _: "pass"
    assert run(*arguments).code == 0
    assert stack.values() == [float(n) for n in range(100)]


def test_a_complete_file_is_sent_again_only_on_purpose(stack: Stack, tmp_path: Path) -> None:
    file = write_ndjson(tmp_path / "x.ndjson", readings(5))
    arguments = ("ingest", "telemetry", file, "--state-dir", stack.folder, "--json")
    assert run(*arguments).document["events"] == 5
    again = run(*arguments)
    assert again.document["events"] == again.document["requests"] == 0
    assert "was sent completely before" in again.err
    # Without the journal the gateway knows the batches by their keys.
    restarted = run(*arguments, "--restart").document
    assert (restarted["requests"], restarted["repeated"]) == (1, 1)
    assert stack.values() == [0.0, 1.0, 2.0, 3.0, 4.0]
    # What was added is sent, what was before it is not.
    write_ndjson(file, readings(8))
    grown = run(*arguments).document
    assert (grown["events"], grown["resumed_after"]) == (3, 5)
    assert stack.values() == [float(n) for n in range(8)]
    # A file that became another is refused until its owner says what is meant.
    write_ndjson(file, readings(8, first=1))
    changed = run(*arguments).error
    assert f"A file named {file} was sent completely on 20" in changed
    assert changed.endswith(
        "(8 rows), and this is another one: pass --run-id NAME to send it as new events. Nothing was sent."
    )
    assert run(*arguments, "--run-id", "second").document["events"] == 8
    assert len(stack.values()) == 16


def test_standard_input_is_new_each_time_unless_it_is_named(stack: Stack) -> None:
    line = '{"source": "me", "metric": "m", "value": 1}\n'
    for _ in range(2):
        done = run("ingest", "telemetry", "-", "--state-dir", stack.folder, stdin=line)
        assert done.code == 0
        assert "1 events in 1 requests accepted" in done.out
    for _ in range(2):
        run(
            "ingest", "telemetry", "-", "--run-id", "a", "--state-dir", stack.folder, stdin=gzip.compress(line.encode())
        )
    assert stack.values() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("bad", ["{broken", '{"source": "a", "source": "b"}', "[1]", "nul\\u0000"])
def test_a_bad_line_is_named_by_its_place_in_the_file(stack: Stack, tmp_path: Path, bad: str) -> None:
    events = [json.dumps(event) for event in readings(30)]
    file = tmp_path / "x.ndjson"
    file.write_text("\n\n".join([*events[:14], bad, *events[14:]]))
    arguments = ("ingest", "telemetry", file, "--state-dir", stack.folder, "--batch-size", 10, "--json")
    done = run(*arguments, "--concurrency", 1)
    assert done.code == 1
    assert f"{file}, line 29: " in done.error
    assert "Nothing of lines 21 to 39 was sent" in done.error
    assert len(stack.values()) == 10
    done = run(*arguments, "--skip-bad")
    assert (done.document["events"], done.document["skipped"]) == (20, 1)
    assert done.document["rejected_file"] == f"{file}.rejected"
    left = json.loads(Path(f"{file}.rejected").read_text())
    assert (left["line"], left["data"]) == (29, bad)
    assert stack.values() == [float(n) for n in range(30)]


def test_strict_refuses_what_breaks_the_contract(stack: Stack, tmp_path: Path) -> None:
    file = write_ndjson(
        tmp_path / "x.ndjson", [*readings(3), {"source": "a", "value": 1}, {"metric": "a", "value": "b"}]
    )
    arguments = ("ingest", "telemetry", file, "--state-dir", stack.folder, "--strict", "--json")
    done = run(*arguments)
    assert f"{file}, line 4: metric is missing (missing_field). 2 of 5 events" in done.error
    assert run(*arguments, "--skip-bad").document["skipped"] == 2
    assert stack.values() == [0.0, 1.0, 2.0]


def test_wait_tells_the_outcome(stack: Stack, tmp_path: Path) -> None:
    bad: list[dict[str, Any]] = [{"source": "a", "metric": "m", "value": value} for value in (-1, "x")]
    file = write_ndjson(tmp_path / "x.ndjson", [*readings(20), *bad])
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(0.05):
            stack.pipeline.run()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        done = run("ingest", "telemetry", file, "--state-dir", stack.folder, "--wait", "--batch-size", 5, "--json")
        file = write_ndjson(tmp_path / "y.ndjson", [*readings(3), *bad])
        words = run("ingest", "telemetry", file, "--state-dir", stack.folder, "--wait").out
    finally:
        ended.set()
        worker.join()
    assert "in the warehouse: 5 received, 3 loaded, 1 negative, 1 rejected" in words
    assert "1 of them are dead letters and not in the warehouse; `pipeline-platform dlq list --stream" in words
    assert done.document["outcome"] == {"received": 22, "loaded": 20, "negative": 1, "rejected": 1}


def test_what_the_user_got_wrong_is_one_sentence(stack: Stack, tmp_path: Path) -> None:
    file = write_ndjson(tmp_path / "x.ndjson", readings(1))
    here = ("--state-dir", stack.folder)
    assert "There is no file" in run("ingest", "telemetry", tmp_path / "none.csv", *here).error
    assert "There is no stream 'nope'" in run("ingest", "nope", file, *here).error
    assert "not known, or was revoked" in run("ingest", "telemetry", file, *here, "--key", "wrong").error
    assert "not a gateway's URL" in run("ingest", "telemetry", file, *here, "--url", "localhost").error
    away = run("ingest", "telemetry", file, *here, "--url", "http://127.0.0.1:9", "--patience", 0)
    assert "cannot be reached" in away.error
    assert "There is no stack" in run("ingest", "telemetry", file, "--state-dir", tmp_path / "none").error
