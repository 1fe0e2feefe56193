"""The assets of prices in process, against the local price server: what they load, say and leave when they fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from pipeline_platform.core.prices import Interval
from pipeline_platform.core.time_ranges import of_days
from pipeline_platform.local.price_server.faults import Fault
from pipeline_platform.local.price_server.server import PriceServer
from pipeline_platform.orchestration.ingest import attempts
from pipeline_platform.orchestration.partition_ranges import RANGE_END, RANGE_START
from pipeline_platform.orchestration.prices.checks import DELAY
from pipeline_platform.warehouse import etl_ledger
from pipeline_platform_tests.integration.price_stack import PriceStack, price_stack
from pipeline_platform_tests.unit.examples import EDITED_CURSORS

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]
UNKNOWN = {"code": -1121, "msg": "Invalid symbol."}
FEBRUARY = (date(2024, 2, 27), date(2024, 3, 2))  # over a leap day


@pytest.fixture
def stack(warehouse_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PriceStack]:
    """The shipped definitions with the price server as the source demo."""
    with price_stack(warehouse_url, redis_url, monkeypatch, PriceServer()) as stack:
        yield stack


def test_candles_are_the_truth_of_the_source(stack: PriceStack) -> None:
    assert stack.candles(*FEBRUARY).success
    stored = stack.rows(
        "select open_time, open, high, low, close, volume, closed from prices_candles "
        "where symbol = 'BTCUSDT' and \"interval\" = '1h' order by 1"
    )
    truth = stack.server.truth.candles(
        "demo", "BTCUSDT", "BTC", Interval.HOUR, of_days(*FEBRUARY), stack.server.clock()
    )
    assert stored == [(c.open_time, c.open, c.high, c.low, c.close, c.volume, True) for c in truth]
    assert len(stored) == 24 * 5


def test_a_rerun_touches_no_row_and_only_gaps_asks_for_nothing(stack: PriceStack) -> None:
    assert stack.candles(*FEBRUARY).success
    versions = stack.rows("select open_time, xmin::text, ctid::text from price_candles order by 1")
    assert stack.candles(*FEBRUARY).success
    assert stack.rows("select open_time, xmin::text, ctid::text from price_candles order by 1") == versions
    before = stack.server.requests.total()
    assert stack.candles(*FEBRUARY, only_gaps=True).success
    assert stack.server.requests.total() == before


def test_only_gaps_fetches_what_is_missing(stack: PriceStack) -> None:
    assert stack.candles(*FEBRUARY).success
    with stack.engine.begin() as connection:
        connection.execute(sa.text("delete from price_candles where open_time::date = '2024-02-29'"))
    before = stack.server.requests.total()
    assert stack.candles(*FEBRUARY, only_gaps=True).success
    assert stack.server.requests.total() == before + 2  # an hour's and a day's request
    assert stack.rows("select count(*) from price_candles") == [(24 * 5 + 5,)]


def test_a_run_leaves_a_row_of_each_partition_in_the_ledger(stack: PriceStack) -> None:
    result = stack.candles(*FEBRUARY)
    query = """
        select kind, asset_key, partition_key, state, attempt, run_ids, entries, events_read, events_loaded, job_name
        from assets order by partition_key
    """
    days = ["2024-02-27", "2024-02-28", "2024-02-29", "2024-03-01", "2024-03-02"]
    runs = [result.run_id]
    assert stack.rows(query) == [
        ("etl", "prices/candles", f"{day}|demo:BTCUSDT", "loaded", 1, runs, requests, 25, 25, "prices_candles")
        for day, requests in zip(days, (2, 0, 0, 0, 0), strict=True)
    ]
    spans = stack.rows("select first_ts::text, last_ts::text from assets where partition_key like '2024-02-29%'")
    assert spans == [("2024-02-29 00:00:00+00", "2024-02-29 23:00:00+00")]


def test_a_transient_failure_is_tried_again_in_the_run(stack: PriceStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "OP_RETRIES", (0.01, 0.01, 0.01))
    stack.server.faults.set("/api/v3/klines", Fault(status=503, times=2))
    result = stack.candles(*FEBRUARY)
    assert result.success
    (row,) = stack.rows(
        "select distinct state, attempt, op_retries, error_kind, error_class, jsonb_array_length(failures) from assets"
    )
    assert row == ("loaded", 1, 2, "transient", "SourceUnavailableError", 2)
    assert stack.rows("select count(*) from price_candles where \"interval\" = '1h'") == [(120,)]


def test_what_failed_is_taken_up_by_whatever_run_is_for_it_next(stack: PriceStack) -> None:
    stack.server.faults.set("/api/v3/klines", Fault(status=400, body=UNKNOWN))
    assert not stack.candles(*FEBRUARY).success
    assert stack.rows(
        "select state, attempt, error_kind, error_class, op_retries, count(*) from assets group by 1, 2, 3, 4, 5"
    ) == [("failed", 1, "permanent", "UnknownSymbolError", 0, 5)]
    ((kind, raised, body),) = stack.rows("select kind, resolved_at is null, body from alerts")
    assert (kind, raised) == ("asset_failing", True)
    assert "5 partitions, 2024-02-27|demo:BTCUSDT to 2024-03-02|demo:BTCUSDT" in body
    stack.server.faults.clear()
    first, last = FEBRUARY
    assert stack.candles(first - timedelta(days=1), last - timedelta(days=1)).success
    attempts_of = "select partition_key, state, attempt, cardinality(run_ids) from assets order by 1"
    assert [(key[:10], *rest) for key, *rest in stack.rows(attempts_of)] == [
        ("2024-02-26", "loaded", 1, 1),
        *((f"2024-{day}", "loaded", 2, 2) for day in ("02-27", "02-28", "02-29", "03-01")),
        ("2024-03-02", "failed", 1, 1),
    ]
    assert stack.rows("select resolved_at is null from alerts") == [(True,)]  # one of them fails still
    assert stack.candles(last, last).success
    assert stack.rows("select count(*) from assets_failed") == [(0,)]
    assert stack.rows("select resolved_at is null from alerts") == [(False,)]


def test_every_partition_tells_its_rows_its_gaps_and_its_day(stack: PriceStack) -> None:
    result = stack.candles(*FEBRUARY)
    told = {
        event.partition: {name: value.value for name, value in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
    }
    assert len(told) == 5
    leap = told["2024-02-29|demo:BTCUSDT"]
    assert (leap["dagster/partition_row_count"], leap["missing"], len(str(leap["day"]))) == (24, 0, 24)
    assert (leap["run: candles read"], leap["run: requests"], leap["run: partitions"]) == (125, 2, 5)


ODD: list[Callable[[list[Any]], list[Any]]] = [
    lambda row: [row[0], row[1], "0.1", *row[3:]],  # its high is below its low
    lambda row: [row[0] + 494_789, *row[1:]],  # off the grid
    lambda row: [*row[:4], None, *row[5:]],
    lambda row: row[:11],
    lambda row: row,
]


def test_candles_at_odds_are_counted_and_named_and_the_others_are_stored(stack: PriceStack) -> None:
    def odd(rows: list[list[Any]]) -> list[list[Any]]:
        """Each day's candle of five o'clock, in another way."""
        hours = [row[0] // 3_600_000 for row in rows]
        return [ODD[hour // 24 % 5](row) if hour % 24 == 5 else row for hour, row in zip(hours, rows, strict=True)]

    stack.server.faults.set("/api/v3/klines", Fault(change=odd))
    result = stack.candles(*FEBRUARY)
    assert result.success
    query = "select events_read, events_loaded, events_rejected, count(*) from assets group by 1, 2, 3 order by 3"
    assert stack.rows(query) == [(25, 25, 0, 1), (25, 24, 1, 4)]
    assert stack.rows("select count(*) from price_candles where extract(hour from open_time) = 5") == [(1,)]
    [told, *_] = result.get_asset_materialization_events()
    assert told.materialization.metadata["run: rejected"].value == 4
    faults = str(told.materialization.metadata["run: faults"].value)
    for words in ("is below low", "is not the start of a 1h candle", "should be a number", "should be a list of 12"):
        assert words in faults


def test_quotes_are_the_latest_and_keep_their_history(stack: PriceStack) -> None:
    assert stack.run("prices_quotes").success
    assert stack.run("prices_quotes").success
    latest = stack.rows("select symbol, price from prices_quotes order by 1")
    assert [symbol for symbol, _ in latest] == ["BTCUSDT", "ETHUSDT", "EURUSDT", "GBPUSDT", "SOLUSDT"]
    assert stack.rows("select count(*) from prices_quotes_history") == [(10,)]
    assert stack.rows("select state, entries, events_loaded from assets") == [("loaded", 1, 5)] * 2


def test_a_symbol_that_is_not_known_loses_no_other_quotes_and_is_named(stack: PriceStack) -> None:
    stack.server.unknown.add("GBPUSDT")
    result = stack.run("prices_quotes")
    assert not result.success
    assert stack.rows("select symbol from prices_quotes order by 1") == [
        ("BTCUSDT",),
        ("ETHUSDT",),
        ("EURUSDT",),
        ("SOLUSDT",),
    ]
    [(error, message)] = stack.rows("select error_class, error_message from assets")
    assert error == "SourceRefusedError"
    assert "It does not know GBPUSDT: correct it in prices.yaml." in message


def test_the_price_of_a_pair_that_nobody_trades_any_more_is_not_fresh(stack: PriceStack) -> None:
    last = datetime.now(UTC).replace(microsecond=0) - timedelta(days=3)
    stack.server.last_trades["SOLUSDT"] = last
    assert stack.run("prices_quotes").success
    assert stack.rows("select symbol, at from prices_quotes where at < now() - interval '1 day'") == [("SOLUSDT", last)]
    assert checks(stack)["fresh"] is False


def test_days_are_computed_once_and_say_where_candles_are_missing(stack: PriceStack) -> None:
    assert stack.candles(*FEBRUARY).success
    with stack.engine.begin() as connection:
        connection.execute(
            sa.text("delete from price_candles where open_time = '2024-02-29 07:00Z' and \"interval\" = '1h'")
        )
    first, last = map(str, FEBRUARY)
    assert stack.run("prices_days", first, last).success
    query = "select day, open, high, low, close, volume, price, candles, gap from prices_daily where symbol = 'BTC-USD'"
    days = stack.rows(f"{query} order by day")
    truth = stack.server.truth.candles("demo", "BTCUSDT", "BTC", Interval.DAY, of_days(*FEBRUARY), stack.server.clock())
    assert days == [
        (c.open_time.date(), c.open, c.high, c.low, c.close, c.volume, c.close, 23 if leap else 24, leap)
        for c in truth
        for leap in [c.open_time.date() == date(2024, 2, 29)]
    ]
    versions = stack.rows("select symbol, day, xmin::text from price_days order by 1, 2")
    assert stack.run("prices_days", first, last).success
    assert stack.rows("select symbol, day, xmin::text from price_days order by 1, 2") == versions
    other = stack.rows("select gap, price, sources from prices_daily where symbol = 'ETH-USD' and day = '2024-02-29'")
    assert other == [(True, None, [])]  # wanted, and not there


def test_the_checks_of_prices_pass_on_what_is_there_and_fail_on_what_is_not(stack: PriceStack) -> None:
    assert checks(stack)["no_gaps"] is False
    today = stack.server.clock().date()
    for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "EURUSDT", "GBPUSDT"):
        assert stack.candles(today - timedelta(days=7), today, symbol=symbol).success
    assert checks(stack) == dict.fromkeys(
        ("no_gaps", "candles_are_possible", "sources_agree", "fresh", "every_order_has_a_price"), True
    )
    with stack.engine.begin() as connection:
        connection.execute(sa.text("update price_candles set high = low - 1 where symbol = 'ETHUSDT'"))
    assert checks(stack)["candles_are_possible"] is False


def checks(stack: PriceStack) -> dict[str, bool]:
    """The outcome of every check of prices."""
    result = stack.run("check_prices")
    assert result.success
    return {each.check_name: each.passed for each in result.get_asset_check_evaluations()}


def tick(stack: PriceStack, name: str, cursor: str | None = None) -> tuple[list[dg.RunRequest], str | None]:
    """What a sensor asks for, and its cursor."""
    sensor = stack.repository.get_sensor_def(name)
    with dg.build_sensor_context(stack.instance, cursor=cursor, resources=stack.definitions.resources) as context:
        found = sensor.evaluate_tick(context)
    return list(found.run_requests or []), found.cursor


def test_what_a_downtime_left_out_is_asked_for_once_in_one_run(stack: PriceStack) -> None:
    now = datetime.now(UTC)
    first, last = now - timedelta(days=7) + timedelta(hours=1), now - DELAY - timedelta(hours=1)  # whole hours between
    days = (last.date() - first.date()).days + 1
    requests, cursor = tick(stack, "prices_catch_up")
    assert all(tick(stack, "prices_catch_up", edited)[0] for edited in EDITED_CURSORS)
    assert len(requests) == 1  # five instruments, eight days; seven where no whole hour of the eighth is in the week
    again, same = tick(stack, "prices_catch_up", cursor)
    assert again == []  # it is on its way; the source may not have it
    result = stack.repository.get_job("prices_candles").execute_in_process(
        run_config=requests[0].run_config, tags=dict(requests[0].tags), instance=stack.instance
    )
    assert result.success
    assert stack.rows("select count(distinct symbol), count(distinct open_time::date) from prices_candles") == [
        (5, days)
    ]
    assert tick(stack, "prices_catch_up", same)[0] == []


def test_days_follow_the_candles_that_were_loaded(stack: PriceStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etl_ledger, "SETTLING", timedelta())
    assert tick(stack, "prices_days_follow")[0] == []
    assert stack.candles(*FEBRUARY).success
    requests, cursor = tick(stack, "prices_days_follow")
    assert all(tick(stack, "prices_days_follow", edited)[0] for edited in EDITED_CURSORS)
    assert [(each.tags[RANGE_START], each.tags[RANGE_END]) for each in requests] == [("2024-02-27", "2024-03-02")]
    assert tick(stack, "prices_days_follow", cursor)[0] == []


def test_the_first_quotes_do_not_wait_for_the_schedule(stack: PriceStack) -> None:
    requests, cursor = tick(stack, "prices_first_quotes")
    assert len(requests) == 1
    assert tick(stack, "prices_first_quotes", cursor)[0] == []
    for edited in EDITED_CURSORS:
        assert len(tick(stack, "prices_first_quotes", edited)[0]) == 1
    known = json.loads(cursor or "")
    assert tick(stack, "prices_first_quotes", json.dumps(known[1:]))[0] != []  # one instrument has come


def test_a_tick_does_nothing_while_a_run_of_the_job_is_in_progress(stack: PriceStack) -> None:
    schedule = stack.repository.get_schedule_def("prices_quotes_schedule")
    at = datetime(2026, 3, 29, 2, 0, tzinfo=UTC)

    with dg.instance_for_test() as instance:

        def requests() -> int:
            with dg.build_schedule_context(instance, scheduled_execution_time=at) as context:
                return len(schedule.evaluate_tick(context).run_requests or [])

        assert requests() == 1
        run = instance.create_run_for_job(stack.repository.get_job("prices_quotes"))
        assert requests() == 0
        instance.report_run_canceled(run)
        assert requests() == 1


def test_an_instrument_that_fails_does_not_keep_the_others_from_being_fetched(stack: PriceStack) -> None:
    stack.server.faults.set("/api/v3/klines", Fault(status=400, body=UNKNOWN, times=1))  # the first of five
    result = stack.run("prices_candles", "2024-02-29|demo:BTCUSDT", "2024-02-29|demo:GBPUSDT")
    assert not result.success
    assert stack.rows("select count(distinct symbol) from price_candles") == [(4,)]
    failed, *loaded = stack.rows("select state, error_kind, partition_key, error_message from assets order by state")
    assert failed[:3] == ("failed", "permanent", "2024-02-29|demo:BTCUSDT")
    assert [row[:2] for row in loaded] == [("loaded", None)] * 4
    message = failed[3]
    assert message.startswith("prices__candles: BTCUSDT: ")
