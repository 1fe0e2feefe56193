"""`ingest` of what is at odds: one sentence, what was acknowledged, and nobody else's events held up."""

from __future__ import annotations

import gzip
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
import zstandard

from pipeline_platform.core.breaker import BreakerState
from pipeline_platform.queue.keys import KeyStore
from pipeline_platform.warehouse.breakers import Breakers
from pipeline_platform_tests.integration.test_cli.conftest import Stack
from pipeline_platform_tests.integration.test_cli.kit import Network, readings, run, write_ndjson

NO_METRIC: dict[str, Any] = {"source": "a", "value": 1}


def line(value: float) -> bytes:
    return json.dumps({"source": "a", "metric": "m", "value": value}).encode() + b"\n"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.csv", "source;metric;value\n" + "a;m;1,5\n" * 5000, "pass --delimiter ';'"),
        ("x.csv", 'source,metric,value\na,m,"1,5"\n', "pass --decimal-comma"),
        ("x.csv", "a,m,1\nb,m,2\n", "has no header"),
        ("x.csv", "\ufeffquelle,wert\na,1\n", "has no column of the stream telemetry"),
        ("x.ndjson", json.dumps(NO_METRIC) + "\n" + (json.dumps(NO_METRIC) + "\n") * 9, "10 of 10 rows"),
        (
            "x.ndjson",
            json.dumps(NO_METRIC),
            "1 of 1 rows up to line 1 break the contract of telemetry, most of them "
            "because metric is missing (missing_field), first in line 1. That is all of them: mend the file",
        ),
        ("x.json", json.dumps([NO_METRIC] * 3000), "1,000 of 1,000 rows up to event 1000 break the contract"),
    ],
)
def test_a_file_that_cannot_be_the_streams_is_not_sent(
    stack: Stack, network: Network, tmp_path: Path, name: str, content: str, sentence: str
) -> None:
    (tmp_path / name).write_text(content)
    done = run("ingest", "telemetry", tmp_path / name, "--state-dir", stack.folder, "--url", network.url)
    assert done.code == 1
    assert sentence in done.error
    assert done.error.endswith(" Nothing was sent.")
    assert network.keys == []


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.ndjson.gz", gzip.compress(b'{"source": 1}\n' * 5000)[:-20], "ends in the middle of its compression"),
        ("x.ndjson.zst", zstandard.compress(os.urandom(9000))[:-20], "ends in the middle of its compression"),
        ("x.json", b'\n[{"source": 1},\nx]', "x.json, event 2: it is not JSON"),
        ("x.csv", b"source,source\n1,2\n", "the header names a column twice"),
        ("x.parquet", b"no", "is not a Parquet file"),
        ("x.txt", b"", "--format"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(
    stack: Stack, tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(content)
    done = run("ingest", "telemetry", tmp_path / name, "--state-dir", stack.folder)
    assert done.code == 1
    assert sentence in done.error
    assert "\n" not in done.error


def test_an_upload_that_is_mostly_rejected_ends_before_the_breaker_opens(
    stack: Stack, network: Network, tmp_path: Path
) -> None:
    # Given a file that is good at first, and bad for a long time then
    file = write_ndjson(tmp_path / "x.ndjson", [*readings(600), *[NO_METRIC] * 900])
    arguments = ("ingest", "telemetry", file, "--state-dir", stack.folder, "--url", network.url, "--batch-size", 100)
    done = run(*arguments)
    # I expect it to end, as often as it is tried, and the stream to go on for everybody
    assert done.code == 1
    assert "200 of 800 rows up to line 800 break the contract of telemetry" in done.error
    assert "metric is missing (missing_field), first in line 601" in done.error
    assert (
        "700 events were acknowledged; when that is mended, the same command goes on from there. The rest" in done.error
    )
    assert len(network.keys) == 7
    assert "100 of 100 rows" in run(*arguments).error
    assert len(network.keys) == 7
    assert stack.values() == [float(n) for n in range(600)]
    assert Breakers(stack.pipeline.engine).get("telemetry").state is BreakerState.CLOSED
    # And to be sent all the same when its owner says so
    assert run(*arguments, "--max-rejected", 100).code == 0
    assert stack.pipeline.ledger.totals("telemetry").events_read == 600 or len(network.keys) == 15


def test_a_producers_key_knows_the_contract(stack: Stack, tmp_path: Path) -> None:
    with redis.Redis.from_url(stack.where.redis_url) as client:
        _, token = KeyStore(client).create("shop", ("ingest",), streams=("orders",))
    (tmp_path / "x.csv").write_text("country;product;amount;quantity\nFR;mug;1,5;1\n")
    arguments = ("ingest", "orders", tmp_path / "x.csv", "--state-dir", stack.folder, "--key", token)
    assert "pass --delimiter ';'" in run(*arguments).error
    assert run(*arguments, "--delimiter", ";", "--decimal-comma").code == 0
    refused = run("ingest", "telemetry", tmp_path / "x.csv", "--state-dir", stack.folder, "--key", token).error
    assert "There is no stream 'telemetry' at" in refused
    assert refused.endswith("or the key is not good for it; there are orders. Nothing was sent.")


def test_rows_that_cannot_be_read_are_left_out_and_the_rest_is_sent(stack: Stack, tmp_path: Path) -> None:
    bad = ['a,"m,2', "a," + "m" * 200_000 + ",3", "a,m", 'a,"m"x,4']
    lines = ["source,metric,value", *(f"a,m,{n}" for n in range(30)), *bad, "a,m,30", ",,"]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    arguments = ("ingest", "telemetry", tmp_path / "x.csv", "--state-dir", stack.folder, "--batch-size", 10, "--json")
    done = run(*arguments)
    assert "not CSV: a field is longer than 131,072 characters, or a quote is opened and not closed." in done.error
    assert "Nothing of lines 32 to 36 was sent; --skip-bad sends the others." in done.error
    assert (
        "30 events were acknowledged; when that is mended, the same command goes on from there. The rest" in done.error
    )
    done = run(*arguments, "--skip-bad")
    assert (done.document["events"], done.document["skipped"]) == (1, 4)
    left = [json.loads(each) for each in (tmp_path / "x.csv.rejected").read_text().splitlines()]
    assert [(each["line"], each["data"]) for each in left] == list(enumerate(bad, 32))
    assert left[2]["problem"] == "2 fields, the header has 3"
    assert stack.values() == [float(n) for n in range(31)]
    # Again, it says what became of them.
    done = run(*arguments[:-1])
    assert "31 events had been acknowledged before" in done.out
    assert f"4 rows had been left out before; they are in {tmp_path}/x.csv.rejected" in done.out


def test_what_the_gateway_refuses_is_listed_with_why(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("source,metric,value\na,m,1\na,m,high\na,,2\na,m,1" + "0" * 29 + "\n")
    arguments = ("ingest", "telemetry", tmp_path / "x.csv", "--state-dir", stack.folder)
    assert run(*arguments, "--skip-bad", "--strict").code == 0
    left = [json.loads(each) for each in (tmp_path / "x.csv.rejected").read_text().splitlines()]
    assert [(each["line"], each["problem"]) for each in left] == [
        (3, "value has to be a number (bad_type)"),
        (4, "metric is missing (missing_field)"),
        (5, "value: an integer is beyond 64 bits; write it like 1e30 if a float is meant"),
    ]
    assert json.loads(left[0]["data"]) == {"source": "a", "metric": "m", "value": "high"}
    done = run("ingest", "telemetry", tmp_path / "x.csv.rejected", "--state-dir", stack.folder)
    assert "x.csv.rejected lists what --skip-bad left out, with why, and is no file to send" in done.error


def test_rows_that_become_dead_letters_are_told(stack: Stack, tmp_path: Path) -> None:
    file = write_ndjson(tmp_path / "x.ndjson", [*readings(2), NO_METRIC, {**readings(1)[0], "comment": "x"}, NO_METRIC])
    arguments = ("ingest", "telemetry", file, "--state-dir", stack.folder)
    done = run(*arguments, "--batch-size", 2)
    assert done.code == 0
    assert done.err == (
        "3 of 5 rows break the contract of telemetry and become dead letters, most of them because metric is missing "
        "(missing_field), first in line 3; `pipeline-platform dlq list --stream telemetry` shows them.\n"
    )
    # Also when all are sent that there are, as their owner says; not of rows that are refused.
    assert "3 of 5 rows" in run(*arguments, "--run-id", "a", "--max-rejected", 100).err
    assert run(*arguments, "--run-id", "b", "--strict", "--skip-bad").err == ""


@pytest.mark.parametrize("size", [70_000, 9_000_000, 17_000_000])
def test_a_line_that_is_too_long_is_that_lines_fault(stack: Stack, tmp_path: Path, size: int) -> None:
    long = json.dumps({"source": "a" * size, "metric": "m", "value": 2}).encode() + b"\n"
    (tmp_path / "x.ndjson").write_bytes(line(1) + long + line(3) + line(4))
    arguments = ("ingest", "telemetry", tmp_path / "x.ndjson", "--state-dir", stack.folder, "--json")
    assert "x.ndjson, line 2: " in run(*arguments).error
    done = run(*arguments, "--skip-bad")
    assert (done.error, done.document["skipped"]) == ("", 1)
    assert stack.values() == [1.0, 3.0, 4.0]


@contextmanager
def written(path: Path, content: bytes) -> Iterator[None]:
    """Writes to a named pipe until it has been read."""
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    yield
    writer.join(20)
    assert not writer.is_alive()


def test_a_named_pipe_is_new_each_time(stack: Stack, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    arguments = ("ingest", "telemetry", tmp_path / "pipe", "--format", "ndjson", "--state-dir", stack.folder, "--json")
    for content in (line(1) + line(2), line(1) + line(2), line(3), gzip.compress(line(4) + line(5) + line(6))):
        with written(tmp_path / "pipe", content):
            done = run(*arguments)
        assert (done.error, done.document["resumed_after"], done.document["repeated"]) == ("", 0, 0)
    assert stack.values() == [1.0, 1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    # A name says that it is the same.
    for content in (line(7), line(7), line(8)):
        with written(tmp_path / "pipe", content):
            assert run(*arguments, "--run-id", "a").error == ""
    assert stack.values()[-2:] == [7.0, 8.0]


@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd"])
def test_a_process_substitution_is_new_each_time(stack: Stack, folder: str) -> None:
    for value in (1, 2):
        read, write = os.pipe()
        try:
            os.write(write, line(value))
            os.close(write)
            done = run("ingest", "telemetry", f"{folder}/{read}", "--format", "ndjson", "--state-dir", stack.folder)
        finally:
            os.close(read)
        assert done.error == ""
    assert stack.values() == [1.0, 2.0]
    assert run("ingest", "telemetry", "/dev/null", "--format", "csv", "--state-dir", stack.folder).code == 0


def test_what_a_pipe_leaves_out_is_kept_for_each_run(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for bad in (b"{one", b"{two"):
        done = run("ingest", "telemetry", "-", "--skip-bad", "--state-dir", stack.folder, stdin=bad + b"\n" + line(1))
        assert "1 rows were left out; they are in telemetry-" in done.out
    left = [json.loads(path.read_bytes())["data"] for path in tmp_path.glob("telemetry-*.rejected")]
    assert sorted(left) == ["{one", "{two"]
    # A file by the name that the system gives to what is open is still that file.
    (tmp_path / "x.ndjson").write_bytes(b"{three\n" + line(1))
    with (tmp_path / "x.ndjson").open() as file:
        name = f"/dev/fd/{file.fileno()}"
        done = run("ingest", "telemetry", name, "--format", "ndjson", "--skip-bad", "--state-dir", stack.folder)
    assert f"they are in {tmp_path}/x.ndjson.rejected" in done.out


def test_what_became_another_file_goes_on_as_the_message_says(stack: Stack, network: Network, tmp_path: Path) -> None:
    # Given a file of which some rows were acknowledged, and then a row is bad
    rows = [line(n) for n in range(20)]
    file = tmp_path / "x.ndjson"
    file.write_bytes(b"".join([*rows[:12], b"{bad\n", *rows[12:]]))
    arguments = ("ingest", "telemetry", file, "--state-dir", stack.folder, "--url", network.url, "--batch-size", 4)
    assert "x.ndjson, line 13: " in run(*arguments, "--concurrency", 1).error
    # When its beginning is changed, I expect it to say so
    file.write_bytes(b"".join([line(99), *rows[1:]]))
    error = run(*arguments).error
    assert "its first 12 rows, which were acknowledged, are not what they were. Make them so again" in error
    assert error.endswith("pass --run-id NAME to send all of it as new events. Nothing was sent.")
    # And to go on when only the bad row is taken out
    file.write_bytes(b"".join(rows))
    assert run(*arguments).code == 0
    assert stack.values() == [float(n) for n in range(20)]


class TestWhateverEndsIt:
    """The message says what was acknowledged, what was not, and how to go on."""

    def test_the_gateway_goes_away(self, stack: Stack, network: Network, tmp_path: Path) -> None:
        file = write_ndjson(tmp_path / "x.ndjson", readings(100))
        network.action = lambda n: "pass" if n <= 3 else "cut-after"
        arguments = ("ingest", "telemetry", file, "--state-dir", stack.folder, "--batch-size", 10, "--concurrency", 1)
        done = run(*arguments, "--url", network.url, "--patience", 0)
        assert done.error.endswith(
            "cannot be reached; gave up after 0 s. 30 events were acknowledged; the same command goes on from there. "
            "10 rows may have arrived without an answer; the rest was not sent."
        )
        network.action = lambda _: "pass"
        assert run(*arguments, "--url", network.url).code == 0
        assert stack.values() == [float(n) for n in range(100)]

    def test_the_gateway_is_not_there(self, stack: Stack, tmp_path: Path) -> None:
        file = write_ndjson(tmp_path / "x.ndjson", readings(1))
        done = run(
            "ingest", "telemetry", file, "--state-dir", stack.folder, "--url", "http://127.0.0.1:9", "--patience", 0
        )
        assert done.error.endswith("gave up after 0 s. Nothing was sent.")

    def test_a_pipe_breaks_off(self, stack: Stack, network: Network) -> None:
        network.action = lambda n: "pass" if n <= 2 else "busy"
        done = run("ingest", "telemetry", "-", "--state-dir", stack.folder, "--url", network.url, "--patience", 0,
                   "--batch-size", 1, "--concurrency", 1, stdin=b"".join(map(line, range(5))))  # fmt: skip
        assert " 2 events were acknowledged; the same input with --run-id " in done.error
        assert "doubles nothing. 1 rows may have arrived without an answer; the rest was not sent." in done.error

    @pytest.mark.parametrize("packed", [gzip.compress, zstandard.compress])
    def test_the_file_is_damaged(self, stack: Stack, tmp_path: Path, packed: Callable[[bytes], bytes]) -> None:
        whole = b"".join(packed(b"".join(line(n) for n in range(first, first + 15_000))) for first in (0, 15_000))
        file = tmp_path / "x.ndjson.gz"
        file.write_bytes(whole[:-100])
        arguments = ("ingest", "telemetry", file, "--state-dir", stack.folder, "--batch-size", 5000, "--json")
        done = run(*arguments)
        assert "ends in the middle of its compression" in done.error
        before = stack.values()
        assert 15_000 < len(before) < 30_000
        assert f" {len(before):,} events were acknowledged; when that is mended, the same command " in done.error
        file.write_bytes(whole)
        done = run(*arguments)
        assert (done.document["events"], done.document["resumed_after"]) == (30_000 - len(before), len(before))
        assert stack.values() == [float(n) for n in range(30_000)]

    def test_the_disk_of_what_is_left_out_is_full(self, stack: Stack, tmp_path: Path) -> None:
        file = tmp_path / "x.ndjson"
        file.write_bytes(b"".join(line(n) for n in range(20)) + b"{bad\n" + line(20))
        rejected = Path(f"{file}.rejected")
        rejected.symlink_to("/dev/full")
        arguments = ("ingest", "telemetry", file, "--state-dir", stack.folder, "--skip-bad", "--batch-size", 10)
        done = run(*arguments, "--concurrency", 1)
        assert "The rows left out cannot be written to" in done.error
        assert done.error.endswith(
            "(No space left on device). 20 events were acknowledged; when that is mended, the same command goes on "
            "from there. 2 rows may have arrived without an answer; the rest was not sent."
        )
        rejected.unlink()
        assert run(*arguments).code == 0
        assert json.loads(rejected.read_bytes()) == {"line": 21, "problem": "not a JSON object", "data": "{bad"}
        assert stack.values() == [float(n) for n in range(21)]

    def test_the_disk_of_the_journal_is_full(self, stack: Stack, network: Network, tmp_path: Path) -> None:
        file = write_ndjson(tmp_path / "x.ndjson", readings(50))

        def fill(n: int) -> str:
            if n == 3:
                (journal,) = (stack.folder / "ingest").glob("*.json")
                journal.with_suffix(f".{os.getpid()}.new").symlink_to("/dev/full")
            return "pass"

        network.action = fill
        arguments = ("ingest", "telemetry", file, "--state-dir", stack.folder, "--url", network.url, "--batch-size", 10)
        done = run(*arguments, "--concurrency", 1)
        assert "(No space left on device); the batch was not sent. 30 events were acknowledged; when" in done.error
        for left in (stack.folder / "ingest").glob("*.new"):
            left.unlink()
        network.action = lambda _: "pass"
        assert run(*arguments).code == 0
        assert stack.values() == [float(n) for n in range(50)]

    def test_the_gateway_goes_away_while_the_outcome_is_waited_for(
        self, stack: Stack, network: Network, tmp_path: Path
    ) -> None:
        file = write_ndjson(tmp_path / "x.ndjson", readings(5))
        done = run(
            "ingest", "telemetry", file, "--state-dir", stack.folder, "--url", network.url, "--wait", "--patience", 0
        )
        assert "Everything was accepted, but telemetry." in done.error
        assert "ask later with `pipeline-platform job telemetry." in done.error

    def test_a_reader_fails(self, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Given a time that Python does not have, and a reader of Parquet that does not know
        table = pa.table({"source": ["a"] * 3, "metric": ["m"] * 3, "value": [1.0, 2.0, 3.0]})
        pq.write_table(table, tmp_path / "x.parquet")

        def read(*_: object) -> Iterator[Any]:
            yield from map(datetime.fromtimestamp, [1e15])

        monkeypatch.setattr("pipeline_platform.cli.files.parquet_rows.parquet_rows", read)
        done = run("ingest", "telemetry", tmp_path / "x.parquet", "--state-dir", stack.folder)
        assert "x.parquet cannot be read any further: ValueError: year " in done.error
        assert done.error.endswith("out of range. Nothing was sent.")
