"""The outbox of alerts: raised and resolved in the transaction of the change that they tell of.

Open alerts with one key are one alert, raised several times: five hundred failures of one kind are one thing to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from pipeline_platform.core.failures import Failure, FailureKind
from pipeline_platform.warehouse.schema import UNSETTLED, alerts, assets
from pipeline_platform.warehouse.text import storable

Severity = Literal["info", "warning", "critical"]
FAILING_AFTER = 4  # attempts that failed of transient causes, before somebody is told
SAMPLE = 3


@dataclass(frozen=True)
class Alert:
    """One thing to know. `key` says what it is about; `body` says what to do; `sample` is bounded by the caller."""

    key: str
    kind: str
    severity: Severity
    title: str
    body: str
    stream: str | None = None
    sample: Sequence[Any] | None = None


def raise_alert(connection: sa.Connection, alert: Alert) -> None:
    """Opens the alert, or counts it once more when it is open."""
    statement = insert(alerts).values(
        key=alert.key[:200],
        kind=alert.kind,
        severity=alert.severity,
        stream=alert.stream,
        title=storable(alert.title)[:200],
        body=storable(alert.body)[:2000],
        sample=list(alert.sample)[:SAMPLE] if alert.sample is not None else None,
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["key"],
            index_where=sa.text("resolved_at is null"),
            set_={
                "times": alerts.c.times + 1,
                "last_raised_at": sa.func.now(),
                "title": statement.excluded.title,
                "body": statement.excluded.body,
                "sample": statement.excluded.sample,
                "severity": statement.excluded.severity,
            },
        )
    )


def resolve_alert(connection: sa.Connection, key: str, why: str = "") -> bool:
    """Closes the alert with this key, with a word of `why` where it did not simply pass; False when none was open."""
    values: dict[str, object] = {"resolved_at": sa.func.now()}
    if why:
        values["body"] = sa.func.left(f"Over: {storable(why)}. Before: " + alerts.c.body, 2000)
    statement = sa.update(alerts).where(alerts.c.key == key, alerts.c.resolved_at.is_(None))
    return connection.execute(statement.values(**values)).rowcount > 0


def alert_of_failure(connection: sa.Connection, batch_id: int, stream: str | None, failure: Failure) -> None:
    """Tells of a failed attempt: at once when somebody has to act, after some when it may pass, never of a cancel."""
    if failure.kind is FailureKind.CANCELED:
        return
    if failure.kind in (FailureKind.TRANSIENT, FailureKind.LOST) and failure.attempt < FAILING_AFTER:
        return
    acting = failure.kind is FailureKind.PERMANENT
    raise_alert(
        connection,
        Alert(
            key=failing_key(stream),
            kind="batch_failing",
            severity="critical" if acting else "warning",
            stream=stream,
            title=f"{stream}: batch {batch_id} fails ({failure.kind.value}, attempt {failure.attempt})",
            body=f"{failure.error_class} in {failure.op or 'its run'}: {failure.message[:500]} "
            "It is tried again; none of its events is lost meanwhile. "
            f"See `pipeline-platform assets show {batch_id}`.",
        ),
    )


def alert_of_burial(connection: sa.Connection, stream: str, batch_id: int, events: int) -> None:
    """Tells of a request that was given up: its events are dead letters now."""
    raise_alert(
        connection,
        Alert(
            key=burial_key(stream),
            kind="batch_dead",
            severity="critical",
            stream=stream,
            title=f"{stream}: batch {batch_id} was given up",
            body=f"Its {events} events cannot be processed and are dead letters now, reason poison. "
            f"See `pipeline-platform assets show {batch_id}` and `pipeline-platform dlq list --batch {batch_id}`.",
        ),
    )


def alert_of_queue(connection: sa.Connection, stream: str, message: str) -> None:
    """Raises the alert that a queue does not hold what the ledger knows, or resolves it when there is no message."""
    key = f"queue/{stream}"
    if not message:
        resolve_alert(connection, key)
        return
    title = f"{stream}: its queue does not hold what was planned"
    raise_alert(connection, Alert(key, "queue_backwards", "critical", title, message, stream))


def recovered(connection: sa.Connection, stream: str, batch_id: int) -> None:
    """Resolves the stream's failing alert once no other batch of it is failing. Called as `batch_id` is settled."""
    failing = sa.select(assets.c.id).where(
        assets.c.stream == stream,
        assets.c.state.in_(UNSETTLED),
        assets.c.failed_at.is_not(None),
        assets.c.id != batch_id,
    )
    if connection.execute(failing.limit(1)).first() is None:
        resolve_alert(connection, failing_key(stream))


def failing_key(stream: str | None) -> str:
    """The key of the alert that a stream's batches fail."""
    return f"failing/{stream}"


def burial_key(stream: str) -> str:
    """The key of the alert that requests of a stream were given up."""
    return f"dead/{stream}"
