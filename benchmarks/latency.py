"""POST -> visible in the warehouse: p50, p95 and p99 at steady rates, through the whole stack as `up` starts it.

    python -m benchmarks.latency [--seconds 60] [--rates 100 1000]

A request's latency is the time from just before its POST to the moment a reader, who asks every 20 ms, sees its batch
committed. 100 requests a second at most: higher rates are more events a request.
"""

from __future__ import annotations

import argparse
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import orjson
import psycopg
import requests

from pipeline_platform.core.entries import EntryId, TaggedReceipt
from pipeline_platform_tests.acceptance.stacks import Up

OUT = Path(__file__).parent / "out"
REQUESTS_PER_SECOND = 100


class Watch:
    """When each batch was first seen to be committed."""

    def __init__(self, warehouse_url: str) -> None:
        self._url = warehouse_url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.batches: list[tuple[EntryId, EntryId, float]] = []

    def _run(self) -> None:
        seen: set[int] = set()
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._stop.wait(0.02):
                rows = connection.execute(
                    "select id, first_ms, first_seq, last_ms, last_seq from assets "
                    "where state = 'loaded' and stream = 'telemetry' order by id desc limit 20"
                ).fetchall()
                now = time.time()
                for batch, *ids in rows:
                    if batch not in seen:
                        seen.add(batch)
                        self.batches.append((EntryId(ids[0], ids[1]), EntryId(ids[2], ids[3]), now))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def measure(where: dict[str, str], rate: int, seconds: float) -> tuple[list[float], list[float]]:
    """Seconds from POST to visible, and from POST to 202, a request each."""
    per_request = max(1, rate // REQUESTS_PER_SECOND)
    pause = per_request / rate
    local = threading.local()
    sent: list[tuple[float, float, EntryId]] = []

    def post(number: int) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
            local.session.headers["Authorization"] = f"Bearer {where['api_key']}"
        body = orjson.dumps([{"source": f"s{number % 50}", "metric": "m", "value": number}] * per_request)
        began = time.time()
        answer = local.session.post(
            f"{where['gateway_url']}/v1/streams/telemetry/events",
            data=body,
            headers={"Content-Type": "application/json"},
            timeout=30,
        )
        answer.raise_for_status()
        sent.append((began, time.time(), TaggedReceipt.parse(answer.json()["receipt"]).receipt.entry))

    with Watch(where["warehouse_url"]) as watch:
        with ThreadPoolExecutor(8) as pool:
            due = time.monotonic()
            for number in range(round(seconds / pause)):
                pool.submit(post, number)
                due += pause
                time.sleep(max(0.0, due - time.monotonic()))
        until = time.monotonic() + 60
        last = max(entry for _, _, entry in sent)
        while not any(high >= last for _, high, _ in watch.batches) and time.monotonic() < until:
            time.sleep(0.1)
    visible = [
        next(seen for low, high, seen in watch.batches if low <= entry <= high) - began for began, _, entry in sent
    ]
    return visible, [acknowledged - began for began, acknowledged, _ in sent]


def main() -> None:
    """Measures and prints the table; draws benchmarks/out/latency.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rates", type=int, nargs="+", default=[100, 1000], help="events a second")
    options = parser.parse_args()
    up = Up()
    results: dict[int, list[float]] = {}
    try:
        where = up.start().status()
        measure(where, 100, 5)  # the first runs of a worker import everything
        print(f"{'events/s':>10}{'requests':>10}{'':>4}{'p50':>10}{'p95':>10}{'p99':>10}   seconds")
        for rate in options.rates:
            visible, acknowledged = measure(where, rate, options.seconds)
            results[rate] = visible
            for name, values in (("visible", visible), ("202", acknowledged)):
                p50, p95, p99 = np.percentile(values, [50, 95, 99])
                print(f"{rate:>10,}{len(values):>10,}{p50:>14.3f}{p95:>10.3f}{p99:>10.3f}   POST -> {name}")
    finally:
        up.remove()
    _plot(results)


def _plot(results: dict[int, list[float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    OUT.mkdir(exist_ok=True)
    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    for rate, values in results.items():
        ordered = np.sort(values)
        axes.plot(ordered, np.linspace(0, 100, len(ordered)), label=f"{rate:,} events/s")
    axes.set(xlabel="seconds from POST to visible in PostgreSQL", ylabel="% of requests", xlim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(OUT / "latency.png", dpi=130)
    print(f"\nplot: {OUT / 'latency.png'}")


if __name__ == "__main__":
    main()
