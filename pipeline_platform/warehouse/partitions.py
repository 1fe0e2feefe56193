"""Daily partitions of the facts: made on demand, indexed when their day closes, dropped by retention."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta

import sqlalchemy as sa

from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.warehouse.engine import warehouse_errors

LOCK_TIMEOUT = "5s"  # then a query that takes long is left in peace until the next run
_DAY = re.compile(r"_events_(\d{4})(\d{2})(\d{2})\Z")


def ensure_partitions(connection: sa.Connection, stream: str, days: Iterable[date]) -> int:
    """Makes the partitions that are missing, each in a transaction of its own so that it holds its lock briefly.

    Returns how many were made.
    """
    made = 0
    for day in days:
        statement = sa.text("select pipeline_ensure_partition(:stream, :day)")
        made += bool(connection.scalar(statement, {"stream": stream, "day": day}))
        connection.commit()
    return made


def partitions(connection: sa.Connection, stream: str) -> dict[date, str]:
    """The partitions of a stream's facts by their UTC day, ascending."""
    names = connection.scalars(
        sa.text(
            "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid "
            "where i.inhparent = to_regclass(quote_ident(:parent)) order by 1"
        ),
        {"parent": f"{stream}_events"},
    )
    found = {}
    for name in names:
        match = _DAY.search(name)
        if match:
            found[date(int(match[1]), int(match[2]), int(match[3]))] = str(name)
    return found


def close_days(engine: sa.Engine, spec: StreamSpec, now: datetime) -> list[str]:
    """Gives the partitions whose day is over a BRIN index on `ts` and fresh statistics; returns their names.

    An index on the facts halves the speed of loading, so a day has none while it fills. A late event still loads.
    """
    closed = []
    grace = now - spec.policies.late_after
    with warehouse_errors(), engine.connect() as connection:
        for day, name in partitions(connection, spec.name).items():
            index = f"{name}_ts_brin"
            if day >= grace.date() or connection.scalar(sa.text("select to_regclass(quote_ident(:i))"), {"i": index}):
                continue
            connection.execute(sa.text(f'create index if not exists "{index}" on "{name}" using brin (ts)'))
            connection.execute(sa.text(f'analyze "{name}"'))
            connection.commit()
            closed.append(name)
    return closed


def drop_expired(engine: sa.Engine, spec: StreamSpec, now: datetime) -> list[str]:
    """Drops the partitions older than the stream's retention and the aggregates of those days; returns their names."""
    # One day of grace: an event may be accepted up to retention_days back from its own arrival.
    oldest = (now - timedelta(days=spec.policies.retention_days + 1)).date()
    dropped = []
    with warehouse_errors(), engine.connect() as connection:
        for day, name in partitions(connection, spec.name).items():
            if day >= oldest:
                continue
            connection.execute(sa.text(f"set local lock_timeout = '{LOCK_TIMEOUT}'"))
            connection.execute(sa.text(f'drop table "{name}"'))
            connection.execute(
                sa.text(f'delete from "{spec.name}_minutes" where window_start >= :from and window_start < :to'),
                {"from": f"{day} 00:00+00", "to": f"{day + timedelta(days=1)} 00:00+00"},
            )
            connection.commit()
            dropped.append(name)
    return dropped
