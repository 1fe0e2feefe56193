"""What a spec would change in the warehouse, and doing it.

Adding a stream, a dimension or a measure is a change that loads and readers survive. Taking one away or turning one
into the other would lose data and is refused: make a new stream instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.schema import CreateIndex, CreateTable

from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import DestructiveChangeError
from pipeline_platform.warehouse.schema import streams
from pipeline_platform.warehouse.stream_tables import StreamTables, quoted, stream_tables, unique_index


@dataclass(frozen=True)
class Change:
    """One difference between a spec and the tables: a sentence, and whether it would lose data."""

    sentence: str
    destructive: bool = False
    table: sa.Table | None = None
    column: sa.Column[object] | None = None


@dataclass(frozen=True)
class Plan:
    """All differences of one stream."""

    spec: StreamSpec
    changes: tuple[Change, ...]


def plan_changes(connection: sa.Connection, spec: StreamSpec) -> Plan:
    """Compares the spec with what is in the database."""
    tables = stream_tables(spec)
    inspector = sa.inspect(connection)
    changes: list[Change] = []
    if not inspector.has_table(tables.series.name):
        return Plan(spec, (Change(f"{spec.name}: create the stream's tables and views"),))
    for table in (tables.series, tables.events, tables.minutes):
        there = {str(column["name"]) for column in inspector.get_columns(table.name)}
        wanted = {column.name for column in table.columns}
        changes += [
            Change(f"{spec.name}: add the column {table.name}.{column.name}", False, table, column)
            for column in table.columns
            if column.name not in there
        ]
        changes += [
            Change(f"{spec.name}: the column {table.name}.{name} holds data but is no longer declared", True)
            for name in sorted(there - wanted)
        ]
    return Plan(spec, tuple(changes))


def refuse_destructive(plans: Iterable[Plan]) -> None:
    """Raises DestructiveChangeError that names every change that would lose data."""
    lost = [change.sentence for plan in plans for change in plan.changes if change.destructive]
    if lost:
        raise DestructiveChangeError(
            "Refused, nothing was changed: " + "; ".join(lost) + ". Put the field back, or declare a new stream."
        )


def apply_changes(connection: sa.Connection, spec: StreamSpec, plan: Plan) -> list[str]:
    """Makes the plan true within the caller's transaction; returns what was done, a sentence each."""
    refuse_destructive([plan])
    tables = stream_tables(spec)
    applied = connection.scalar(sa.select(streams.c.spec).where(streams.c.name == spec.name))
    document = spec.model_dump(mode="json")
    if not plan.changes and applied == document:
        return []
    creating = any(change.table is None for change in plan.changes)
    if creating:
        for table in (tables.series, tables.events, tables.minutes):
            connection.execute(CreateTable(table))
            for index in table.indexes:
                connection.execute(CreateIndex(index))
    for change in plan.changes:
        if change.table is not None and change.column is not None:
            _add_column(connection, change.table, change.column)
    if creating or any(change.table is not None and change.table.name == tables.series.name for change in plan.changes):
        _unique(connection, spec)
    _views(connection, tables)
    _comments(connection, tables)
    register = insert(streams).values(name=spec.name, spec=document)
    connection.execute(
        register.on_conflict_do_update(index_elements=["name"], set_={"spec": document, "applied_at": sa.func.now()})
    )
    return [change.sentence for change in plan.changes] or [f"{spec.name}: description or policies changed"]


def _add_column(connection: sa.Connection, table: sa.Table, column: sa.Column[object]) -> None:
    definition = str(sa.schema.CreateColumn(column).compile(dialect=connection.dialect))
    connection.execute(sa.text(f'alter table "{table.name}" add column {definition}'))


def _unique(connection: sa.Connection, spec: StreamSpec) -> None:
    columns = ", ".join(quoted(name) for name in spec.dimensions)
    connection.execute(sa.text(f'drop index if exists "{unique_index(spec)}"'))
    connection.execute(sa.text(f'create unique index "{unique_index(spec)}" on "{spec.name}_series" ({columns})'))


def _views(connection: sa.Connection, tables: StreamTables) -> None:
    for name, query in tables.views.items():
        # A view cannot be replaced by one whose columns come in another order. Somebody's own view on top keeps it
        # from being dropped, and PostgreSQL's message says which.
        connection.execute(sa.text(f'drop view if exists "{name}"'))
        connection.execute(sa.text(f'create view "{name}" as {query}'))


def _comments(connection: sa.Connection, tables: StreamTables) -> None:
    for table in (tables.series, tables.events, tables.minutes):
        connection.execute(sa.schema.SetTableComment(table))
        for column in table.columns:
            if column.comment:
                connection.execute(sa.schema.SetColumnComment(column))
    for name in tables.views:
        kind = "One-minute aggregates" if name.endswith("_1m") else "Every event"
        connection.execute(sa.text(f"comment on view \"{name}\" is '{kind}, with the dimensions spelled out.'"))
