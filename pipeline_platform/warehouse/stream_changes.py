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

from pipeline_platform.core.names import NAME
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import DestructiveChangeError
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.schema import streams
from pipeline_platform.warehouse.stream_tables import (
    StreamTables,
    event_ids_table,
    quoted,
    stream_tables,
    unique_index,
)


@dataclass(frozen=True)
class Change:
    """One difference between a spec and the tables: a sentence, and whether it would lose data."""

    sentence: str
    destructive: bool = False
    table: sa.Table | None = None
    column: sa.Column[object] | None = None


def was_declared(engine: sa.Engine, name: str) -> bool:
    """Whether the stream is or was one: what is kept of a stream outlives its file."""
    if not NAME.match(name):
        return False  # PostgreSQL would refuse some of these
    with warehouse_errors(), engine.connect() as connection:
        return connection.scalar(sa.select(sa.true()).where(streams.c.name == name)) is not None


@dataclass(frozen=True)
class Plan:
    """All differences of one stream: of its tables, and sentences about the rest of the spec."""

    spec: StreamSpec
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()


def plan_changes(connection: sa.Connection, spec: StreamSpec) -> Plan:
    """Compares the spec with what is in the database."""
    tables = stream_tables(spec)
    inspector = sa.inspect(connection)
    changes: list[Change] = []
    if not inspector.has_table(tables.series.name):
        return Plan(spec, (Change(f"{spec.name}: create the stream's tables and views"),))
    for table in tables.tables:
        if not inspector.has_table(table.name):
            ids = "; events that are loaded already have left no ids there" if table is tables.event_ids else ""
            changes.append(Change(f"{spec.name}: create {table.name}{ids}", table=table))
            continue
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
    return Plan(spec, tuple(changes), _changed_otherwise(connection, spec))


def _changed_otherwise(connection: sa.Connection, spec: StreamSpec) -> tuple[str, ...]:
    """What differs from the spec as it was last applied without touching a column's existence."""
    applied = connection.scalar(sa.select(streams.c.spec).where(streams.c.name == spec.name)) or {}
    document = spec.model_dump(mode="json")
    if applied == document:
        return ()
    notes = []
    for name, dimension in spec.dimensions.items():
        before = applied.get("dimensions", {}).get(name)
        if before is not None and before["default"] != dimension.default:
            notes.append(
                f"{spec.name}: the default of {name} changes from {before['default']!r} to {dimension.default!r}; "
                "what is stored stays as it is"
            )
    if applied.get("unique_event_id") and not spec.unique_event_id:
        notes.append(
            f"{spec.name}: event ids are not unique any more; {event_ids_table(spec).name} stays, and empties as its "
            "ids expire"
        )
    return tuple(notes) or (f"{spec.name}: description or policies changed",)


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
    if not plan.changes and not plan.notes:
        return []
    tables = stream_tables(spec)
    document = spec.model_dump(mode="json")
    creating = any(change.table is None for change in plan.changes)
    if creating:
        for table in tables.tables:
            _create(connection, table)
    for change in plan.changes:
        if change.table is not None and change.column is not None:
            _add_column(connection, change.table, change.column)
        elif change.table is not None and not change.destructive:
            _create(connection, change.table)
    if creating or any(change.table is not None and change.table.name == tables.series.name for change in plan.changes):
        _unique(connection, spec)
    if not creating:
        _defaults(connection, tables, spec)
    _views(connection, tables, creating=creating)
    _comments(connection, tables)
    register = insert(streams).values(name=spec.name, spec=document)
    connection.execute(
        register.on_conflict_do_update(index_elements=["name"], set_={"spec": document, "applied_at": sa.func.now()})
    )
    return [change.sentence for change in plan.changes] or list(plan.notes)


def _create(connection: sa.Connection, table: sa.Table) -> None:
    connection.execute(CreateTable(table))
    for index in table.indexes:
        connection.execute(CreateIndex(index))


def _add_column(connection: sa.Connection, table: sa.Table, column: sa.Column[object]) -> None:
    # Compiled for the driver, which wants its % doubled, and run as it is: a default may hold a colon.
    definition = str(sa.schema.CreateColumn(column).compile(dialect=connection.dialect))
    connection.exec_driver_sql(f'alter table "{table.name}" add column {definition}')


def _defaults(connection: sa.Connection, tables: StreamTables, spec: StreamSpec) -> None:
    """Keeps the columns' defaults what the spec says; loads fill them in themselves, so nothing stored changes."""
    for name, dimension in spec.dimensions.items():
        literal = sa.literal(dimension.default or "").compile(
            dialect=connection.dialect, compile_kwargs={"literal_binds": True}
        )
        connection.exec_driver_sql(
            f'alter table "{tables.series.name}" alter column {quoted(name)} set default {literal}'
        )


def _unique(connection: sa.Connection, spec: StreamSpec) -> None:
    columns = ", ".join(quoted(name) for name in spec.dimensions)
    connection.execute(sa.text(f'drop index if exists "{unique_index(spec)}"'))
    connection.execute(sa.text(f'create unique index "{unique_index(spec)}" on "{spec.name}_series" ({columns})'))


def _views(connection: sa.Connection, tables: StreamTables, *, creating: bool) -> None:
    """New columns go to the end of a view that is there, so that rights on it and views on top of it survive."""
    inspector = sa.inspect(connection)
    for view in tables.views:
        there: list[str] = []
        if not creating and inspector.has_table(view.name):
            there = [str(column["name"]) for column in inspector.get_columns(view.name)]
        if set(there) <= {column.name for column in view.columns}:
            verb = "create or replace" if there else "create"
        else:  # an older version of this package showed a column that is gone
            connection.execute(sa.text(f'drop view "{view.name}"'))
            verb = "create"
        connection.execute(sa.text(f'{verb} view "{view.name}" as {view.query(there)}'))


def _comments(connection: sa.Connection, tables: StreamTables) -> None:
    for table in tables.tables:
        connection.execute(sa.schema.SetTableComment(table))
        _column_comments(connection, table)
    for view in tables.views:
        connection.exec_driver_sql(f"comment on view \"{view.name}\" is '{view.comment}'")
        columns = [
            sa.Column(sa.quoted_name(column.name, True), sa.Text, comment=column.comment or None)
            for column in view.columns
        ]
        _column_comments(connection, sa.Table(sa.quoted_name(view.name, True), sa.MetaData(), *columns))


def _column_comments(connection: sa.Connection, table: sa.Table) -> None:
    for column in table.columns:
        set_or_drop = sa.schema.SetColumnComment if column.comment else sa.schema.DropColumnComment
        connection.execute(set_or_drop(column))
