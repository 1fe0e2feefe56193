"""Gauges that are read from a server when somebody scrapes: rarely, by one thread at a time, and never for long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from prometheus_client import Gauge

PATIENCE_SECONDS = 3.0  # Prometheus gives up a scrape after 10 by default
_log = logging.getLogger(__name__)


class Gauges:
    """Figures of one server, asked for at most every `every` seconds."""

    every = 5.0

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked_at = float("-inf")
        self._asking = threading.Lock()

    def refresh(self) -> None:
        """Brings them up to date, unless that was done a moment ago or is being done; blocking."""
        if not self._asking.acquire(blocking=False):
            return
        try:
            if self._clock() - self._asked_at >= self.every:
                self._asked_at = self._clock()
                self._read()
        except Exception as error:  # noqa: BLE001 - one source's surprise must not cost the others' figures
            _log.warning("figures for /metrics could not be read: %s", type(error).__name__)
        finally:
            self._asking.release()

    def close(self) -> None:
        """Gives up what it asks with."""

    def _read(self) -> None:
        raise NotImplementedError


class GaugeReader:
    """Refreshes all before a scrape. What takes longer than PATIENCE_SECONDS is in a later one."""

    def __init__(self, sources: Sequence[Gauges]) -> None:
        self._sources = tuple(sources)
        self._threads = ThreadPoolExecutor(len(self._sources), "gauges")

    def refresh(self) -> None:
        """Blocking, for a worker thread."""
        wait([self._threads.submit(source.refresh) for source in self._sources], PATIENCE_SECONDS)

    def close(self) -> None:
        """Ends the threads, and then what they ask with."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for source in self._sources:
            source.close()


def show(gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
    """Sets the gauge by its labels, and takes away what it had for others: an old figure is worse than none."""
    for metric in gauge.collect():
        for sample in metric.samples:
            if (labels := tuple(sample.labels.values())) not in values:
                gauge.remove(*labels)
    for labels, value in values.items():
        gauge.labels(*labels).set(value)
