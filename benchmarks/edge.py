"""The edge's speed: one gateway process, durable acknowledgements, beside what its queue server does by itself.

    python -m benchmarks.edge [--seconds 5] [--connections 32]

Starts a Valkey of its own (`appendfsync always`) and one gateway; the load comes from a process of its own over
keep-alive connections. Keys and limits are on. Every answer counted is a 202.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import orjson
import redis
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.servers import HOST, Servers, gateway
from pipeline_platform.local.accounts import server_account
from pipeline_platform.local.lock import open_state_dir
from pipeline_platform.local.supervisor import Supervisor
from pipeline_platform.local.valkey import ValkeyServer
from pipeline_platform.queue.keys import KeyStore
from pipeline_platform.queue.redis_streams import APPEND

LINES = 1000
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"  # to accept events no PostgreSQL is needed
MAX_MEMORY = 3 * 2**30
BULK_SECONDS = 3.0  # Redis by itself fills its memory with large entries within seconds


def event(number: int) -> bytes:
    """An event of about 90 bytes, of one of 500 series."""
    source, metric = f"press-{number % 50:03d}", f"metric_{number % 10}"
    return orjson.dumps({"source": source, "metric": metric, "value": number * 0.37, "ts": time.time_ns() // 10**6})


class Closed(asyncio.Protocol):
    """One keep-alive connection that always has `depth` requests under way; `answered` finds whole answers."""

    def __init__(self, request: bytes, depth: int, answered: Callable[[bytes], int], deadline: float) -> None:
        self._request = request
        self._depth = depth
        self._answered = answered
        self._deadline = deadline
        self._buffer = b""
        self._open = 0
        self._sent_at = 0.0
        self.done = asyncio.get_running_loop().create_future()
        self.count = 0
        self.took: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self._open = self._depth
        self._sent_at = time.perf_counter()
        self._transport.write(self._request * self._depth)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        try:
            whole = self._answered(self._buffer)
        except RuntimeError as error:
            if not self.done.done():
                self.done.set_exception(error)
            self._transport.abort()
            return
        if whole < self._open:
            return
        now = time.perf_counter()
        self._buffer = b""
        self.count += whole
        self.took.append(now - self._sent_at)
        if now < self._deadline:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def http_answers(data: bytes) -> int:
    """1 for a complete 202."""
    if not data.startswith(b"HTTP/1.1 202"):
        raise RuntimeError(f"Not a 202: {data[:400]!r}")
    return int(data.endswith(b"}}"))


def redis_answers(data: bytes) -> int:
    """Whole bulk strings, two lines each."""
    if data[:1] == b"-":
        raise RuntimeError(f"Redis refused: {data[:200]!r}")
    return data.count(b"\r\n") // 2 if data.endswith(b"\r\n") else 0


async def drive(
    port: int, request: bytes, *, connections: int, depth: int, seconds: float, http: bool
) -> dict[str, float]:
    """Requests a second and their latency over `connections`."""
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    answered = http_answers if http else redis_answers
    protocols = [
        (await loop.create_connection(lambda: Closed(request, depth, answered, started + seconds), HOST, port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for protocol in protocols))
    took = sorted(value for protocol in protocols for value in protocol.took)
    count = sum(protocol.count for protocol in protocols)
    elapsed = time.perf_counter() - started
    return {
        "rate": count / elapsed,
        "p50": took[len(took) // 2] * 1000,
        "p99": took[int(len(took) * 0.99)] * 1000,
    }


def measure(
    port: int, request: bytes, *, connections: int, seconds: float, http: bool, depth: int = 1
) -> dict[str, float]:
    """`drive` in a process of its own."""
    plan = {"port": port, "connections": connections, "depth": depth, "seconds": seconds, "http": http}
    with tempfile.NamedTemporaryFile() as file:
        file.write(request)
        file.flush()
        answer = subprocess.run(
            [sys.executable, "-m", "benchmarks.edge", "--drive", json.dumps(plan), "--request", file.name],
            stdout=subprocess.PIPE,
            check=True,
            timeout=seconds + 20,
        )
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


def post(body: bytes, token: str) -> bytes:
    """A whole HTTP request."""
    head = (
        "POST /v1/streams/telemetry/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/x-ndjson\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def command(*parts: bytes) -> bytes:
    """A RESP command."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


@contextmanager
def valkey() -> Iterator[ValkeyServer]:
    """A Valkey of the benchmark's own, as durable as in production; without a password the load is plain."""
    folder = Path(tempfile.mkdtemp(prefix="pipeline-edge-"))
    folder.chmod(0o755)
    state = open_state_dir(folder / "state")
    server = ValkeyServer.prepare(state, server_account(), max_memory=MAX_MEMORY)
    supervisor = Supervisor([server.service()], lambda *_: None, state)
    supervisor.start()
    try:
        yield server
    finally:
        supervisor.stop()
        shutil.rmtree(folder)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row of the table")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    parser.add_argument("--request", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        print(json.dumps(uvloop.run(drive(request=Path(options.request).read_bytes(), **json.loads(options.drive)))))
        return
    table = Table(title=f"Edge, {options.connections} keep-alive connections, appendfsync always")
    for column in ("", "requests/s", "events/s", "p50 ms", "p99 ms", "gateway CPU", "target"):
        table.add_column(column, justify="left" if not column else "right")
    common = {"connections": options.connections, "seconds": options.seconds}

    def row(name: str, figures: dict[str, float], events: int, cpu: str = "", target: str = "") -> None:
        rate = figures["rate"]
        table.add_row(
            name, f"{rate:,.0f}", f"{rate * events:,.0f}", f"{figures['p50']:.1f}", f"{figures['p99']:.1f}", cpu, target
        )

    with valkey() as server:
        client = redis.Redis.from_url(server.url())
        _, token = KeyStore(client).create("benchmark", ["ingest"])
        single, many = event(1), b"\n".join(event(number) for number in range(LINES))
        with gateway(Servers(NOWHERE, server.url())) as (port, pid):
            measure(port, post(single, token), connections=4, seconds=0.5, http=True)
            for name, body, events, target in (
                ("gateway, one event a POST", single, 1, "4,000 requests/s"),
                (f"gateway, NDJSON of {LINES}", many, LINES, "100,000 events/s"),
            ):
                before, began = cpu_seconds(pid), time.perf_counter()
                figures = measure(port, post(body, token), http=True, **common)
                share = (cpu_seconds(pid) - before) / (time.perf_counter() - began)
                row(name, figures, events, f"{share:.0%}", target)
                client.delete("pp:{telemetry}:entries", "pp:{telemetry}:sizes", "pp:{telemetry}:totals")
        # So that the raw load needs no handshake.
        client.acl_setuser("default", enabled=True, nopass=True, categories=["+@all"], keys=["*"], channels=["*"])
        sha = str(client.script_load(APPEND)).encode()
        keys = [b"pp:{bench}:" + name for name in (b"entries", b"sizes", b"totals")]
        for name, body, count in (("one event", single, b"1"), (f"NDJSON of {LINES}", many, b"%d" % LINES)):
            script = command(b"EVALSHA", sha, b"3", *keys, count, b"0123abcd", body)
            plain = command(b"XADD", b"bench", b"*", b"n", count, b"k", b"0123abcd", b"d", body)
            depths = (1, 16) if count == b"1" else (1,)
            raw = common | {"seconds": options.seconds if count == b"1" else min(options.seconds, BULK_SECONDS)}
            for depth in depths:
                how = "unpipelined" if depth == 1 else f"{depth} a pipeline"
                for kind, text in (("the script", script), ("XADD", plain)):
                    figures = measure(server.port, text, http=False, depth=depth, **raw)
                    row(f"valkey, {kind}, {name}, {how}", figures, int(count))
                    client.delete("bench", *keys)
        client.close()
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
