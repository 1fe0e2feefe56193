"""A gateway on a real port, and the pipeline behind it without Dagster."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import requests
import sqlalchemy as sa
import uvicorn

from pipeline_platform.access.bounded_http import BoundedHttp
from pipeline_platform.core.batches import plan_batches
from pipeline_platform.core.events import decode
from pipeline_platform.core.streams import StreamSpec, load_specs
from pipeline_platform.core.transforms import aggregate, drop_negatives
from pipeline_platform.core.validation import validate
from pipeline_platform.gateway.app import build_app
from pipeline_platform.local.ports import free_port
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.ledger_rows import LedgerRow
from pipeline_platform.warehouse.load import ReadyBatch, load

SPECS = load_specs()
# For tests that are not about limits: they ask as fast as they can, all from one address.
ROOMY: dict[str, object] = {
    "rate_limit_reads": 1e5,
    "rate_limit_open": 1e5,
    "rate_limit_probes": 1e5,
    "rate_limit_refusals": 1e5,
}
GOOD = {"source": "press-1", "metric": "temperature_c", "value": 21.5}


@dataclass
class Client:
    """One producer or reader: a session with its API key."""

    base: str
    token: str = ""

    def __post_init__(self) -> None:
        self.http = requests.Session()
        self.http.trust_env = False
        if self.token:
            self.http.headers["Authorization"] = f"Bearer {self.token}"

    def get(self, path: str, **options: Any) -> requests.Response:
        """GET a path of the gateway."""
        return self.http.get(self.base + path, timeout=30, **options)

    def post(
        self, body: Any = None, *, stream: str = "telemetry", query: str = "", **options: Any
    ) -> requests.Response:
        """POST events: bytes as they are, anything else as JSON."""
        headers = dict(options.pop("headers", {}))
        if isinstance(body, bytes):
            headers.setdefault("Content-Type", "application/x-ndjson")
            options["data"] = body
        else:
            options["json"] = GOOD if body is None else body
        url = f"{self.base}/v1/streams/{stream}/events{query}"
        return self.http.post(url, headers=headers, timeout=60, **options)

    def close(self) -> None:
        """Ends the session's connections."""
        self.http.close()


@contextlib.contextmanager
def serving(settings: Settings, specs: Mapping[str, StreamSpec] | None = None) -> Iterator[str]:
    """The base URL of a gateway that runs in a thread."""
    port = free_port()
    app = build_app(settings.model_copy(update={"port": port}), specs or SPECS)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http=BoundedHttp.bounded(connections=1000),
        ws="none",
        log_level="warning",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive(), 10)
    assert server.started
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def until(holds: Callable[[], object], seconds: float, pause: float = 0.02) -> None:
    """Waits until it holds, and fails when it does not within the time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(pause)


class Pipeline:
    """What the sensor and the run do, called by hand."""

    def __init__(self, engine: sa.Engine, queue: RedisStreams) -> None:
        self.engine = engine
        self.queue = queue
        self.ledger = Ledger(engine)

    def plan(self, stream: str) -> list[LedgerRow]:
        """Plans everything that waits."""
        waiting = self.queue.waiting(stream, self.ledger.last_planned(stream), 10_000)
        batches = plan_batches(stream, waiting, max_events=10**6, max_bytes=10**8, max_batches=10)
        return self.ledger.plan(stream, batches, asset_key=f"warehouse/{stream}_events", job_name="ingest")

    def start(self, row: LedgerRow, run_id: str = "run-1") -> None:
        """Requests and starts the next attempt."""
        assert self.ledger.request(row.id, row.attempt + 1)
        assert self.ledger.start(row.id, row.attempt + 1, run_id)

    def load(self, row: LedgerRow, run_id: str = "run-1") -> None:
        """Loads the batch and trims what is settled."""
        spec = SPECS[row.stream]
        entries = list(self.queue.read(row.stream, row.first_id, row.last_id))
        valid = validate(decode(entries, spec), entries, spec)
        kept = drop_negatives(valid.columns, spec)
        load(
            self.engine,
            spec,
            ReadyBatch(
                row.id,
                run_id,
                entries,
                kept.columns,
                aggregate(kept.columns),
                valid.rejections,
                kept.dropped_entry,
                valid.late,
            ),
        )
        self.queue.trim(row.stream, self.ledger.watermark(row.stream))

    def run(self, stream: str = "telemetry") -> None:
        """Everything that waits, into the warehouse."""
        for row in self.plan(stream):
            self.start(row)
            self.load(row)


@dataclass(frozen=True)
class Shared:
    """A gateway's admin and the pipeline behind it, for tests that need nothing of their own."""

    client: Client
    pipeline: Pipeline
