"""The gauges that come from Dagster's own database, by plain SQL: ticks, heartbeats, and how much history there is.

Read here rather than served by the daemon: it works with either daemon, all figures are at one address, and a daemon
that hangs cannot hide that its heartbeats are old. The queries are bounded whatever the history holds. Times are from
Dagster's JSON, in epoch seconds: its timestamp columns have no zone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from pipeline_platform.gateway.gauges import Gauges, show
from pipeline_platform.gateway.metrics import Metrics
from pipeline_platform.warehouse.engine import READING, connect

STATEMENT_MILLISECONDS = 2_000
NEWEST_TICKS = 2_000  # the most that are looked at: at 33 a second, the last minute's

_HEARTBEATS = sa.text("select daemon_type, body from daemon_heartbeats")
# By the primary key: no index begins with the time. Only the body says when a tick ended. It is cut as text: as jsonb a
# NUL in it, which Dagster writes as \u0000, would fail the query, and regular expressions take twenty times as long.
# What is looked for is in no string, where quotes are escaped; the tick's own "timestamp" is behind any of its run
# requests.
_TICKS = sa.text(
    rf"""
    select sensor, status, count(*) as ticks, sum(ended - began) as seconds, max(ended - began) as longest
    from (
        select status,
            split_part(split_part(tick_body, '"job_name"\: "', 2), '"', 1) as sensor,
            cast(split_part(split_part(tick_body, '"timestamp"\: ', -1), ',', 1) as float8) as began,
            cast(nullif(split_part(split_part(tick_body, '"end_timestamp"\: ', 2), ',', 1), 'null') as float8) as ended
        from job_ticks
        where id > (select max(id) from job_ticks) - {NEWEST_TICKS}
            and type = 'SENSOR' and status in ('SUCCESS', 'SKIPPED', 'FAILURE')
    ) ticks
    where ended > extract(epoch from now()) - 60
    group by sensor, status
    """
)
_SIZE = sa.text("select pg_total_relation_size('event_logs')")


class DagsterGauges(Gauges):
    """A database that is away takes them off the page and sets `pipeline_dagster_up` to 0."""

    def __init__(self, url: str, metrics: Metrics, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock=clock)
        settings = {**READING, "statement_timeout": str(STATEMENT_MILLISECONDS)}
        self._engine = connect(url, pool_size=1, application="pipeline-gateway-metrics", settings=settings)
        self._metrics = metrics
        metrics.register_dagster()

    def close(self) -> None:
        """Closes its connection."""
        self._engine.dispose()

    def _read(self) -> None:
        ticks: list[Any] = []
        beats: dict[tuple[str, ...], float] = {}
        size = math.nan
        try:
            with self._engine.connect() as connection:
                beats = {(row.daemon_type,): _beat(row.body) for row in connection.execute(_HEARTBEATS)}
                ticks = list(connection.execute(_TICKS))
                size = float(connection.scalar(_SIZE) or math.nan)
            self._metrics.dagster_up.set(1)
        except sa.exc.SQLAlchemyError:  # away, too slow, or Dagster has not made its tables yet
            ticks, beats, size = [], {}, math.nan
            self._metrics.dagster_up.set(0)
        show(self._metrics.daemon_heartbeat, beats)
        self._metrics.event_log_bytes.set(size)
        self._show_ticks(ticks)

    def _show_ticks(self, ticks: list[Any]) -> None:
        rates: dict[tuple[str, ...], float] = {}
        counts: dict[tuple[str, ...], int] = {}
        seconds: dict[tuple[str, ...], float] = {}
        longest: dict[tuple[str, ...], float] = {}
        for row in ticks:
            sensor = (row.sensor,)
            rates[row.sensor, row.status.lower()] = row.ticks / 60
            counts[sensor] = counts.get(sensor, 0) + row.ticks
            seconds[sensor] = seconds.get(sensor, 0.0) + row.seconds
            longest[sensor] = max(longest.get(sensor, 0.0), row.longest)
        show(self._metrics.ticks, rates)
        show(self._metrics.tick_average, {labels: seconds[labels] / count for labels, count in counts.items()})
        show(self._metrics.tick_longest, longest)


def _beat(body: str) -> float:
    """The epoch seconds of a heartbeat."""
    return float(json.loads(body)["timestamp"])
