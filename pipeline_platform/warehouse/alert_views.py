"""Alerts for people: lists in pages, and how many are open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pipeline_platform.core.alerts import SEVERITIES
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.schema import alert_deliveries, alerts


@dataclass(frozen=True)
class Delivery:
    """What became of one message about an alert: its raise or its end, to one route."""

    route: str
    phase: str
    state: str
    attempts: int
    error: str | None
    not_before: datetime | None
    sent_at: datetime | None


@dataclass(frozen=True)
class ListedAlert:
    """An alert with its deliveries."""

    id: int
    key: str
    kind: str
    severity: str
    stream: str | None
    title: str
    body: str
    sample: Any
    times: int
    raised_at: datetime
    last_raised_at: datetime
    resolved_at: datetime | None
    deliveries: Sequence[Delivery]


@dataclass(frozen=True)
class AlertQuery:
    """Which alerts: open ones or all; the newest first, below the id `before`."""

    open_only: bool = True
    stream: str | None = None
    severity: str | None = None
    kind: str | None = None
    before: int | None = None
    limit: int = 100


def list_alerts(engine: sa.Engine, asked: AlertQuery) -> list[ListedAlert]:
    """The alerts asked for, the newest first."""
    query = sa.select(alerts).order_by(alerts.c.id.desc()).limit(asked.limit)
    if asked.open_only:
        query = query.where(alerts.c.resolved_at.is_(None))
    for column, value in (
        (alerts.c.stream, asked.stream),
        (alerts.c.severity, asked.severity),
        (alerts.c.kind, asked.kind),
    ):
        if value is not None:
            query = query.where(column == value)
    if asked.before is not None:
        query = query.where(alerts.c.id < asked.before)
    with warehouse_errors(), engine.connect() as connection:
        found = connection.execute(query).all()
        sent = _deliveries(connection, [row.id for row in found])
    return [ListedAlert(**row._mapping, deliveries=tuple(sent.get(row.id, ()))) for row in found]


def open_counts(engine: sa.Engine) -> dict[str, int]:
    """How many alerts of each severity are open, zeros included."""
    query = sa.select(alerts.c.severity, sa.func.count()).where(alerts.c.resolved_at.is_(None))
    with warehouse_errors(), engine.connect() as connection:
        found: dict[str, int] = {row[0]: row[1] for row in connection.execute(query.group_by(alerts.c.severity))}
    return {severity: found.get(severity, 0) for severity in SEVERITIES}


def _deliveries(connection: sa.Connection, ids: list[int]) -> dict[int, list[Delivery]]:
    query = (
        sa.select(alert_deliveries)
        .where(alert_deliveries.c.alert_id.in_(ids))
        .order_by(alert_deliveries.c.alert_id, alert_deliveries.c.route, alert_deliveries.c.phase)
    )
    found: dict[int, list[Delivery]] = {}
    for row in connection.execute(query):
        delivery = Delivery(row.route, row.phase, row.state, row.attempts, row.error, row.not_before, row.sent_at)
        found.setdefault(row.alert_id, []).append(delivery)
    return found
