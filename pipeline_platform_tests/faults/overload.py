"""Twice as much as can be loaded: contiguous numbers, so that millions of events cost the suite next to nothing."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import requests

from pipeline_platform.local.connections import Connections
from pipeline_platform_tests.faults.stand import Stand
from pipeline_platform_tests.oracle import NUMBERS, Sent

SIZE = 1_000


class Flood:
    """Clients that send `rate` events a second, whatever they are answered, and never repeat a request."""

    def __init__(self, where: Connections, rate: float, *, clients: int = 6, stream: str = "telemetry") -> None:
        self._url = f"{where.gateway_url}/v1/streams/{stream}/events"
        self._headers = {"Authorization": f"Bearer {where.api_key}", "Content-Type": "application/x-ndjson"}
        self._pause, self._clients = clients * SIZE / rate, clients
        self.requests: list[Sent] = []
        self.answers: Counter[int | str] = Counter()
        self._lock = threading.Lock()
        self._stop = threading.Event()

    @property
    def acknowledged(self) -> int:
        """The events that were accepted."""
        return sum(request.events for request in list(self.requests) if request.outcome == "acknowledged")

    @contextmanager
    def running(self) -> Iterator[None]:
        """They send while the block runs."""
        threads = [threading.Thread(target=self._run) for _ in range(self._clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _run(self) -> None:
        session, due = requests.Session(), time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self._send(session)
            due = max(due + self._pause, time.monotonic() - 1.0)

    def _send(self, session: requests.Session) -> None:
        with self._lock:
            numbers = np.fromiter((next(NUMBERS) for _ in range(SIZE)), np.int64, SIZE)
        lines = [f'{{"source":"s{number % 20}","metric":"m","value":{number}}}' for number in numbers.tolist()]
        sent = Sent(good=numbers)
        status: int | str
        try:
            status = session.post(self._url, data="\n".join(lines), headers=self._headers, timeout=30).status_code
        except requests.RequestException as error:
            status = type(error).__name__
        if status == 202:
            sent.outcome = "acknowledged"
        elif status in (429, 503):
            # Nothing of it was stored, or nobody knows: a client would repeat it.
            sent.outcome = "unknown"
        with self._lock:
            self.answers[status] += 1
            self.requests.append(sent)


class Memory:
    """The resident memory of services, sampled while a block runs. Bytes."""

    def __init__(self, stand: Stand, services: tuple[str, ...]) -> None:
        self._pids = {name: stand.pid(name) for name in services}
        self.samples: dict[str, list[int]] = {name: [] for name in services}

    def sample(self) -> None:
        """Notes how much it is now."""
        for name, pid in self._pids.items():
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            self.samples[name].append(pages * 4096)

    def growth(self, name: str) -> int:
        """How many bytes more it was at most in the last third than in the middle one."""
        found = self.samples[name]
        third = len(found) // 3
        return max(found[2 * third :]) - max(found[third : 2 * third])
