"""What `doctor` says of disk: how much a day at the present rate, and where it levels off."""

from __future__ import annotations

import psycopg
import sqlalchemy as sa

from pipeline_platform.cli.findings import Finding
from pipeline_platform.local.connections import Connections
from pipeline_platform.settings import Settings

MEGABYTE = 2**20
# Dagster's tables that grow with every run or tick.
HISTORY = ("event_logs", "runs", "run_tags", "job_ticks", "asset_event_tags")


def check_growth(settings: Settings, where: Connections) -> list[Finding]:
    """Forecasts for Dagster's history and for the facts, from what came in during the last hour."""
    return [_history(settings, where), _facts(where)]


def _history(settings: Settings, where: Connections) -> Finding:
    names = ", ".join(f"to_regclass('{name}')" for name in HISTORY)
    try:
        with psycopg.connect(where.dagster_database_url, connect_timeout=5) as connection:
            row = connection.execute(
                f"select coalesce(sum(pg_total_relation_size(r)), 0) from unnest(array[{names}]) r where r is not null"
            ).fetchone()
            runs = connection.execute(
                "select count(*), count(*) filter (where create_timestamp > timezone('UTC', now()) - interval '1 h') "
                "from runs"
            ).fetchone()
    except psycopg.Error as error:
        return Finding("warn", "growth", f"Dagster's database does not tell its size: {str(error).splitlines()[0]}")
    size, (total, recent) = int(row[0]) if row else 0, (int(runs[0]), int(runs[1])) if runs else (0, 0)
    a_run = size / total if total else 0.0
    a_day = recent * 24 * a_run / MEGABYTE
    level = a_day * settings.keep_succeeded_runs_hours / 24
    return Finding(
        "warn" if level > 20_000 else "ok",
        "growth",
        f"Dagster's history is {size / MEGABYTE:,.0f} MB for {total:,} runs; {recent:,} runs in the last hour make "
        f"{a_day:,.0f} MB a day, and purging successes after {settings.keep_succeeded_runs_hours:g} h keeps it near "
        f"{level:,.0f} MB",
    )


def _facts(where: Connections) -> Finding:
    engine = sa.create_engine(sa.make_url(where.warehouse_readonly_url).set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            events = connection.scalar(
                sa.text(
                    "select coalesce(sum(events_loaded), 0) from assets "
                    "where stream is not null and loaded_at > now() - interval '1 hour'"
                )
            )
            size, rows = connection.execute(
                sa.text(
                    "select coalesce(sum(pg_total_relation_size(i.inhrelid)), 0), coalesce(sum(c.reltuples), 0) "
                    "from streams s join pg_inherits i on i.inhparent = to_regclass(quote_ident(s.name || '_events')) "
                    "join pg_class c on c.oid = i.inhrelid where c.reltuples > 0"
                )
            ).one()
    except sa.exc.SQLAlchemyError as error:
        return Finding("warn", "growth", f"the warehouse does not tell its size: {type(error).__name__}")
    finally:
        engine.dispose()
    a_row = float(size) / float(rows) if rows else 72.0
    a_day = float(events or 0) * 24 * a_row / MEGABYTE
    message = (
        f"{int(events or 0):,} events in the last hour make {a_day:,.0f} MB of facts a day ({a_row:.0f} bytes each)"
    )
    return Finding("ok", "growth", message)
