"""How a stream is: whether its batches load, fail, or are held back by its breaker."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa

from pipeline_platform.core.breaker import BreakerState
from pipeline_platform.core.failures import FailureKind
from pipeline_platform.warehouse.breakers import Breaker, Breakers
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.schema import UNSETTLED, assets


class HealthState(StrEnum):
    """From well to worse."""

    OK = "ok"
    FAILING = "failing"  # batches fail and are tried again
    PAUSED = "paused"  # the breaker is open or lets one batch through
    BLOCKED = "blocked"  # batches fail until somebody acts


@dataclass(frozen=True)
class StreamHealth:
    """A stream's state, since when, why, and what happens next."""

    state: HealthState
    since: datetime | None
    message: str | None
    failing_batches: int
    next_attempt_at: datetime | None
    breaker: Breaker


_FAILING = sa.select(
    sa.func.count(),
    sa.func.min(assets.c.failed_at),
    sa.func.min(assets.c.not_before),
    sa.func.bool_or(assets.c.error_kind == FailureKind.PERMANENT.value),
    sa.func.max(assets.c.error_message),
).where(assets.c.state.in_(UNSETTLED), assets.c.failed_at.is_not(None), assets.c.kind == "ingest")


def stream_health(engine: sa.Engine, stream: str) -> StreamHealth:
    """The stream's health, from the ledger and its breaker."""
    breaker = Breakers(engine).get(stream)
    with warehouse_errors(), engine.connect() as connection:
        failing, since, following, acting, message = connection.execute(_FAILING.where(assets.c.stream == stream)).one()
    if breaker.state is not BreakerState.CLOSED:
        return StreamHealth(HealthState.PAUSED, breaker.changed_at, breaker.reason, failing, breaker.probe_at, breaker)
    state = HealthState.BLOCKED if acting else HealthState.FAILING if failing else HealthState.OK
    return StreamHealth(state, since, message, failing, following, breaker)
