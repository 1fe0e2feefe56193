"""What the login costs the Dagster UI: our web server beside stock `dagster_webserver` on the same stack.

    python -m benchmarks.login [--requests 300]

Both serve the same instance and code location on loopback. One keep-alive connection each; requests with a session,
with an API key, and to the stock server take turns, in another order each time, so that whatever else the machine does
falls on all of them. Times are from the first byte of the request to the last of the answer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline_platform.local.ports import free_port
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.keys import token_id
from pipeline_platform.queue.sessions import Session, SessionStore
from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.security.edge_kit import until

HOST, STOCK = "127.0.0.1", "stock"
QUERIES = {
    "version": "{ version }",
    "lineage": """{ assetNodes { id assetKey { path } groupName isPartitioned opNames
      dependencyKeys { path } dependedByKeys { path } } }""",
}
WARM = 20


@dataclass
class Way:
    """One way to ask: a connection that is kept, and the headers of who asks."""

    name: str
    port: int
    headers: Mapping[str, str]

    def __post_init__(self) -> None:
        self._connection = http.client.HTTPConnection(HOST, self.port, timeout=60)

    def ask(self, query: str) -> tuple[float, bytes]:
        """Milliseconds, and the answer's data. Every answer has to be one."""
        body = json.dumps({"query": query})
        headers = {"Content-Type": "application/json", **self.headers}
        began = time.perf_counter()
        self._connection.request("POST", "/graphql", body, headers)
        answer = self._connection.getresponse()
        data = answer.read()
        took = (time.perf_counter() - began) * 1000
        if answer.status != 200 or b'"errors"' in data:
            raise SystemExit(f"{self.name} was answered {answer.status}: {data[:300]!r}")
        return took, data

    def close(self) -> None:
        self._connection.close()


@contextmanager
def stock(up: Up) -> Iterator[int]:
    """Dagster's own web server with the environment, folder and workspace of ours; its port."""
    raw = Path(f"/proc/{up.pid('dagster')}/environ").read_bytes()
    environment = dict(pair.split("=", 1) for pair in raw.decode().split("\0") if "=" in pair)
    home, port = environment["DAGSTER_HOME"], free_port()
    argv = [sys.executable, "-m", "dagster_webserver", "--workspace", f"{home}/workspace.yaml"]
    process = subprocess.Popen(
        [*argv, "--host", HOST, "--port", str(port), "--log-level", "warning"],
        env=environment,
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: _answers(port), 120, pause=0.2)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        connection.request("GET", "/server_info")
        return connection.getresponse().status == 200
    except OSError:
        return False


def ways(up: Up, stock_port: int) -> list[Way]:
    """A session, an API key, and nobody at the stock server."""
    where = json.loads((up.state_dir / "connections.json").read_text())
    client = connect(where["redis_url"])
    try:
        session = Session("key", key_id=token_id(where["api_key"]) or "")
        cookie = SessionStore(client, absolute=3600, idle=3600).begin(session)
    finally:
        client.close()
    by_session = {"Cookie": f"pp_session={cookie}", "Origin": f"http://{HOST}:{up.dagster_port}"}
    return [
        Way("session", up.dagster_port, by_session),
        Way("API key", up.dagster_port, {"Authorization": f"Bearer {where['api_key']}"}),
        Way(STOCK, stock_port, {}),
    ]


def measure(asked: list[Way], query: str, requests: int) -> dict[str, list[float]]:
    """Milliseconds by way, each as many times. All have to answer with the same assets."""
    took: dict[str, list[float]] = {way.name: [] for way in asked}
    for _ in range(WARM):
        answers = {way.ask(query)[1] for way in asked}
        if len({len(answer) for answer in answers}) > 1:
            raise SystemExit(f"The servers do not answer alike: {[len(answer) for answer in answers]} bytes.")
    turns = random.Random(11)
    for _ in range(requests):
        for way in turns.sample(asked, len(asked)):
            took[way.name].append(way.ask(query)[0])
    return took


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300, help="of each kind")
    options = parser.parse_args()
    table = Table(title=f"GraphQL over loopback, {options.requests} requests of each kind, taking turns")
    for column in ("query", "asked with", "p50 ms", "p95 ms", "p50 - stock", "p95 - stock", "p50 / stock", "target"):
        table.add_column(column, justify="left" if column in ("query", "asked with") else "right")
    up = Up()
    try:
        up.start()
        with stock(up) as port:
            asked = ways(up, port)
            for name, query in QUERIES.items():
                took = measure(asked, query, options.requests)
                base = np.percentile(took[STOCK], [50, 95])
                for way, times in took.items():
                    p50, p95 = np.percentile(times, [50, 95])
                    figures = [f"{p50 - base[0]:+.2f}", f"{p95 - base[1]:+.2f}", f"{p50 / base[0]:.2f}", "+1.00 at p50"]
                    beside = figures if way != STOCK else ["", "", "", ""]
                    table.add_row(name, way, f"{p50:.2f}", f"{p95:.2f}", *beside)
            for each in asked:
                each.close()
    finally:
        up.remove()
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
