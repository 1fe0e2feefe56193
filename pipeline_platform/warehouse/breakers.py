"""The breaker of each stream, kept in the warehouse: every change of state is one transaction with its alert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from pipeline_platform.core.breaker import BreakerLimits, BreakerState, Counts, fails, pause, recent, trips
from pipeline_platform.warehouse.alerts import Alert, raise_alert, resolve_alert
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.schema import UNSETTLED, assets, breakers, dead_letters

BATCHES = 200  # settled batches looked at first: most streams reach the window long before
EXAMPLES = 3
EXAMPLE_CHARACTERS = 200


@dataclass(frozen=True)
class Breaker:
    """A stream's breaker as it stands."""

    stream: str
    state: BreakerState = BreakerState.CLOSED
    reason: str | None = None
    examples: Sequence[Any] = ()
    counted_after: int = 0
    openings: int = 0
    probe_batch_id: int | None = None
    changed_at: datetime | None = None
    probe_at: datetime | None = None

    @property
    def probing(self) -> bool:
        """Whether a probe may be planned now."""
        return self.state is BreakerState.HALF_OPEN and self.probe_batch_id is None


class Breakers:
    """Reads and changes of the breakers. Raises WarehouseUnavailableError, TransientError or PermanentError."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def get(self, stream: str) -> Breaker:
        """The stream's breaker; closed when it has never opened."""
        with warehouse_errors(), self._engine.connect() as connection:
            return _get(connection, stream)

    def all(self) -> dict[str, Breaker]:
        """Every breaker that has ever opened, by stream."""
        with warehouse_errors(), self._engine.connect() as connection:
            return {row.stream: _breaker(row) for row in connection.execute(sa.select(breakers))}

    def review(self, stream: str, asset_key: str, limits: BreakerLimits, now: datetime) -> Breaker:
        """Opens, half-opens or closes the breaker as the settled batches call for; returns it as it is then."""
        with warehouse_errors(), self._engine.begin() as connection:
            breaker = _get(connection, stream, lock=True)
            if breaker.state is BreakerState.CLOSED:
                counts = recent(_settled(connection, asset_key, breaker.counted_after, limits.window), limits)
                if trips(counts, limits):
                    _open(connection, breaker, counts, limits, now)
            elif breaker.state is BreakerState.OPEN:
                if breaker.probe_at is not None and now >= breaker.probe_at:
                    _write(connection, stream, state=BreakerState.HALF_OPEN, probe_batch_id=None, changed_at=now)
            elif breaker.probe_batch_id is not None:
                probe = _probe(connection, breaker.probe_batch_id)
                if probe is not None and fails(probe, limits):
                    _open(connection, breaker, probe, limits, now)
                elif probe is not None:
                    _close(
                        connection,
                        breaker,
                        breaker.probe_batch_id,
                        now,
                        "The batch that was let through is good.",
                        breaker.openings,
                    )
            return _get(connection, stream)

    def probe(self, stream: str, batch_id: int) -> None:
        """Notes which batch was let through to decide."""
        with warehouse_errors(), self._engine.begin() as connection:
            _write(connection, stream, probe_batch_id=batch_id)

    def resume(self, stream: str, who: str, now: datetime) -> bool:
        """Closes the breaker whatever the rejects; False when it was not open."""
        with warehouse_errors(), self._engine.begin() as connection:
            breaker = _get(connection, stream, lock=True)
            if breaker.state is BreakerState.CLOSED:
                return False
            latest = connection.scalar(sa.select(sa.func.coalesce(sa.func.max(assets.c.id), 0)))
            _close(connection, breaker, int(latest or 0), now, f"Resumed by {who}.")
            return True


def _get(connection: sa.Connection, stream: str, *, lock: bool = False) -> Breaker:
    query = sa.select(breakers).where(breakers.c.stream == stream)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return _breaker(row) if row is not None else Breaker(stream)


def _breaker(row: Any) -> Breaker:
    return Breaker(
        row.stream,
        BreakerState(row.state),
        row.reason,
        tuple(row.examples or ()),
        row.counted_after,
        row.openings,
        row.probe_batch_id,
        row.changed_at,
        row.probe_at,
    )


# Repeats of an event_id are no sign of a bad deploy: a producer that sends everything twice is a careful one.
_REFUSED = assets.c.events_rejected - assets.c.events_duplicate


def _settled(connection: sa.Connection, asset_key: str, after: int, window: int) -> list[Counts]:
    """The newest settled batches, enough for the window: a batch has one event at least."""
    query = (
        sa.select(assets.c.events_read, _REFUSED)
        .where(
            assets.c.asset_key == asset_key,
            sa.func.coalesce(assets.c.partition_key, "") == "",
            assets.c.id > after,
            assets.c.state.not_in(UNSETTLED),
        )
        .order_by(assets.c.id.desc())
    )
    for most in (BATCHES, window):
        found = [Counts(row[0], row[1]) for row in connection.execute(query.limit(most))]
        if len(found) < most or sum(each.events for each in found) >= window:
            break
    return found


def _probe(connection: sa.Connection, batch_id: int) -> Counts | None:
    """What the probe brought; None while it is not settled."""
    query = sa.select(assets.c.events_read, _REFUSED).where(assets.c.id == batch_id, assets.c.state.not_in(UNSETTLED))
    row = connection.execute(query).one_or_none()
    return Counts(row[0], row[1]) if row is not None else None


def _write(connection: sa.Connection, stream: str, **values: Any) -> None:
    statement = insert(breakers).values(stream=stream, **{"state": BreakerState.CLOSED, **values})
    connection.execute(statement.on_conflict_do_update(index_elements=["stream"], set_=values))


def _open(connection: sa.Connection, breaker: Breaker, counts: Counts, limits: BreakerLimits, now: datetime) -> None:
    stream = breaker.stream
    # One that opens again soon after it closed goes on counting: its pauses grow, and nobody is told every minute.
    calm = breaker.state is BreakerState.CLOSED and (
        breaker.changed_at is None or now - breaker.changed_at > timedelta(seconds=limits.longest_pause)
    )
    openings = 1 if calm else breaker.openings + 1
    seconds = pause(openings, limits)
    reason = f"{counts.rejected:,} of the last {counts.events:,} events were rejected."
    examples = _examples(connection, stream)
    _write(
        connection,
        stream,
        state=BreakerState.OPEN,
        reason=reason,
        examples=examples,
        openings=openings,
        probe_batch_id=None,
        changed_at=now,
        probe_at=now + timedelta(seconds=seconds),
    )
    raise_alert(
        connection,
        Alert(
            key=_key(stream),
            kind="breaker_open",
            severity="critical",
            stream=stream,
            title=f"{stream}: its breaker is open, nothing is loaded",
            body=f"{reason} Is it a bad deploy of a producer, or a spec that has not kept up? Accepted events wait in "
            f"the queue; a small batch is tried in {seconds:.0f} s. `pipeline-platform dlq list --stream {stream}` "
            f"shows the rejects, `pipeline-platform streams resume {stream}` goes on regardless.",
            sample=examples,
        ),
    )


def _close(
    connection: sa.Connection, breaker: Breaker, counted_after: int, now: datetime, reason: str, openings: int = 0
) -> None:
    _write(
        connection,
        breaker.stream,
        state=BreakerState.CLOSED,
        reason=reason,
        examples=None,
        counted_after=counted_after,
        openings=openings,
        probe_batch_id=None,
        changed_at=now,
        probe_at=None,
    )
    resolve_alert(connection, _key(breaker.stream))


def _examples(connection: sa.Connection, stream: str) -> list[dict[str, object]]:
    """The latest rejects, different kinds first, with the beginnings of their payloads."""
    latest = (
        sa.select(dead_letters.c.id, dead_letters.c.reason, dead_letters.c.field, dead_letters.c.message)
        .add_columns(sa.func.left(dead_letters.c.payload, EXAMPLE_CHARACTERS).label("payload"))
        .where(dead_letters.c.stream == stream)
        .order_by(dead_letters.c.id.desc())
        .limit(1_000)
        .subquery()
    )
    place = sa.func.row_number().over(partition_by=[latest.c.reason, latest.c.field], order_by=latest.c.id.desc())
    numbered = sa.select(latest, place.label("place")).subquery()
    query = sa.select(numbered).order_by(numbered.c.place, numbered.c.id.desc()).limit(EXAMPLES)
    return [
        {
            "dead_letter": row.id,
            "reason": row.reason,
            "field": row.field,
            "message": row.message[:EXAMPLE_CHARACTERS],
            "payload": row.payload,
        }
        for row in connection.execute(query)
    ]


def _key(stream: str) -> str:
    return f"breaker/{stream}"
