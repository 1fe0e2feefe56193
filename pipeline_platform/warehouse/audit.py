"""The audit: who did what, from where, and how it ended. Rows are added and looked at, never changed.

The loader may insert and select; the reader may not even look, since analysts are members of it. Only the owner can
delete, which its maintenance job does when rows are old.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as pg_insert

from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.roles import LOADER, READER
from pipeline_platform.warehouse.schema import audit

PURGE_STEP = 10_000
PATIENCE = "15s"  # of a search: the loader has no limit of its own


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that happened. `key` makes a second insert of it harmless; `at` is an aware UTC datetime."""

    at: datetime
    event: str
    actor: str = ""
    actor_role: str = ""
    address: str = ""
    outcome: str = "ok"
    detail: dict[str, Any] = field(default_factory=dict)
    key: UUID = field(default_factory=uuid4)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An entry as the table has it, under its number."""

    id: int
    at: datetime
    event: str
    actor: str
    actor_role: str
    address: str
    outcome: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which rows: those that match every part that is given. `since` <= at < `until`."""

    events: tuple[str, ...] = ()
    actor: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def insert(engine: sa.Engine, entries: Sequence[AuditEntry]) -> None:
    """Adds the entries, in one transaction; those that are there already are left as they are."""
    names = [column.name for column in audit.columns if column.name != "id"]
    values = [{name: getattr(entry, name) for name in names} for entry in entries]
    with warehouse_errors(), engine.begin() as connection:
        # Inline, and without the index's name: the right to insert is all that it takes.
        connection.execute(pg_insert(audit).inline().on_conflict_do_nothing(), values)


def search(engine: sa.Engine, which: AuditFilter, *, limit: int, below_id: int | None = None) -> list[AuditRow]:
    """The newest `limit` matching rows below that id, the newest first."""
    query = _where(which).order_by(audit.c.id.desc()).limit(limit)
    if below_id is not None:
        query = query.where(audit.c.id < below_id)
    with warehouse_errors(), engine.connect() as connection:
        connection.execute(sa.text(f"set local statement_timeout = '{PATIENCE}'"))
        return [AuditRow(**row._mapping) for row in connection.execute(query)]


def purge_audit(engine: sa.Engine, before: datetime, step: int = PURGE_STEP) -> int:
    """Deletes rows of what happened before then, as the owner; how many. `step` rows a transaction."""
    old = sa.select(audit.c.id).where(audit.c.at < before).limit(step)
    purged = 0
    while True:
        with warehouse_errors(), engine.begin() as connection:
            gone = connection.execute(sa.delete(audit).where(audit.c.id.in_(old))).rowcount
        purged += gone
        if not gone:
            return purged


def grant_audit(connection: sa.Connection) -> None:
    """The loader may add and look, nobody else may anything; takes back what was granted before."""
    for role, rights in ((LOADER, "select, insert"), (READER, "")):
        if not connection.scalar(sa.text("select true from pg_roles where rolname = :role"), {"role": role}):
            continue
        connection.execute(sa.text(f"revoke all on audit from {role}"))
        if rights:
            connection.execute(sa.text(f"grant {rights} on audit to {role}"))


def _where(which: AuditFilter) -> sa.Select[Any]:
    query = sa.select(*(column for column in audit.columns if column.name != "key"))
    if which.events:
        query = query.where(audit.c.event.in_(which.events))
    if which.actor is not None:
        query = query.where(audit.c.actor == which.actor)
    if which.outcome is not None:
        query = query.where(audit.c.outcome == which.outcome)
    if which.since is not None:
        query = query.where(audit.c.at >= which.since)
    if which.until is not None:
        query = query.where(audit.c.at < which.until)
    return query
