"""What floods of reads do to ingest: its p50 unloaded and under each flood, and the gateway's memory.

    python -m benchmarks.flood [--checkout PATH ...] [--seconds 4] [--connections 32]

One PostgreSQL, one Valkey, and one gateway process a checkout: this one, and those of other commits, side by side.
A flood is a process of its own with keep-alive connections that ask again as soon as they are answered. Ingest is one
connection that sends an event every 50 ms. On a busy machine compare ratios, not milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import redis
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.edge import event
from benchmarks.servers import HOST, gateway, servers
from pipeline_platform.queue.keys import KeyStore

HERE = Path(__file__).resolve().parents[1]
INGEST_EVERY = 0.05
FLOODS = {
    "/healthz": False,
    "/metrics": False,
    "/readyz": False,
    "/openapi.json": False,
    "/v1/stats": True,
    "/v1/streams/telemetry/aggregates?limit=10000&from=2026-01-01T00:00:00Z": True,
    "/v1/assets?limit=1000": True,
}
FILL = """
insert into assets (kind, asset_key, stream, state, run_id, run_ids, job_name, first_ms, first_seq, last_ms, last_seq,
    entries, events_planned, bytes_planned, events_read, events_loaded, planned_at, requested_at, started_at, loaded_at,
    attempt)
select 'ingest', 'warehouse/telemetry_events', 'telemetry', 'loaded', gen_random_uuid()::text,
    array[gen_random_uuid()::text], 'ingest', 1000 * n, 0, 1000 * n + 999, 0, 10, 100, 9000, 100, 100,
    now(), now(), now(), now(), 1
from generate_series(1, 5000) n;
insert into telemetry_series (source, metric) select 'press-' || n, 'temperature_c' from generate_series(1, 100) n;
insert into telemetry_minutes (series_id, window_start, events, value_count, value_sum, value_min, value_max, value_m2,
    value_first, value_first_ts, value_last, value_last_ts)
select series_id, timestamptz '2026-01-02' + n * interval '1 minute', 1, 1, 1, 1, 1, 0, 1, now(), 1, now()
from telemetry_series, generate_series(1, 200) n;
analyze;
"""


def resident(pid: int) -> float:
    """MiB of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def read_answer(reader: asyncio.StreamReader) -> int:
    """Reads one answer and says its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length, chunked = 0, False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
        chunked = chunked or line.startswith(b"transfer-encoding: chunked")
    if chunked:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    elif length:
        await reader.readexactly(length)
    return int(head[9:12])


async def flood(port: int, request: bytes, connections: int, seconds: float) -> dict[str, int]:
    """Asks for so long with all connections, and counts the statuses; 0 is a connection that was ended."""
    until, found = time.perf_counter() + seconds, Counter[str]()

    async def one() -> None:
        while time.perf_counter() < until:
            try:
                reader, writer = await asyncio.open_connection(HOST, port)
                while time.perf_counter() < until:
                    writer.write(request)
                    async with asyncio.timeout(max(1.0, until - time.perf_counter())):
                        found[str(await read_answer(reader))] += 1
                writer.close()
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                found["0"] += 1
                await asyncio.sleep(0.01)

    print("begun", flush=True)
    await asyncio.gather(*(one() for _ in range(connections)))
    return dict(found)


async def ingest(port: int, token: str, seconds: float) -> list[float]:
    """Milliseconds of each event's acknowledgement, one after another."""
    body = event(1)
    head = (
        f"POST /v1/streams/telemetry/events HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/x-ndjson\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(HOST, port)
    took, until = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        writer.write(head.encode() + body)
        status = await read_answer(reader)
        assert status == 202, status
        took.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(INGEST_EVERY)
    writer.close()
    return sorted(took)


def measure(port: int, pid: int, tokens: dict[str, str], path: str, keyed: bool, options: Any) -> dict[str, Any]:
    """One row: ingest by itself, then under the flood."""
    quiet = uvloop.run(ingest(port, tokens["ingest"], options.seconds / 2))
    key = f"Authorization: Bearer {tokens['read']}\r\n" if keyed else ""
    plan = {
        "port": port,
        "request": f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{key}\r\n",
        "connections": options.connections,
        "seconds": options.seconds + 1.5,
    }
    flooding = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.flood", "--flood", json.dumps(plan)], stdout=subprocess.PIPE, cwd=HERE
    )
    assert flooding.stdout is not None
    flooding.stdout.readline()
    time.sleep(1.0)  # it has used up whatever may come at once
    loud = uvloop.run(ingest(port, tokens["ingest"], options.seconds))
    statuses = json.loads(flooding.communicate(timeout=60)[0])
    p50, under = quiet[len(quiet) // 2], loud[len(loud) // 2]
    return {
        "answers": sum(statuses.values()) / (options.seconds + 1.5),
        "refused": 1 - statuses.get("200", 0) / max(1, sum(statuses.values())),
        "quiet": p50,
        "p50": under,
        "max": loud[-1],
        "ratio": under / p50,
        "rss": resident(pid),
    }


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checkout", type=Path, action="append", default=[], help="another commit's folder")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each row of the table")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--flood", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood:
        plan = json.loads(options.flood)
        print(json.dumps(uvloop.run(flood(**plan | {"request": plan["request"].encode()}))))
        return
    table = Table(title=f"Ingest under floods of {options.connections} connections")
    for column in ("flood", "checkout", "answers/s", "refused", "p50 quiet", "p50", "max ms", "ratio", "RSS MiB"):
        table.add_column(column, justify="left" if column in ("flood", "checkout") else "right")
    with servers() as where:
        with psycopg.connect(where.database_url, autocommit=True) as connection:
            connection.execute(FILL.encode())
        client = redis.Redis.from_url(where.redis_url)
        tokens = {scope: KeyStore(client).create(scope, [scope])[1] for scope in ("ingest", "read")}
        for path, keyed in FLOODS.items():
            for checkout in (*options.checkout, HERE):
                with gateway(where, checkout.resolve()) as (port, pid):
                    row = measure(port, pid, tokens, path, keyed, options)
                table.add_row(
                    path.partition("&")[0],
                    checkout.name,
                    f"{row['answers']:,.0f}",
                    f"{row['refused']:.0%}",
                    *(f"{row[name]:.1f}" for name in ("quiet", "p50", "max")),
                    f"{row['ratio']:.1f}",
                    f"{row['rss']:.0f}",
                )
        client.close()
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
