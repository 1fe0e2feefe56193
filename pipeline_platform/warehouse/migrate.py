"""Brings the warehouse in line: the platform's tables by Alembic, the streams' tables by their specs.

One migration at a time (advisory lock); a statement that has to wait for a lock gives up rather than block the loads
behind it, and the whole is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import PermanentError, TransientError
from pipeline_platform.warehouse.audit import grant_audit
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.ledger_views import LEDGER_VIEWS, make_ledger_views
from pipeline_platform.warehouse.price_views import PRICE_VIEWS, make_price_views
from pipeline_platform.warehouse.roles import ensure_roles, grant
from pipeline_platform.warehouse.schema import audit, metadata, users
from pipeline_platform.warehouse.stream_changes import apply_changes, plan_changes, refuse_destructive
from pipeline_platform.warehouse.stream_tables import stream_tables
from pipeline_platform.warehouse.users import grant_users

LOCK = 0x7069_7065_6C69_6E65  # "pipeline": no two migrations at once
VERSION_TABLE = "pipeline_alembic_version"
_SCRIPTS = Path(__file__).parent / "migrations"
_TRIES = 5


def migrate(
    engine: sa.Engine,
    specs: Iterable[StreamSpec],
    *,
    say: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    lock_timeout: float = 5.0,
) -> None:
    """Applies every outstanding migration and every change of a spec; `say` gets a line for each.

    Raises DestructiveChangeError before anything is changed when a spec would lose data, and TransientError when a
    lock was not to be had within `lock_timeout` seconds in any of five tries.
    """
    specs = list(specs)
    for tries_left in reversed(range(_TRIES)):
        try:
            with warehouse_errors():
                _migrate_once(engine, specs, say, lock_timeout)
            return
        except TransientError as error:
            if not tries_left:
                raise
            say(f"{error} Trying again.")
            sleep(1.0)


def _migrate_once(engine: sa.Engine, specs: list[StreamSpec], say: Callable[[str], None], lock_timeout: float) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
        # Neither connection goes back to the pool: the advisory lock and the timeouts last as long as a session.
        guard.detach()
        guard.execute(sa.text("select pg_advisory_lock(:key)"), {"key": LOCK})
        with engine.connect() as connection:
            connection.detach()
            connection.execute(sa.text(f"set lock_timeout = {round(lock_timeout * 1000)}"))
            connection.execute(sa.text("set statement_timeout = '10min'"))
            connection.commit()
            before = current_revision(connection)
            plans = [plan_changes(connection, spec) for spec in specs] if before else []
            refuse_destructive(plans)
            connection.rollback()
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
            after = current_revision(connection)
            if before != after:
                say(f"warehouse schema: {before or 'empty'} -> {after}")
            for spec in specs:
                with connection.begin() if not connection.in_transaction() else connection.begin_nested():
                    for line in apply_changes(connection, spec, plan_changes(connection, spec)):
                        say(line)
                connection.commit()
            _comment_and_grant(connection, specs)
            connection.commit()


def current_revision(connection: sa.Connection) -> str | None:
    """The Alembic revision that the database is at; None for an empty one."""
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def head_revision() -> str:
    """The newest revision in the package."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config


def differences(connection: sa.Connection) -> list[str]:
    """How the database's platform tables differ from the models; empty when migrations and models agree."""
    ours = set(metadata.tables)
    context = MigrationContext.configure(
        connection,
        opts={
            "version_table": VERSION_TABLE,
            "compare_type": True,
            "compare_server_default": False,
            "include_name": lambda name, kind, _: kind != "table" or name in ours,
        },
    )
    return [str(difference) for difference in compare_metadata(context, metadata)]


def check_migrated(engine: sa.Engine) -> None:
    """Raises PermanentError when the warehouse is not at the newest revision."""
    with warehouse_errors(), engine.connect() as connection:
        current, head = current_revision(connection), head_revision()
    if current != head:
        raise PermanentError(
            f"The warehouse is at {current or 'no schema'}, not {head}. Run `pipeline-platform migrate`."
        )


def _comment_and_grant(connection: sa.Connection, specs: list[StreamSpec]) -> None:
    for table in metadata.sorted_tables:
        comment_on(connection, table)
    make_ledger_views(connection)
    make_price_views(connection)
    names = [
        *(name for name in metadata.tables if name not in (audit.name, users.name)),
        *(view.name for view in (*LEDGER_VIEWS, *PRICE_VIEWS)),
    ]
    for spec in specs:
        tables = stream_tables(spec)
        names += [table.name for table in tables.tables]
        names += [view.name for view in tables.views]
    ensure_roles(connection)
    grant(connection, names, VERSION_TABLE)
    grant_audit(connection)
    grant_users(connection)


def comment_on(connection: sa.Connection, table: sa.Table) -> None:
    """Writes a table's comments into the database, where they are not there yet."""
    inspector = sa.inspect(connection)
    if inspector.get_table_comment(table.name)["text"] != table.comment:
        connection.execute(sa.schema.SetTableComment(table))
    present = {column["name"]: column.get("comment") for column in inspector.get_columns(table.name)}
    for column in table.columns:
        if column.comment and present.get(column.name) != column.comment:
            connection.execute(sa.schema.SetColumnComment(column))
