"""The bounds of BoundedHttp over real connections: what is refused, and that everything else still works."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from pipeline_platform.access.bounded_http import HEAD_BYTES, PIECE, PIPELINED, BoundedHttp
from pipeline_platform.access.connection_counts import ConnectionCounts
from pipeline_platform_tests.security.edge_kit import Raw, get, post, served, until

MB = 2**20


async def length(request: Request) -> Response:
    """How long the body is."""
    return PlainTextResponse(str(len(await request.body())))


async def unread(_: Request) -> Response:
    """Answers without its body."""
    return PlainTextResponse("unread")


async def slow(_: Request) -> Response:
    """Takes longer than a head may."""
    await asyncio.sleep(1.2)
    return PlainTextResponse("slow")


async def large(_: Request) -> Response:
    """More than the kernel buffers."""
    return Response(bytes(32 * MB))


async def late_stream(_: Request) -> Response:
    """Begins after a while, and has many pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            await asyncio.sleep(0.02)
            yield b"piece"

    return StreamingResponse(pieces())


async def echo(socket: WebSocket) -> None:
    """Says again what it hears."""
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


APP = Starlette(
    routes=[
        Route("/length", length, methods=["GET", "POST"]),
        Route("/unread", unread, methods=["GET", "POST"]),
        Route("/slow", slow),
        Route("/late-stream", late_stream),
        Route("/large", large),
        WebSocketRoute("/echo", echo),
    ]
)
QUICK = BoundedHttp.bounded(connections=20, head_seconds=0.5, body_seconds=1.0, stall_seconds=0.5)
PATIENT = BoundedHttp.bounded(connections=20)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server with the usual bounds."""
    with served(APP, PATIENT, ws="websockets-sansio") as port:
        yield port


@pytest.fixture(scope="module")
def quick() -> Iterator[int]:
    """A server with little patience, and connections that may be idle for two seconds."""
    with served(APP, QUICK, ws="websockets-sansio", timeout_keep_alive=2) as port:
        yield port


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET /length HTTP/1.1\r\nHost: x\r\n", b"x-filler: " + b"a" * 1014 + b"\r\n"),
        (b"GET /length HTTP/1.1\r\nHost: x\r\nx-endless: ", b"a" * 1024),
        (b"GET /length?", b"a" * 1024),
        (b"GET /length HTTP/1.1\r\nContent-Length: 99999999999\r\n", b"b: " + b"a" * 1019 + b"\r\n"),
        (b"", b"\r\n" * 512),
    ],
    ids=["many headers", "one header", "url", "a length before them", "empty lines"],
)
def test_a_head_without_end_is_refused_however_much_is_sent(port: int, start: bytes, piece: bytes) -> None:
    taken = {}
    for most in (16 * MB, 32 * MB):
        with Raw(port) as raw:
            raw.send(start)
            taken[most] = raw.flood(piece, most)
            status, _ = raw.answer()
        assert status in (431, 0), "hung up, with an answer if the kernel kept it"
    # What the kernel buffers on the way, and no more for twice as much.
    assert max(taken.values()) < 8 * MB


def test_a_head_that_comes_at_once_is_counted_too(port: int) -> None:
    line = "a" * 98 + ": b"
    with Raw(port) as raw:
        raw.send(get("/length", *[line] * 300))
        assert raw.answer() == (200, b"0")
        raw.send(get("/length", *[line] * 500))
        assert raw.answer()[0] == 431
        assert raw.ended()


def test_a_second_head_behind_a_body_is_counted_and_the_body_is_not(port: int) -> None:
    body = b"b" * (3 * MB)
    fits, not_fits = HEAD_BYTES - 2 * PIECE, HEAD_BYTES + 2 * PIECE
    for size, status in ((fits, 200), (not_fits, 431)):
        with Raw(port) as raw:
            raw.send(post("/length", body) + get("/length", "x: " + "a" * size))
            assert raw.answer() == (200, str(len(body)).encode())
            # The answer to the first is never a refusal of the second.
            assert raw.answer()[0] in ((status,) if status == 200 else (431, 0))


def test_keep_alive_and_pipelined_requests_are_answered_in_order(port: int) -> None:
    bodies = [b"x" * size for size in (0, 1, PIECE - 1, PIECE, PIECE + 1, 70_000)]
    with Raw(port) as raw:
        raw.send(b"".join(post("/length", body) for body in bodies))
        assert [raw.answer() for _ in bodies] == [(200, str(len(body)).encode()) for body in bodies]
        for body in bodies:
            raw.send(post("/length", body))
            assert raw.answer() == (200, str(len(body)).encode())


def test_a_chunked_body_of_any_size_is_no_head(port: int) -> None:
    chunk = b"400\r\n" + b"c" * 1024 + b"\r\n"
    with Raw(port) as raw:
        raw.send(b"POST /length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 500 + b"0\r\n\r\n")
        assert raw.answer() == (200, b"512000")
        raw.send(get("/length"))
        assert raw.answer() == (200, b"0")


def test_requests_that_pile_up_behind_one_end_the_connection(port: int) -> None:
    with Raw(port) as raw:
        raw.send(get("/length") * PIPELINED)
        assert [raw.answer()[0] for _ in range(PIPELINED)] == [200] * PIPELINED
        raw.send(get("/slow") + get("/length") * 2000)
        assert raw.ended()


@pytest.mark.parametrize("sent", [b"", b"GET /len", get("/length") + b"GET"])
def test_a_head_that_does_not_come_ends_the_connection(quick: int, sent: bytes) -> None:
    before = QUICK.refused["timeout"]
    with Raw(quick) as raw:
        raw.send(sent)
        if sent.startswith(get("/length")):
            assert raw.answer() == (200, b"0")
        status, _ = raw.answer()
        assert status == (408 if sent else 0)
        assert raw.ended()
    assert QUICK.refused["timeout"] == before + 1


def test_bytes_that_are_no_head_do_not_keep_a_connection(quick: int) -> None:
    with Raw(quick) as raw:
        raw.send(get("/length"))
        assert raw.answer() == (200, b"0")
        raw.send(b"\r\n")
        assert raw.answer()[0] == 408


@pytest.mark.parametrize("path", ["/length", "/unread"])
def test_a_body_that_does_not_come_ends_the_connection(quick: int, path: str) -> None:
    with Raw(quick) as raw:
        raw.send(post(path, b"", length=1000))
        status, _ = raw.answer()
        assert status == (408 if path == "/length" else 200)
        raw.send(b"b")
        assert raw.ended()


def test_a_slow_answer_is_not_taken_for_a_slow_head(quick: int) -> None:
    with Raw(quick) as raw:
        raw.send(get("/slow") + b"GET /length HT")
        assert raw.answer() == (200, b"slow")
        raw.send(b"TP/1.1\r\nHost: x\r\n\r\n")
        assert raw.answer() == (200, b"0")


def test_an_idle_connection_is_kept_as_long_as_the_server_says(quick: int) -> None:
    with Raw(quick) as raw:
        for _ in range(2):
            raw.send(get("/length"))
            assert raw.answer() == (200, b"0")
        assert raw.ended()


def test_whoever_does_not_read_is_cut_off(quick: int) -> None:
    before = QUICK.refused["unread"]
    with Raw(quick, receive_buffer=4096) as raw:
        raw.send(get("/large"))
        until(lambda: QUICK.refused["unread"] > before, 10)


def test_an_address_has_so_many_connections_and_gets_them_back(port: int) -> None:
    until(lambda: len(PATIENT.counts) == 0, 5)
    held = [Raw(port) for _ in range(20)]
    for raw in held:
        raw.send(get("/length"))
        assert raw.answer() == (200, b"0")
    with Raw(port) as raw:
        assert raw.answer()[0] == 429
    for raw in held:
        raw.close()
    until(lambda: len(PATIENT.counts) == 0, 5)
    with Raw(port) as raw:
        raw.send(get("/length"))
        assert raw.answer() == (200, b"0")


def test_a_proxy_may_have_any_number_and_an_ipv6_network_counts_as_one() -> None:
    counts = ConnectionCounts(2, ["10.0.0.0/8"])
    assert all(counts.enter("10.1.2.3") for _ in range(9))
    assert [counts.enter(f"2001:db8:1:1::{n}") for n in (1, 2, 3)] == ["2001:db8:1:1::/64"] * 2 + [None]
    assert counts.enter("2001:db8:1:2::1")
    assert [counts.enter("::ffff:192.0.2.1"), counts.enter("192.0.2.1"), counts.enter("192.0.2.1")][2] is not None
    counts.leave("2001:db8:1:1::/64")
    assert counts.enter("2001:db8:1:1::9")


def test_a_websocket_outlives_the_bounds_and_is_counted_until_its_end(quick: int) -> None:
    until(lambda: len(QUICK.counts) == 0, 5)
    with connect(f"ws://127.0.0.1:{quick}/echo") as socket:
        for text in ("a", "b" * HEAD_BYTES * 2):
            socket.send(text)
            assert socket.recv(timeout=5) == text
        with Raw(quick) as raw:  # twice as long as a head may take
            raw.send(get("/slow"))
            assert raw.answer() == (200, b"slow")
        socket.send("still here")
        assert socket.recv(timeout=5) == "still here"
        assert len(QUICK.counts) >= 1
    until(lambda: len(QUICK.counts) == 0, 5)


def test_an_upgrade_that_is_not_made_is_answered_and_ends_the_connection(port: int) -> None:
    with Raw(port) as raw:
        raw.send(get("/length", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"))
        assert raw.answer() == (200, b"0")
        raw.send(b"x" * 100)
        assert raw.ended()


def test_an_answer_to_somebody_who_left_is_no_exception(port: int, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        with Raw(port) as raw:  # the answer to the first begins when the second has come, and the client is gone
            raw.send(get("/late-stream") + get("/length"))
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: len(PATIENT.counts) == 0, 5)
    with Raw(port) as raw:
        raw.send(get("/slow"))
        assert raw.answer() == (200, b"slow")
    assert not caplog.records


def test_bad_requests_are_counted_and_not_logged(port: int, caplog: pytest.LogCaptureFixture) -> None:
    before = BoundedHttp.refused["malformed"]
    for _ in range(5):
        with Raw(port) as raw:
            raw.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            assert raw.answer()[0] == 400
    assert BoundedHttp.refused["malformed"] == before + 5
    assert not caplog.records
