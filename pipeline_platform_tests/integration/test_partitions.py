"""Daily partitions: half-open UTC days, made on demand, indexed when closed, dropped by retention."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa

from pipeline_platform.core.names import LONGEST_STREAM
from pipeline_platform.core.streams import StreamSpec, parse_spec
from pipeline_platform.core.windows import to_datetime
from pipeline_platform.errors import PermanentError, TransientError
from pipeline_platform.warehouse.engine import connect, warehouse_errors
from pipeline_platform.warehouse.load import load
from pipeline_platform.warehouse.migrate import migrate
from pipeline_platform.warehouse.partitions import close_days, drop_expired, ensure_partitions, partitions
from pipeline_platform_tests.integration.batches import (
    NOW_MS,
    TELEMETRY,
    WIDE,
    entry,
    event,
    load_entries,
    minutes_agree,
    plan,
    ready,
    rows,
    wide,
)

DAY = 86_400_000
MIDNIGHT = NOW_MS - NOW_MS % DAY
NOW = to_datetime(NOW_MS * 1000)


def test_midnight_belongs_to_the_day_that_it_begins(engine: sa.Engine) -> None:
    times = ["2025-11-20T23:59:59.999999Z", "2025-11-21T00:00:00Z", "2025-11-21T00:00:00.000001Z"]
    load_entries(engine, TELEMETRY, entry(0, *(event(ts=ts) for ts in times)))
    with engine.connect() as connection:
        assert list(partitions(connection, "telemetry")) == [date(2025, 11, 20), date(2025, 11, 21)]
    assert rows(engine, "select count(*) from telemetry_events_20251120") == [(1,)]
    assert rows(engine, "select count(*) from telemetry_events_20251121") == [(2,)]
    assert [row[0].isoformat() for row in rows(engine, "select window_start from telemetry_1m order by 1")] == [
        "2025-11-20T23:59:00+00:00",
        "2025-11-21T00:00:00+00:00",
    ]
    assert minutes_agree(engine, TELEMETRY).holds


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/St_Johns", "Europe/London", "Pacific/Kiritimati"])
def test_a_session_in_another_time_zone_changes_nothing(
    own_engine: sa.Engine, own_warehouse_url: str, zone: str
) -> None:
    with own_engine.begin() as connection:  # the libpq URL of psql users and BI tools has its own zone
        connection.execute(
            sa.text(f"alter database \"{sa.make_url(own_warehouse_url).database}\" set timezone = '{zone}'")
        )
    url = sa.make_url(own_warehouse_url).set(drivername="postgresql+psycopg")
    elsewhere = sa.create_engine(url, poolclass=sa.pool.NullPool)
    assert rows(elsewhere, "show timezone") == [(zone,)]
    # The hours around both of Europe's changes to and from summer time, and midnight in UTC.
    times = [
        datetime(2025, month, day, hour, 30, tzinfo=UTC) for month, day in ((3, 30), (10, 26)) for hour in (0, 1, 2, 23)
    ]
    load_entries(elsewhere, TELEMETRY, entry(0, *(event(ts=time.isoformat()) for time in times)))
    assert rows(elsewhere, "select count(*) from telemetry_events_20250330") == [(4,)]
    assert rows(elsewhere, "select count(*) from telemetry_events_20251026") == [(4,)]
    starts = rows(elsewhere, "select window_start from telemetry_1m order by 1")
    assert [row[0].astimezone(UTC) for row in starts] == times
    assert minutes_agree(elsewhere, TELEMETRY).holds
    with elsewhere.connect() as connection:
        assert len(partitions(connection, "telemetry")) == 2
    dropped = drop_expired(elsewhere, TELEMETRY, datetime(2026, 5, 5, tzinfo=UTC) + timedelta(days=1))
    assert dropped == ["telemetry_events_20250330"]
    assert rows(elsewhere, "select count(*) from telemetry_1m") == [(4,)]


@pytest.mark.parametrize(
    "moment",
    [
        "1931-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "1970-01-01T00:00:00Z",
        "1999-12-31T23:59:59.999999Z",
        "2000-01-01T00:00:00Z",
        "2110-02-28T12:34:56.789012Z",
    ],
)
def test_times_on_either_side_of_both_epochs_are_kept_to_the_microsecond(engine: sa.Engine, moment: str) -> None:
    load_entries(engine, WIDE, entry(0, wide(ts=moment, a=1.0)))
    ((ts, window, first),) = rows(
        engine, "select ts, date_trunc('minute', ts), a_first_ts from wide_events, wide_minutes"
    )
    assert ts == first == datetime.fromisoformat(moment)
    assert rows(engine, "select window_start from wide_1m") == [(window,)]
    with engine.connect() as connection:
        assert list(partitions(connection, "wide")) == [ts.date()]
    assert minutes_agree(engine, WIDE).holds


def test_two_loads_that_need_the_same_new_days_make_each_once(engine: sa.Engine) -> None:
    days = [date(2025, 1, 1) + timedelta(days=number) for number in range(8)]
    start = threading.Barrier(4)

    def make(_: int) -> int:
        with engine.connect() as connection:
            start.wait()
            return ensure_partitions(connection, "telemetry", days)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(make, range(4))) == len(days)
    with engine.connect() as connection:
        assert list(partitions(connection, "telemetry")) == days


def test_a_new_partition_does_not_wait_for_a_load_or_a_reader_and_does_not_stop_them(engine: sa.Engine) -> None:
    load_entries(engine, TELEMETRY, entry(0, event()))
    with engine.connect() as busy:
        busy.execute(sa.text("select * from telemetry"))
        busy.execute(sa.text("insert into telemetry_events select * from telemetry_events"))
        with engine.connect() as connection:
            connection.execute(sa.text("set lock_timeout = '1s'"))
            connection.commit()
            assert ensure_partitions(connection, "telemetry", [date(2025, 1, 1)]) == 1
            connection.invalidate()


def test_only_a_stream_gets_partitions(engine: sa.Engine) -> None:
    with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError, match="there is no stream dead_letters"):
        ensure_partitions(connection, "dead_letters", [date(2025, 1, 1)])


@pytest.mark.parametrize("day", ["date '1899-12-31'", "current_date + 36526", "'infinity'", "'-infinity'", "null"])
def test_a_day_that_no_event_has_gets_no_partition(engine: sa.Engine, day: str) -> None:
    with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError, match="no event has the day"):
        connection.scalar(sa.text(f"select pipeline_ensure_partition('telemetry', {day})"))
    with engine.connect() as connection:
        assert list(partitions(connection, "telemetry")) == []


@pytest.mark.parametrize("day", ["date '1900-01-01'", "current_date + 36525"])
def test_the_first_and_the_last_day_of_events_get_one(engine: sa.Engine, day: str) -> None:
    with engine.begin() as connection:
        assert connection.scalar(sa.text(f"select pipeline_ensure_partition('telemetry', {day})")) is True


def test_a_day_gets_its_index_once_it_is_over_and_late_events_still_load(engine: sa.Engine) -> None:
    load_entries(engine, TELEMETRY, entry(0, event(ts=MIDNIGHT - 1), event(ts=MIDNIGHT)))
    # Late events may come for an hour after midnight: the day before stays open until then.
    assert close_days(engine, TELEMETRY, to_datetime((MIDNIGHT + 3_599_999) * 1000)) == []
    assert close_days(engine, TELEMETRY, to_datetime((MIDNIGHT + 3_600_000) * 1000)) == ["telemetry_events_20251120"]
    assert close_days(engine, TELEMETRY, to_datetime((MIDNIGHT + 3_600_000) * 1000)) == []
    assert rows(engine, "select tablename from pg_indexes where indexdef like '%brin%'") == [
        ("telemetry_events_20251120",)
    ]
    load_entries(engine, TELEMETRY, entry(1, event(ts=MIDNIGHT - 2)))
    assert rows(engine, "select count(*) from telemetry where ts < '2025-11-21 00:00+00'") == [(2,)]


def test_the_longest_stream_name_has_partitions_and_indexes_of_its_own(own_engine: sa.Engine) -> None:
    spec = parse_spec(f"name: {'s' * LONGEST_STREAM}\ndimensions: [a]\nmeasures: [b]\n", "long.yaml")
    migrate(own_engine, [spec])
    with own_engine.connect() as connection:
        ensure_partitions(connection, spec.name, [date(2025, 1, 1), date(2025, 1, 2)])
    assert len(close_days(own_engine, spec, NOW)) == 2
    assert close_days(own_engine, spec, NOW) == []


def test_retention_drops_whole_days_and_their_aggregates_and_keeps_what_may_still_be_accepted(
    engine: sa.Engine,
) -> None:
    spec = _kept_for(30)
    moments = [NOW - timedelta(days=back) for back in (0, 29, 30, 31, 32, 33)]
    load_entries(engine, TELEMETRY, entry(0, *(event(ts=moment.isoformat()) for moment in moments)))
    assert drop_expired(engine, spec, NOW) == ["telemetry_events_20251019", "telemetry_events_20251020"]
    assert rows(engine, "select min(ts), count(*) from telemetry") == [(moments[3], 4)]
    assert rows(engine, "select min(window_start), count(*) from telemetry_1m") == [(moments[3], 4)]
    assert minutes_agree(engine, TELEMETRY).holds
    assert drop_expired(engine, spec, NOW) == []


def test_what_was_dropped_can_be_loaded_again_by_a_batch_that_had_been_accepted_in_time(engine: sa.Engine) -> None:
    request = entry(0, event(ts=NOW_MS - 30 * DAY))
    batch = ready(TELEMETRY, plan(engine, TELEMETRY, request), (request,))
    assert drop_expired(engine, _kept_for(1), NOW) == []
    assert load(engine, TELEMETRY, batch).fresh
    assert drop_expired(engine, _kept_for(1), NOW) == ["telemetry_events_20251022"]


def test_retention_gives_way_to_a_long_query(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    load_entries(engine, TELEMETRY, entry(0, event(ts=NOW_MS - 30 * DAY)))
    monkeypatch.setattr("pipeline_platform.warehouse.partitions.LOCK_TIMEOUT", "50ms")
    with engine.connect() as reader:
        reader.execute(sa.text("select * from telemetry"))
        with pytest.raises(TransientError, match="55P03"):
            drop_expired(engine, _kept_for(1), NOW)
    assert rows(engine, "select count(*) from telemetry_1m") == [(1,)]
    assert drop_expired(engine, _kept_for(1), NOW) == ["telemetry_events_20251022"]


def test_the_loaders_sessions_are_in_utc(warehouse_url: str) -> None:
    engine = connect(warehouse_url)
    assert rows(engine, "show timezone") == [("UTC",)]
    engine.dispose()


def _kept_for(days: int) -> StreamSpec:
    return TELEMETRY.model_copy(update={"policies": TELEMETRY.policies.model_copy(update={"retention_days": days})})


def test_a_full_table_of_locks_is_for_somebody_to_act_on(engine: sa.Engine) -> None:
    def take() -> None:
        with warehouse_errors(), engine.begin() as connection:
            connection.execute(sa.text("select count(pg_advisory_xact_lock(n)) from generate_series(1, 1000000) n"))

    with pytest.raises(PermanentError, match=r'out of shared memory.*"max_locks_per_transaction"') as told:
        take()
    assert type(told.value) is PermanentError
    with engine.connect() as connection:
        assert connection.scalar(sa.text("show max_locks_per_transaction")) == "512"
