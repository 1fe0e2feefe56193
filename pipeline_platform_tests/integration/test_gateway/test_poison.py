"""What must be refused at the edge, naming the line; and what only looks odd and is accepted."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Callable, Iterator

import orjson
import pytest
import requests
import zstandard

from pipeline_platform.settings import Settings
from pipeline_platform_tests.integration.test_gateway.kit import GOOD, Client, Pipeline, Shared, serving

LINE = orjson.dumps(GOOD)

POISON = {
    "NaN": b'{"source":"a","metric":"m","value":NaN}',
    "Infinity": b'{"source":"a","metric":"m","value":-Infinity}',
    "1e400": b'{"source":"a","metric":"m","value":1e400}',
    "10^30": b'{"source":"a","metric":"m","value":1000000000000000000000000000000}',
    "beyond 64 bits, nested": b'{"source":"a","metric":"m","value":1,"x":[99999999999999999999]}',
    "NUL": b'{"source":"a\\u0000","metric":"m","value":1}',
    "NUL in a name": b'{"sou\\u0000rce":"a","metric":"m","value":1}',
    "raw NUL": b'{"source":"a\0","metric":"m","value":1}',
    "lone surrogate": b'{"source":"\\ud800","metric":"m","value":1}',
    "invalid UTF-8": b'{"source":"\xff\xfe","metric":"m","value":1}',
    "overlong UTF-8": b'{"source":"\xc0\xaf","metric":"m","value":1}',
    "duplicate keys": b'{"source":"a","metric":"m","value":1,"value":2}',
    "duplicate keys, escaped": b'{"source":"a","metric":"m","value":1,"v\\u0061lue":2}',
    "duplicate keys, nested": b'{"source":"a","metric":"m","value":1,"x":{"y":1,"y":2}}',
    "7,000 deep": b'{"source":"a","metric":"m","value":' + b"[" * 7000 + b"]" * 7000 + b"}",
    "900 deep": b'{"source":"a","metric":"m","value":' + b"[" * 900 + b"]" * 900 + b"}",
    "9 deep": b'{"source":"a","metric":"m","value":1,"x":' + b"[" * 8 + b"]" * 8 + b"}",
    "array": b"[1,2,3]",
    "number": b"17",
    "text": b'"hello"',
    "null": b"null",
    "cut short": b'{"source":"a","metric":"m","val',
    "two objects": LINE + b"," + LINE,
    "two objects, apart": LINE + b" " + LINE,
    "single quotes": b"{'source':'a'}",
    "comment": LINE + b" // fine",
    "leading zeros": b'{"source":"a","metric":"m","value":007}',
}


@pytest.fixture
def client(shared: Shared) -> Client:
    """The shared gateway's admin."""
    return shared.client


@pytest.fixture
def pipeline(shared: Shared) -> Pipeline:
    """The pipeline behind it."""
    return shared.pipeline


@pytest.mark.parametrize("name", POISON)
def test_poison_is_refused_and_its_line_is_named(client: Client, name: str) -> None:
    refused = client.post(b"\n".join([LINE, b"", LINE, POISON[name], LINE]))
    assert refused.status_code == 400, refused.text
    assert refused.headers["Content-Type"] == "application/problem+json"
    problem = refused.json()
    assert (problem["line"], problem["index"]) == (4, 2)
    assert problem["detail"].startswith("Line 4: ")
    assert problem["status"] == 400


@pytest.mark.parametrize("name", POISON)
def test_poison_in_an_array_is_refused(client: Client, name: str) -> None:
    refused = client.post(b"[" + LINE + b",\n" + POISON[name] + b"]", headers={"Content-Type": "application/json"})
    if name.startswith("two objects,"):  # a syntax error of the whole
        assert refused.status_code == 400
    elif name == "two objects":  # in an array these are simply two
        assert refused.status_code == 202
    else:
        assert refused.status_code == 400, refused.text
        problem = refused.json()
        assert problem.get("index", 1) == 1
        assert problem.get("line", 2) == 2


@pytest.mark.parametrize(
    "body",
    [
        b'{"source":"a","metric":"m","value":-0}',
        b'{"source":"a","metric":"m","value":1e30}',
        b'{"source":"a","metric":"m","value":18446744073709551615}',
        b'{"source":"quote \\" and \\\\u0000 and \\ud83d\\ude00","metric":"m","value":1}',
        b'{"source":"a","metric":"m","value":1,"unknown":{"nested":[1,{"x":2}]}}',
        b"{}",
        b'\xef\xbb\xbf{"source":"a","metric":"m","value":1}',
        b'  {"source":"a","metric":"m","value":1}  \r\n\r\n\t\n {"source":"a","metric":"m","value":2}\r\n',
    ],
)
def test_what_only_looks_odd_is_accepted_and_settles(client: Client, pipeline: Pipeline, body: bytes) -> None:
    accepted = client.post(body)
    assert accepted.status_code == 202, accepted.text
    pipeline.run()
    counts = client.get(accepted.headers["Location"]).json()["counts"]
    assert counts["received"] == accepted.json()["accepted"]
    assert counts["received"] == counts["loaded"] + counts["negative"] + counts["rejected"]


@pytest.mark.parametrize(
    ("content_type", "body", "count"),
    [
        ("application/json", b' { "source": "a",\n "metric": "m", "value": 1 } ', 1),
        ("application/json; charset=utf-8", b"[" + LINE + b"," + LINE + b"]", 2),
        ("application/x-ndjson", LINE + b"\n" + LINE + b"\n", 2),
        ("application/jsonl", LINE, 1),
        (None, LINE + b"\n" + LINE, 2),
        (None, b"[" + LINE + b",\n" + LINE + b"]", 2),
        (None, b'{\n"source": "a", "metric": "m", "value": 1}', 1),
    ],
)
def test_bodies_of_each_type(
    client: Client, pipeline: Pipeline, content_type: str | None, body: bytes, count: int
) -> None:
    accepted = client.post(body, headers={"Content-Type": content_type})
    assert accepted.status_code == 202, accepted.text
    assert accepted.json()["accepted"] == count
    pipeline.run()
    assert client.get(accepted.headers["Location"]).json()["counts"]["loaded"] == count


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "application/json; charset=utf-16"])
def test_other_types_are_415(client: Client, content_type: str) -> None:
    assert client.post(LINE, headers={"Content-Type": content_type}).status_code == 415


@pytest.mark.parametrize("body", [b"", b" \n\r\n", b"[]", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson"])
def test_a_body_without_events_is_400(client: Client, body: bytes, content_type: str) -> None:
    assert client.post(body, headers={"Content-Type": content_type}).status_code == 400


@pytest.fixture
def small(settings: Settings, connected: Callable[..., Client]) -> Iterator[Client]:
    """A client of a gateway with small bounds."""
    tight = {"body_max_bytes": 100_000, "line_max_bytes": 500, "request_max_events": 50}
    with serving(settings.model_copy(update=tight)) as base:
        yield connected(base, "ingest")


def test_a_body_of_the_largest_size(client: Client) -> None:
    line = orjson.dumps({**GOOD, "source": "x" * 200})
    body = b"\n".join([line] * ((8 * 2**20 - 2000) // (len(line) + 1)))
    assert client.post(body).json()["accepted"] == body.count(b"\n") + 1
    dense = gzip.compress(body, 0)
    assert len(dense) <= 8 * 2**20
    assert client.post(dense, headers={"Content-Encoding": "gzip"}).status_code == 202
    assert client.post(body + b"\n" + line * 20).status_code == 413


def test_bounds_are_413(small: Client) -> None:
    assert small.post(b"\n".join([LINE] * 50)).status_code == 202
    assert small.post(b"\n".join([LINE] * 51)).status_code == 413
    assert small.post([GOOD] * 51).status_code == 413
    assert small.post(b"\n" * 90_000 + LINE).status_code == 413
    assert small.post(b"[" + b"{}," * 30_000 + b"{}]", headers={"Content-Type": "application/json"}).status_code == 413
    long = small.post(b"\n".join([LINE, LINE[:-1] + b" " * 500 + b"}"]))
    assert (long.status_code, long.json()["line"]) == (413, 2)
    assert small.post({**GOOD, "source": "x" * 500}).status_code == 413
    assert small.post(LINE + b" " * 100_000).status_code == 413
    assert small.post(b" " * 100_001, headers={"Content-Length": "100001"}).status_code == 413


def chunks(size: int) -> Iterator[bytes]:
    """A body of unknown length."""
    for _ in range(size // 10_000):
        yield b" " * 10_000


def test_a_body_without_a_length_is_bounded_too(small: Client) -> None:
    url = f"{small.base}/v1/streams/telemetry/events"
    # The answer may come before all was sent, and the connection be closed.
    with contextlib.suppress(requests.ConnectionError):
        assert small.http.post(url, data=chunks(5_000_000), timeout=30).status_code == 413
    assert small.post(LINE).status_code == 202


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
def test_compressed_bodies_and_bombs(small: Client, encoding: str, compress: Callable[[bytes], bytes]) -> None:
    headers = {"Content-Encoding": encoding}
    whole = compress(b"\n".join([LINE] * 20))
    accepted = small.post(whole, headers=headers)
    assert (accepted.status_code, accepted.json()["accepted"]) == (202, 20)
    assert small.post(compress(LINE + b"\n") + compress(LINE), headers=headers).json()["accepted"] == 2
    for members in (100, 101, 300):  # as many as writers of logs leave
        assert small.post(compress(b" ") * members + compress(LINE), headers=headers).json()["accepted"] == 1
    assert small.post(compress(b" " * 50_000_000), headers=headers).status_code == 413
    assert small.post(compress(b" " * 500_000) * 200, headers=headers).status_code == 413
    assert small.post(compress(b"") * 4000, headers=headers).status_code in (400, 413)
    for damaged in (whole[:-3], whole[: len(whole) // 2], whole + b"tail", b"nonsense", b""):
        assert small.post(damaged, headers=headers).status_code == 400, damaged


def test_other_encodings_are_415(small: Client) -> None:
    for encoding in ("br", "deflate", "gzip, gzip", "compress"):
        assert small.post(zlib.compress(LINE), headers={"Content-Encoding": encoding}).status_code == 415
    assert small.post(LINE, headers={"Content-Encoding": "identity"}).status_code == 202
