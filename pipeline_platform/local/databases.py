"""Databases and logins on a server that is running, embedded or one's own; everything here may be run again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
from psycopg import errors, sql

from pipeline_platform.errors import SettingError, WarehouseUnavailableError


def ensure_databases(admin_url: str, names: Iterable[str]) -> list[str]:
    """Create the databases that are missing; returns those.

    `admin_url` is a libpq URL of any database on the server. SettingError when its user may not create databases.
    """
    created = []
    with _connected(admin_url) as connection:
        for name in names:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                continue
            try:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            except errors.DuplicateDatabase:
                continue  # somebody else was quicker
            except errors.InsufficientPrivilege:
                user = connection.info.user
                raise SettingError(
                    f"The user {user} may not create the database {name}; create it, or grant {user} CREATEDB."
                ) from None
            created.append(name)
    return created


def ensure_login(
    admin_url: str,
    role: str,
    password: str,
    member_of: str | None = None,
    statement_timeout_ms: int | None = None,
) -> None:
    """Make `role` a login with this password, in the group `member_of` (a role that exists) when it is given."""
    with _connected(admin_url) as connection:
        name = sql.Identifier(role)
        # Hashed on our side: a statement that fails is logged by the server, and would be with the password in it.
        hashed = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
        try:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone():
                with contextlib.suppress(errors.DuplicateObject):  # somebody else was quicker
                    connection.execute(sql.SQL("CREATE ROLE {}").format(name))
            connection.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(hashed)))
            if member_of is not None:
                connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(member_of), name))
            milliseconds = sql.SQL("DEFAULT") if statement_timeout_ms is None else sql.Literal(statement_timeout_ms)
            connection.execute(sql.SQL("ALTER ROLE {} SET statement_timeout TO {}").format(name, milliseconds))
        except errors.UndefinedObject:
            raise SettingError(f"The role {member_of} does not exist yet; run the migrations first.") from None
        except errors.InsufficientPrivilege:
            user = connection.info.user
            raise SettingError(
                f"The user {user} may not manage the role {role}; create it yourself, or grant {user} CREATEROLE."
            ) from None


# Dagster's tables that gain and, by the purge, lose rows all day.
HISTORY = ("event_logs", "runs", "run_tags", "job_ticks", "asset_event_tags")


def tune_history(dagster_url: str) -> None:
    """Let autovacuum look at Dagster's history early: its default waits for a fifth of a table to be dead."""
    with _connected(dagster_url) as connection:
        for table in HISTORY:
            connection.execute(
                sql.SQL(
                    "ALTER TABLE IF EXISTS {} SET (autovacuum_vacuum_scale_factor = 0.02, "
                    "autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1)"
                ).format(sql.Identifier(table))
            )


@contextlib.contextmanager
def _connected(admin_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    try:
        connection = psycopg.connect(admin_url, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as error:
        raise WarehouseUnavailableError(f"PostgreSQL cannot be reached: {error}") from error
    with connection:
        yield connection
