"""Every metric of the gateway: names, labels and meaning in one place. Label values are bounded, never a client's own.

Routes are templates, streams are declared ones, a method is one of HTTP's or `other`.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pipeline_platform.access.bounded_http import BoundedHttp

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128)
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class Metrics:
    """The metrics of one app, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "pipeline_http_requests_total",
            "Answers by route, method and status.",
            ("route", "method", "status"),
            registry=registry,
        )
        self.duration = Histogram(
            "pipeline_http_request_seconds",
            "Time to answer, by route.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.events = Counter(
            "pipeline_accepted_events_total", "Events accepted durably.", ("stream",), registry=registry
        )
        self.bytes = Counter(
            "pipeline_accepted_bytes_total", "Payload bytes accepted durably.", ("stream",), registry=registry
        )
        self.replays = Counter(
            "pipeline_replayed_requests_total", "Requests repeated by Idempotency-Key.", ("stream",), registry=registry
        )
        self.refusals = Counter(
            "pipeline_refused_requests_total",
            "Refused POSTs by kind of problem.",
            ("kind",),
            registry=registry,
        )
        self.unread = Counter(
            "pipeline_refused_connections_total",
            "Refused before they were a request: malformed, head-too-large, timeout, connections, pipelined, unread, "
            "upgrade.",
            ("kind",),
            registry=registry,
        )
        self._noted: Counts[str] = Counts()
        self._noting = Lock()
        self.append_seconds = Histogram(
            "pipeline_queue_append_seconds", "Time of one shared durable append.", buckets=_SECONDS, registry=registry
        )
        self.append_requests = Histogram(
            "pipeline_queue_append_requests", "Requests in one shared append.", buckets=_REQUESTS, registry=registry
        )
        self.backlog = Gauge(
            "pipeline_backlog_events", "Accepted events that are not settled yet.", ("stream",), registry=registry
        )
        self.drain = Gauge(
            "pipeline_drain_events_per_second", "Events settled a second, last minute.", ("stream",), registry=registry
        )
        self.memory = Gauge(
            "pipeline_queue_memory_share", "Used share of the queue server's memory limit.", registry=registry
        )
        self.queue_up = Gauge("pipeline_queue_up", "1 when the queue answered within seconds.", registry=registry)

        self.warehouse_up = Gauge(
            "pipeline_warehouse_up", "1 when the warehouse answered this scrape.", registry=registry
        )
        self.runs = Gauge(
            "pipeline_runs_per_second",
            "Ingest runs that loaded their batch, last minute.",
            ("stream",),
            registry=registry,
        )
        self.stages = Gauge(
            "pipeline_run_stage_seconds",
            "Average time of a stage, last minute: receive_to_plan (of a batch's last request), plan_to_request, "
            "request_to_start, start_to_load, load_to_visible (only where commit timestamps are tracked).",
            ("stream", "stage"),
            registry=registry,
        )
        self.unsettled = Gauge(
            "pipeline_unsettled_batches", "Batches that are planned or failed.", ("stream", "state"), registry=registry
        )

        self.alerts = Gauge("pipeline_alerts_open", "Open alerts by severity.", ("severity",), registry=registry)
        self.breakers = Gauge(
            "pipeline_breaker_open",
            "1: rejects have paused the stream; 0.5: a small batch is let through; 0: closed.",
            ("stream",),
            registry=registry,
        )
        self.workers_alive = Gauge(
            "pipeline_workers_alive", "Workers that signed in within the last seconds.", registry=registry
        )
        self.workers_busy = Gauge(
            "pipeline_workers_busy", "Workers that execute a run at the moment.", registry=registry
        )
        self.worker_slots = Gauge(
            "pipeline_worker_slots", "Processes of the living workers; each executes one run.", registry=registry
        )
        self.worker_slots_busy = Gauge(
            "pipeline_worker_slots_busy", "Those that execute a run at the moment.", registry=registry
        )

        # Only on the page when the gateway knows Dagster's database; see `register_dagster`.
        self.dagster_up = Gauge("pipeline_dagster_up", "1 when Dagster's database answered this scrape.", registry=None)
        self.daemon_heartbeat = Gauge(
            "pipeline_daemon_heartbeat_timestamp_seconds",
            "When each of Dagster's daemons last beat, epoch seconds.",
            ("daemon",),
            registry=None,
        )
        self.tick_average = Gauge(
            "pipeline_tick_average_seconds",
            "Average time of a sensor's ticks that ended in the last minute. An ingest sensor waits for data inside "
            "its tick, which counts: what data waits for is the stage receive_to_plan.",
            ("sensor",),
            registry=None,
        )
        self.tick_longest = Gauge(
            "pipeline_tick_max_seconds", "The longest of these ticks.", ("sensor",), registry=None
        )
        self.ticks = Gauge(
            "pipeline_ticks_per_second",
            "Ticks that ended in the last minute: success (requested runs), skipped, failure.",
            ("sensor", "status"),
            registry=None,
        )
        self.event_log_bytes = Gauge(
            "pipeline_event_log_bytes", "Size of Dagster's event log on disk, with its indexes.", registry=None
        )

    def register_dagster(self) -> None:
        """Puts the gauges of Dagster's database on the page."""
        for gauge in (
            self.dagster_up,
            self.daemon_heartbeat,
            self.tick_average,
            self.tick_longest,
            self.ticks,
            self.event_log_bytes,
        ):
            self.registry.register(gauge)

    def page(self, encode: Callable[[CollectorRegistry], bytes] = generate_latest) -> bytes:
        """All of them in one of Prometheus' formats."""
        with self._noting:  # two formats may be asked for at once
            for kind, count in list(BoundedHttp.refused.items()):  # the protocol's, which knows no app
                self.unread.labels(kind).inc(count - self._noted[kind])
                self._noted[kind] = count
        return encode(self.registry)

    def appended(self, items: int, took: float) -> None:
        """Notes one shared append of `items` requests that took `took` seconds."""
        self.append_seconds.observe(took)
        self.append_requests.observe(items)


def method_label(method: str) -> str:
    """A method as a label value."""
    return method if method in _METHODS else "other"
