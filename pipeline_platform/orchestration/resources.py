"""What ops, sensors and checks work with: the warehouse, the queue, and the limits of a batch."""

# No postponed annotations here: Dagster reads them at run time.

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache

import dagster as dg
import sqlalchemy as sa
from dagster._core.definitions.resource_annotation import TreatAsResourceParam

from pipeline_platform.core.batches import PaceLimits
from pipeline_platform.core.breaker import BreakerLimits
from pipeline_platform.core.streams import StreamSpec, load_specs
from pipeline_platform.orchestration.alerts.resource import AlertRoutes
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.settings import Settings, require
from pipeline_platform.warehouse.alert_outbox import Outbox
from pipeline_platform.warehouse.breakers import Breakers
from pipeline_platform.warehouse.engine import connect as connect_warehouse
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.load import Loaded, ReadyBatch, load
from pipeline_platform.warehouse.load_replay import load_replay


@lru_cache
def _engine(url: str, pid: int) -> sa.Engine:  # noqa: ARG001  the pid keeps a forked child from sharing sockets
    return connect_warehouse(url, pool_size=2, application="pipeline-platform run")


@lru_cache
def _queue(url: str, pid: int) -> RedisStreams:  # noqa: ARG001
    return RedisStreams(connect_queue(url, timeout=30.0, connections=64))  # a waiting sensor holds one


@dataclass(frozen=True)
class Warehouse(TreatAsResourceParam):
    """The warehouse: loads go through the loader's URL, maintenance through the owner's.

    Resources here are plain values, not Dagster's `ConfigurableResource`: Dagster shows and stores config, and whoever
    launches a run may replace it. `retry_jitter`: by how much of itself the pause before an op's next try may grow, by
    chance. `gateway_link`: the base of links from a run to its row of the ledger.
    """

    loader_url: str = field(repr=False)
    owner_url: str = field(repr=False)
    retry_jitter: float = 0.0
    gateway_link: str = ""

    @property
    def engine(self) -> sa.Engine:
        """The loader's engine, one a process."""
        return _engine(self.loader_url, os.getpid())

    @property
    def owner_engine(self) -> sa.Engine:
        """The owner's engine, one a process."""
        return _engine(self.owner_url, os.getpid())

    @property
    def ledger(self) -> Ledger:
        """The batch ledger."""
        return Ledger(self.engine)

    def load(self, spec: StreamSpec, batch: ReadyBatch, attempt: int, retry: int) -> Loaded:  # noqa: ARG002
        """Loads a batch; see `warehouse.load` and `load_replay`. `attempt` and `retry` say which try it is."""
        return (load if batch.letters is None else load_replay)(self.engine, spec, batch)

    @property
    def breakers(self) -> Breakers:
        """The streams' breakers."""
        return Breakers(self.engine)

    @property
    def alert_outbox(self) -> Outbox:
        """The outbox of alerts."""
        return Outbox(self.engine)


@dataclass(frozen=True)
class IngestQueue(TreatAsResourceParam):
    """The ingest queue."""

    url: str = field(repr=False)

    @property
    def queue(self) -> RedisStreams:
        """The queue, one connection pool a process."""
        return _queue(self.url, os.getpid())


@dataclass(frozen=True)
class PlanLimits:
    """What the planner keeps to. Times are seconds."""

    max_events: int
    max_bytes: int
    in_flight: int
    lost_run_after: float
    sensor_interval: int
    max_run_seconds: int
    hold_seconds: float = 2.5
    pace: PaceLimits = field(default_factory=PaceLimits)
    breaker: BreakerLimits = field(default_factory=BreakerLimits)


@dataclass(frozen=True)
class HistoryLimits:
    """How long Dagster keeps its runs."""

    keep_succeeded_hours: float
    keep_failed_days: float


# A run prints warnings and worse: all of its events are in Dagster's event log anyway.
CALM = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}


class TakeOnceIOManager(dg.IOManager):
    """Passes values between the ops of one process and lets go of each when it is taken.

    Dagster's own in-memory manager keeps every value, in a reference cycle, until the garbage collector comes by; with
    batches of 100 MB that is too late.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, ...], object] = {}
        self._taken: dict[tuple[str, ...], object] = {}

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Keeps the value for the next op. The op that made it has ended well: what it took is not needed again."""
        self._taken.clear()
        self._values[tuple(context.get_identifier())] = obj

    def load_input(self, context: dg.InputContext) -> object:
        """Gives the value away; once more to an op that is tried again."""
        if context.upstream_output is None:
            raise dg.DagsterInvariantViolationError("An input without an upstream output cannot be in memory.")
        key = tuple(context.upstream_output.get_identifier())
        if key in self._values:
            self._taken[key] = self._values.pop(key)
        return self._taken[key]

    def forget(self) -> None:
        """Lets go of everything: a finished run is a reference cycle that holds its resources."""
        self._values.clear()
        self._taken.clear()


@dg.io_manager(description="Passes values between the ops of one run, in memory.")  # type: ignore[arg-type]  # may yield
def take_once(_: dg.InitResourceContext) -> Iterator[TakeOnceIOManager]:
    """A new one a run: what a run leaves behind, such as what its last op took, goes with it."""
    manager = TakeOnceIOManager()
    try:
        yield manager
    finally:
        manager.forget()


def fixed(value: object) -> dg.ResourceDefinition:
    """`value` as a resource without config: there is nothing that Dagster could show, store, or let a run replace."""
    words = (type(value).__doc__ or "").partition("\n")[0]
    return dg.ResourceDefinition(lambda _: value, config_schema={}, description=words)


def build_resources(settings: Settings) -> dict[str, object]:
    """What ops and sensors of a deployment work with, by the name of the resource."""
    owner = require(settings.database_url, "DATABASE_URL")
    urls = {
        "loader_url": settings.loader_database_url or owner,
        "owner_url": owner,
        "gateway_link": settings.gateway_link,
    }
    warehouse = Warehouse(**urls, retry_jitter=settings.retry_jitter)
    if settings.chaos:
        from pipeline_platform.orchestration.chaos import ChaoticWarehouse

        warehouse = ChaoticWarehouse(
            **urls, retry_jitter=settings.retry_jitter, share=settings.chaos, seed=settings.chaos_seed
        )
    return {
        "warehouse": warehouse,
        "ingest_queue": IngestQueue(url=require(settings.redis_url, "REDIS_URL")),
        "alert_routes": AlertRoutes(
            path=str(settings.alerts_file or ""),
            streams=tuple(sorted(load_specs(settings.streams_dir))),
            allow_private=settings.alerts_allow_private,
        ),
    }


def history_limits(settings: Settings) -> HistoryLimits:
    """How long a deployment keeps runs."""
    return HistoryLimits(settings.keep_succeeded_runs_hours, settings.keep_failed_runs_days)


def letter_retention(settings: Settings) -> dict[str, timedelta]:
    """How long a deployment keeps dead letters, by state; for ever those in a state that is not named."""
    days = {"replayed": settings.keep_replayed_letters_days, "discarded": settings.keep_discarded_letters_days}
    if settings.keep_open_letters_days is not None:
        days["open"] = settings.keep_open_letters_days
    return {state: timedelta(days=kept) for state, kept in days.items()}


def plan_limits(settings: Settings) -> PlanLimits:
    """The planner's limits of a deployment."""
    return PlanLimits(
        max_events=settings.batch_max_events,
        max_bytes=settings.batch_max_bytes,
        in_flight=settings.batches_in_flight,
        lost_run_after=settings.lost_run_after,
        sensor_interval=settings.sensor_interval,
        max_run_seconds=settings.max_run_seconds,
        hold_seconds=settings.sensor_hold_seconds,
        pace=PaceLimits(settings.linger_seconds, settings.runs_per_second, settings.runs_burst),
        breaker=BreakerLimits(
            share=settings.breaker_share,
            window=settings.breaker_window_events,
            minimum=settings.breaker_min_rejects,
            pause=settings.breaker_pause_seconds,
            probe_events=settings.breaker_probe_events,
        ),
    )
