"""Telemetry events for measurements: ~90 bytes a line, 500 series, 1 % negative, within the last five minutes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from pipeline_platform.queue.protocol import NewEntry, QueueRefusal
from pipeline_platform.queue.redis_streams import RedisStreams


def bodies(requests: int, events: int = 1_000, seed: int = 1) -> Iterator[bytes]:
    """NDJSON request bodies of `events` lines each."""
    rng = np.random.default_rng(seed)
    now_ms = int(time.time() * 1000)
    for _ in range(requests):
        source, metric = rng.integers(0, 50, events), rng.integers(0, 10, events)
        value = rng.random(events) * 100 - 1
        ts = now_ms - rng.integers(0, 300_000, events)
        stamps = np.datetime_as_string(ts.astype("datetime64[ms]"))
        lines = [
            f'{{"source":"device-{s:03}","metric":"metric-{m}","value":{v:.6f},"ts":"{t}Z"}}'
            for s, m, v, t in zip(source.tolist(), metric.tolist(), value.tolist(), stamps.tolist(), strict=True)
        ]
        yield ("\n".join(lines) + "\n").encode()


def fill(queue: RedisStreams, requests: int, events: int = 1_000, seed: int = 1) -> int:
    """Appends that many requests; returns the bytes."""
    size = 0
    for body in bodies(requests, events, seed):
        (answer,) = queue.append([NewEntry("telemetry", events, body, "bench")])
        if isinstance(answer, QueueRefusal):
            raise SystemExit(f"the queue refused: {answer.message}")
        size += len(body)
    return size
