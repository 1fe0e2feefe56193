"""The tables and views that follow from a stream's spec alone.

<stream>_series    one row a combination of dimensions
<stream>_events    the facts, narrow and fixed-width, partitioned by day of `ts`
<stream>_minutes   one-minute aggregates, kept by the load
<stream>_hours     the same by hour, and
<stream>_days      by day (UTC), rolled up from the finer ones
<stream>_event_ids the ids that events have taken, only with `unique_event_id`
<stream>           a view: the facts with their dimensions
<stream>_1m, _1h and _1d   views: the aggregates with their dimensions, averages and variances
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from pipeline_platform.core.names import KEPT
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.warehouse.stream_views import View, stream_views

_TIME = sa.TIMESTAMP(timezone=True)
_KEPT: dict[str, tuple[sa.types.TypeEngine[Any], str]] = {
    "count": (sa.BigInteger(), "events that have it"),
    "sum": (sa.Double(), "their sum"),
    "min": (sa.Double(), "the smallest"),
    "max": (sa.Double(), "the largest"),
    "m2": (sa.Double(), "the sum of squared distances from the mean"),
    "first": (sa.Double(), "the earliest"),
    "first_ts": (_TIME, "when that was"),
    "last": (sa.Double(), "the latest"),
    "last_ts": (_TIME, "when that was"),
}
# What the minutes keep of every measure: suffix, type, comment.
MEASURE_COLUMNS = tuple((suffix, *_KEPT[suffix]) for suffix in KEPT)


@dataclass(frozen=True)
class StreamTables:
    """The SQLAlchemy tables of one stream and its views."""

    series: sa.Table
    events: sa.Table
    minutes: sa.Table
    hours: sa.Table
    days: sa.Table
    event_ids: sa.Table | None
    views: tuple[View, View, View, View]

    @property
    def tables(self) -> tuple[sa.Table, ...]:
        """All of the stream's tables."""
        always = (self.series, self.events, self.minutes, self.hours, self.days)
        return always if self.event_ids is None else (*always, self.event_ids)


def stream_tables(spec: StreamSpec, metadata: sa.MetaData | None = None) -> StreamTables:
    """The tables of `spec`, in `metadata` or one of their own."""
    metadata = metadata if metadata is not None else sa.MetaData()
    name = spec.name
    series = sa.Table(
        f"{name}_series",
        metadata,
        sa.Column("series_id", sa.Integer, sa.Identity(always=True), primary_key=True, comment="The series' number."),
        *(
            sa.Column(
                sa.quoted_name(dimension, True),
                sa.Text,
                nullable=False,
                server_default=sa.text("''") if options.default is None else options.default,
                comment=options.description or None,
            )
            for dimension, options in spec.dimensions.items()
        ),
        comment=f"The combinations of dimensions that {name} has seen.",
    )
    events = sa.Table(
        f"{name}_events",
        metadata,
        sa.Column("ts", _TIME, nullable=False, comment="When it happened."),
        sa.Column("received_at", _TIME, nullable=False, comment="When the request was made durable."),
        sa.Column("batch_id", sa.BigInteger, nullable=False, comment="assets.id of the batch that loaded it."),
        sa.Column("series_id", sa.Integer, nullable=False, comment=f"{name}_series.series_id."),
        *(
            sa.Column(sa.quoted_name(measure, True), sa.Double, comment=options.description or None)
            for measure, options in spec.measures.items()
        ),
        comment=f"Facts of {name}, a row an event; partitioned by UTC day of ts.",
        postgresql_partition_by="RANGE (ts)",
    )
    minutes = _aggregates(spec, metadata, "minute", "kept by the load transaction")
    hours = _aggregates(spec, metadata, "hour", "rolled up from the minutes; late events correct them")
    days = _aggregates(spec, metadata, "day", "rolled up from the hours; late events correct them")
    event_ids = event_ids_table(spec, metadata) if spec.unique_event_id else None
    return StreamTables(series, events, minutes, hours, days, event_ids, stream_views(spec))


def _aggregates(spec: StreamSpec, metadata: sa.MetaData, unit: str, how: str) -> sa.Table:
    """The aggregates by series and minute, hour or day (UTC)."""
    name = f"{spec.name}_{unit}s"
    return sa.Table(
        name,
        metadata,
        sa.Column(
            "series_id", sa.Integer, primary_key=True, autoincrement=False, comment=f"{spec.name}_series.series_id."
        ),
        sa.Column("window_start", _TIME, primary_key=True, comment=f"The {unit}, from here to just before the next."),
        sa.Column("events", sa.BigInteger, nullable=False, comment="Events in the window."),
        *(
            sa.Column(
                f"{measure}_{suffix}",
                kind,
                nullable=suffix not in ("count", "sum", "m2"),
                server_default=sa.text("0") if suffix in ("count", "sum", "m2") else None,
                comment=f"{measure}: {comment}.",
            )
            for measure in spec.measures
            for suffix, kind, comment in MEASURE_COLUMNS
        ),
        sa.Index(f"{name}_by_time", "window_start"),
        comment=f"Aggregates of {spec.name} by {unit}, {how}.",
    )


def event_ids_table(spec: StreamSpec, metadata: sa.MetaData | None = None) -> sa.Table:
    """The table of the ids that the stream's events have taken."""
    name = f"{spec.name}_event_ids"
    return sa.Table(
        name,
        metadata if metadata is not None else sa.MetaData(),
        # Compared byte by byte: that is quicker, and the order in which the load takes them.
        sa.Column("event_id", sa.Text(collation="C"), primary_key=True, comment="The id."),
        sa.Column(
            "received_at", _TIME, nullable=False, comment="When the event that has it was received, or replayed."
        ),
        sa.Column("batch_id", sa.BigInteger, nullable=False, comment="assets.id of the batch that took it."),
        # Grows at its end, as an index on received_at would not: it costs a third of that.
        sa.Index(f"{name}_by_batch", "batch_id"),
        comment=f"The event ids of {spec.name} that are taken, a row each; purged after unique_for.",
    )


def sql_type(column: sa.Column[Any]) -> str:
    """A column's type as PostgreSQL calls it, with the short name for times."""
    name = column.type.compile(postgresql.dialect())  # type: ignore[no-untyped-call]
    return name.lower().replace("timestamp with time zone", "timestamptz").removesuffix(' collate "c"')


def unique_index(spec: StreamSpec) -> str:
    """The name of the index that keeps series unique; it is made anew when a dimension is added."""
    return f"{spec.name}_series_key"


def quoted(name: str) -> str:
    """A field's name as SQL; names match [a-z][a-z0-9_]*, so quoting is only for reserved words."""
    return f'"{name}"'
