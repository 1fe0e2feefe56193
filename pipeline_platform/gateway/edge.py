"""What the requests of one gateway process share: queue, keys, limits, pressure, warehouse, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import sqlalchemy as sa

from pipeline_platform.access.addresses import ClientAddresses
from pipeline_platform.access.audit import Audit, Auditor
from pipeline_platform.access.audit_log import AuditSink
from pipeline_platform.access.building import build_doorkeeper
from pipeline_platform.access.doorkeeper import Doorkeeper
from pipeline_platform.core.names import no_stream
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.doors import access_config
from pipeline_platform.errors import PlatformError
from pipeline_platform.gateway.buckets import Buckets
from pipeline_platform.gateway.credentials import REFRESH_SECONDS as KEYS_SECONDS
from pipeline_platform.gateway.credentials import KeyCache
from pipeline_platform.gateway.dagster_gauges import DagsterGauges
from pipeline_platform.gateway.expositions import Pages
from pipeline_platform.gateway.flusher import Flusher
from pipeline_platform.gateway.fresh import Fresh
from pipeline_platform.gateway.gauges import GaugeReader, Gauges
from pipeline_platform.gateway.ledger_gauges import LedgerGauges
from pipeline_platform.gateway.metrics import Metrics
from pipeline_platform.gateway.ndjson import Bounds
from pipeline_platform.gateway.outcomes import OutcomePoller
from pipeline_platform.gateway.places import Places
from pipeline_platform.gateway.pressure import REFRESH_SECONDS as PRESSURE_SECONDS
from pipeline_platform.gateway.pressure import Pressure
from pipeline_platform.gateway.problems import ProblemError, shown
from pipeline_platform.gateway.rates import RateLimiter
from pipeline_platform.gateway.readiness import Readiness, readiness
from pipeline_platform.gateway.receipt_tags import REFRESH_SECONDS as TAGS_SECONDS
from pipeline_platform.gateway.receipt_tags import ReceiptTags
from pipeline_platform.gateway.receipts import ReceiptBook
from pipeline_platform.gateway.stats_board import StatsBoard
from pipeline_platform.gateway.worker_gauges import WorkerGauges
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.key_uses import KeyUses
from pipeline_platform.queue.keys import KeyStore
from pipeline_platform.queue.limits import Limit, TokenBuckets
from pipeline_platform.queue.receipt_secret import ReceiptSecret
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.queue.workers import WorkerBoard
from pipeline_platform.settings import Settings, require
from pipeline_platform.warehouse.engine import READING
from pipeline_platform.warehouse.engine import connect as connect_warehouse
from pipeline_platform.warehouse.stream_changes import was_declared

USES_SECONDS = 10.0  # between two writings of when keys were used
HEAVY = 4  # lists at once: each is some milliseconds of the processor, which ingest shares
EXPORTS = 2  # at once: each holds one of the engine's connections for as long as its reader takes
_SIDE_TIMEOUT = 3.0  # for what may be asked again; appends wait longer, because nobody knows how a lost one ended
_AUDIT_PATIENCE = 3.0  # seconds at the end; what is not in the table by then is in the audit's log alone
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Edge:
    """One gateway process. Nothing in it needs a server to be up when it is made.

    `engine` only reads, as a role that may not write; `writer` is for what admins ask to be changed, and the audit.
    """

    specs: Mapping[str, StreamSpec]
    bounds: Bounds
    wait_max_seconds: float
    queue: RedisStreams
    engine: sa.Engine
    writer: sa.Engine
    dagster_link: str
    exports: threading.Semaphore
    flusher: Flusher
    keys: KeyCache
    key_uses: KeyUses
    audit: Audit
    door: Doorkeeper
    addresses: ClientAddresses
    limit_ip: RateLimiter
    limit_key: RateLimiter
    reads: Buckets
    heavy: Places
    pressure: Pressure
    receipts: ReceiptBook
    tags: ReceiptTags
    outcomes: OutcomePoller
    stats: StatsBoard
    metrics: Metrics
    gauges: GaugeReader
    readiness: Fresh[Readiness]
    pages: Pages
    threads: ThreadPoolExecutor
    parsers: ThreadPoolExecutor

    def spec(self, stream: str) -> StreamSpec:
        """The declared stream, or the 404 problem that names those there are."""
        spec = self.specs.get(stream)
        if spec is None:
            raise ProblemError("unknown-stream", no_stream(shown(stream), self.specs))
        return spec

    def refuse_strangers(self, names: Iterable[str]) -> None:
        """The 404 problem where one of the streams is not declared and never was: nothing can be kept of it."""
        for name in names:
            if name not in self.specs and not was_declared(self.engine, name):
                self.spec(name)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps the background readings going; on leaving, finishes what was accepted."""
        tasks = [
            asyncio.create_task(_repeat(self.keys.refresh, KEYS_SECONDS)),
            asyncio.create_task(_repeat(self._measure, PRESSURE_SECONDS)),
            asyncio.create_task(_repeat(self.tags.refresh, TAGS_SECONDS)),
            asyncio.create_task(_repeat(self._flush_uses, USES_SECONDS)),
        ]
        try:
            yield
        finally:
            await self.flusher.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.outcomes.close()
            await asyncio.get_running_loop().run_in_executor(None, self._tell_the_last)
            for pool in (self.threads, self.parsers):
                pool.shutdown(wait=True, cancel_futures=True)
            self.gauges.close()
            self.door.close()
            self.engine.dispose()
            self.writer.dispose()

    async def _flush_uses(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self.threads, self.key_uses.flush)

    def _tell_the_last(self) -> None:
        with contextlib.suppress(PlatformError):
            self.key_uses.flush()
        lost = self.audit.close(_AUDIT_PATIENCE)
        if lost:
            _log.warning("%d entries of the audit are not in its table; see audit.log", lost)

    async def _measure(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self.threads, self.pressure.measure)
        self.metrics.memory.set(self.pressure.share)
        self.metrics.queue_up.set(float(self.pressure.fresh))
        for name, position in self.pressure.positions.items():
            self.metrics.backlog.labels(name).set(position.events)
            self.metrics.drain.labels(name).set(self.pressure.drain_rate(name))


def make_edge(settings: Settings, specs: Mapping[str, StreamSpec], lines: AuditSink | None = None) -> Edge:
    """Everything a gateway needs, from settings."""
    redis_url = require(settings.redis_url, "REDIS_URL")
    database_url = settings.readonly_database_url or require(settings.database_url, "DATABASE_URL")
    queue = RedisStreams(connect_queue(redis_url, connections=32), ttl=settings.idempotency_ttl)
    side = connect_queue(redis_url, timeout=_SIDE_TIMEOUT, connections=32)
    side_queue = RedisStreams(side)
    engine = connect_warehouse(database_url, pool_size=8, application="pipeline-gateway", settings=READING)
    writer_url = settings.loader_database_url or settings.database_url or database_url
    writer = connect_warehouse(writer_url, pool_size=2, application="pipeline-gateway writer")
    audit = Auditor(writer, lines)
    threads = ThreadPoolExecutor(8, "side")
    metrics = Metrics()
    sources: list[Gauges] = [LedgerGauges(engine, metrics, specs), WorkerGauges(WorkerBoard(side), metrics)]
    if settings.dagster_database_url:
        sources.append(DagsterGauges(settings.dagster_database_url, metrics))
    gauges = GaugeReader(sources)
    keys = KeyCache(KeyStore(side), threads)
    buckets = TokenBuckets(side)
    receipts = ReceiptBook(side_queue, engine, settings.dagster_link)
    pressure = Pressure(
        side_queue,
        specs,
        backlog_max_events=settings.backlog_max_events,
        memory_share=settings.queue_memory_share,
    )
    return Edge(
        specs=specs,
        bounds=Bounds(
            settings.body_max_bytes, settings.line_max_bytes, settings.request_max_events, settings.json_max_depth
        ),
        wait_max_seconds=settings.wait_max_seconds,
        queue=side_queue,
        engine=engine,
        writer=writer,
        dagster_link=settings.dagster_link,
        exports=threading.Semaphore(EXPORTS),
        flusher=Flusher(queue, observe=metrics.appended),
        keys=keys,
        key_uses=KeyUses(side),
        audit=audit,
        door=build_doorkeeper(
            access_config(settings, public_url=settings.gateway_url, host=settings.host, port=settings.port),
            audit,
        ),
        addresses=ClientAddresses(settings.trusted_proxies),
        limit_ip=RateLimiter("ip", buckets, Limit.of(settings.rate_limit_ip, settings.rate_limit_burst), threads),
        limit_key=RateLimiter("key", buckets, Limit.of(settings.rate_limit_key, settings.rate_limit_burst), threads),
        reads=Buckets(settings.rate_limit_reads, settings.rate_limit_reads * settings.rate_limit_reads_burst),
        heavy=Places(HEAVY),
        pressure=pressure,
        receipts=receipts,
        tags=ReceiptTags(ReceiptSecret(side), threads),
        outcomes=OutcomePoller(receipts, threads),
        stats=StatsBoard(engine, pressure),
        metrics=metrics,
        gauges=gauges,
        readiness=Fresh(lambda: readiness(pressure, keys, engine), threads),
        pages=Pages(gauges, metrics, threads),
        threads=threads,
        parsers=ThreadPoolExecutor(2, "parse"),
    )


async def _repeat(work: Callable[[], Awaitable[None]], pause: float) -> None:
    """Does `work` for ever; one failure must not end it."""
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - a background reading outlives any surprise
            _log.warning("a background reading failed: %s", type(error).__name__)
        await asyncio.sleep(pause)
