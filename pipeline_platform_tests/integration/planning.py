"""A planner's world: a queue, a ledger, what Dagster would say of a run, and the time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from pipeline_platform.orchestration.ingest.planner import Request, RunState, Tick, tick
from pipeline_platform.orchestration.resources import PlanLimits
from pipeline_platform.queue.protocol import NewEntry, Queue
from pipeline_platform.warehouse.breakers import Breakers
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.ledger_rows import LedgerRow
from pipeline_platform.warehouse.load import load
from pipeline_platform_tests.integration.batches import TELEMETRY, event, ready

LIMITS = PlanLimits(
    max_events=10, max_bytes=10**6, in_flight=3, lost_run_after=60.0, sensor_interval=1, max_run_seconds=900
)
NAME = "telemetry"


@dataclass
class World:
    """A queue, a ledger, what Dagster would say of a run, and the time."""

    engine: sa.Engine
    queue: Queue
    ledger: Ledger
    runs: dict[tuple[int, int], RunState] = field(default_factory=dict)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def post(self, requests: int, events: int = 1) -> None:
        """Accepts some requests."""
        self.queue.append([NewEntry(NAME, events, (event() + b"\n") * events, "k1")] * requests)

    def tick(self, limits: PlanLimits = LIMITS) -> Tick:
        """One tick."""
        return self.tick_with(self.state_of, limits)

    def tick_with(self, run_state: Callable[[LedgerRow], RunState], limits: PlanLimits = LIMITS) -> Tick:
        """One tick, with another's word for what became of a run."""
        return tick(
            NAME,
            self.queue,
            self.ledger,
            Breakers(self.engine),
            limits,
            run_state,
            self.now,
            asset_key="warehouse/x",  # as `plan` in batches.py has it
            job_name="ingest_t",
        )

    def state_of(self, row: LedgerRow) -> RunState:
        """What became of the run of the row's attempt."""
        return self.runs.get((row.id, row.attempt), RunState.ABSENT)

    def load(self, request: Request) -> int:
        """What the requested run does."""
        row = self.ledger.start(request.row.id, request.attempt, "run")
        assert row is not None
        entries = tuple(self.queue.read(NAME, row.first_id, row.last_id))
        assert len(entries) == row.entries
        return load(self.engine, TELEMETRY, ready(TELEMETRY, row, entries)).read

    def wait(self, seconds: float) -> None:
        """Lets time pass."""
        self.now += timedelta(seconds=seconds)
