"""Databases on a server that is running, embedded or one's own; everything here may be run again."""

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
    with admin_connection(admin_url) as connection:
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


# Dagster's tables that gain and, by the purge, lose rows all day.
HISTORY = ("event_logs", "runs", "run_tags", "job_ticks", "asset_event_tags")


# What the gateway's gauges read of it; what runs were configured with is none of theirs.
GAUGED = ("daemon_heartbeats", "job_ticks")


def tune_history(dagster_url: str) -> None:
    """Let autovacuum look at Dagster's history early, and the gateway at its gauges, once Dagster has made its tables.

    Autovacuum's default waits for a fifth of a table to be dead.
    """
    with admin_connection(dagster_url) as connection:
        for table in HISTORY:
            connection.execute(
                sql.SQL(
                    "ALTER TABLE IF EXISTS {} SET (autovacuum_vacuum_scale_factor = 0.02, "
                    "autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1)"
                ).format(sql.Identifier(table))
            )
        if connection.execute("select 1 from pg_roles where rolname = 'dagster_reader'").fetchone():
            tables = sql.SQL(", ").join(map(sql.Identifier, GAUGED))
            connection.execute(sql.SQL("GRANT SELECT ON {} TO dagster_reader").format(tables))


@contextlib.contextmanager
def admin_connection(admin_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection that commits each statement; WarehouseUnavailableError when there is none to be had."""
    try:
        connection = psycopg.connect(admin_url, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as error:
        raise WarehouseUnavailableError(f"PostgreSQL cannot be reached: {error}") from error
    with connection:
        yield connection
