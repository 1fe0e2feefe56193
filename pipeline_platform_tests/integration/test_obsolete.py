"""Failed rows of what no longer exists are closed, with their alert; what can be tried again stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
import sqlalchemy as sa

from pipeline_platform.core.failures import Failure, FailureKind
from pipeline_platform.errors import PermanentError
from pipeline_platform.orchestration.definitions import definitions
from pipeline_platform.orchestration.failures.obsolete import close_gone, why_gone
from pipeline_platform.orchestration.partition_ranges import range_tags, range_text
from pipeline_platform.orchestration.prices.planned import idle_assets
from pipeline_platform.orchestration.replay.sensors import retries
from pipeline_platform.orchestration.resources import Warehouse
from pipeline_platform.sources.catalog import load_plan
from pipeline_platform.sources.plan import PricePlan
from pipeline_platform.warehouse.etl_ledger import EtlLedger
from pipeline_platform.warehouse.failed_runs import FailedRun, record_failed_runs
from pipeline_platform.warehouse.obsolete import FailedPartition, close_instrument
from pipeline_platform.warehouse.replays import retry_asset
from pipeline_platform_tests.integration.batches import rows

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]
TODAY = datetime.now(UTC)
GONE, THERE = "2026-11-20|demo:BTCUSDX", "2026-11-20|demo:BTCUSDT"
CANDLES = "prices/candles"
SOON = (TODAY + timedelta(days=3)).date()


@pytest.fixture(scope="module")
def repository() -> Iterator[dg.RepositoryDefinition]:
    """The shipped definitions with the source demo, whose candles begin in 2020; no server is asked."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DATABASE_URL", "postgresql://127.0.0.1:9/none")
        environment.setenv("REDIS_URL", "redis://127.0.0.1:9/0")
        environment.setenv("PIPELINE_DEMO_PRICES_URL", "http://127.0.0.1:9")
        yield definitions().get_repository_def()


@pytest.mark.parametrize(
    ("asset", "partition", "words"),
    [
        pytest.param(CANDLES, GONE, "demo:BTCUSDX is not among the enabled instruments", id="a mistyped symbol"),
        pytest.param(CANDLES, "2026-11-20|demo:BTC-USDT", "demo:BTC-USDT is not among", id="an instrument renamed"),
        pytest.param(CANDLES, "2026-11-20|kraken:XBTUSD", "kraken:XBTUSD is not among", id="a source disabled"),
        pytest.param(CANDLES, "2026-11-20|gone:BTCUSDT", "gone:BTCUSDT is not among", id="a source removed"),
        pytest.param(CANDLES, "2019-12-31|demo:BTCUSDT", "2019-12-31 is before the first", id="before the start"),
        pytest.param("prices/daily", "2019-12-31", "2019-12-31 is before the first", id="a day before the start"),
        pytest.param("prices/weekly", "2026-11-20", "no asset prices/weekly", id="an asset removed"),
        pytest.param("warehouse/sold_1h", "2026-11-20-03:00", "no asset warehouse/sold_1h", id="a stream removed"),
        pytest.param("warehouse/telemetry_1h", "2019-01-01-00:00", "before the first", id="before the retention"),
        pytest.param(
            "warehouse/telemetry_1h", "2026-11-20", "is no partition any more", id="another kind of partition"
        ),
        pytest.param("job/ingest_sold", None, "no job ingest_sold", id="a job of a stream removed"),
        pytest.param("job/prices_candles", f"{THERE}...{GONE}", "demo:BTCUSDX is not", id="a run over such a range"),
        pytest.param("job/check_prices", "2026-11-20", "check_prices has no partitions", id="a job without partitions"),
        pytest.param(CANDLES, THERE, "", id="a partition"),
        pytest.param(CANDLES, f"{TODAY:%Y-%m-%d}|demo:BTCUSDT", "", id="today"),
        pytest.param(CANDLES, f"{SOON}|demo:BTCUSDT", "", id="a day in the future"),
        pytest.param(CANDLES, "2024-02-29|demo:BTCUSDT", "", id="a leap day"),
        pytest.param("prices/daily", "2026-03-29", "", id="a day on which clocks change somewhere"),
        pytest.param("prices/quotes", None, "", id="an asset without partitions"),
        pytest.param("job/check_prices", None, "", id="a job"),
        pytest.param("job/__ASSET_JOB", GONE, "", id="what was materialized by hand"),
        pytest.param("warehouse/telemetry_1h", f"{TODAY - timedelta(hours=2):%Y-%m-%d-%H:00}", "", id="an hour"),
    ],
)
def test_what_no_longer_exists(
    repository: dg.RepositoryDefinition, asset: str, partition: str | None, words: str
) -> None:
    why = why_gone(repository, FailedPartition(asset, partition))
    assert words in why if words else why == ""


def fail(engine: sa.Engine, *partitions: str, asset: str = CANDLES, run: str = "r1") -> None:
    """A run for these that has failed because somebody has to act."""
    ledger = EtlLedger(engine)
    row = ledger.begin(asset, partitions, run, "prices_candles")
    failure = Failure(FailureKind.PERMANENT, "SourceRefusedError", "Invalid symbol.", attempt=1, op="x", run_id=run)
    assert ledger.fail(row.id, failure, not_before=TODAY)


STATES = "select partition_key, state from assets order by partition_key"
ALERTS = "select resolved_at is null, body from alerts order by id"


def test_rows_and_alert_of_a_corrected_symbol_are_closed(
    engine: sa.Engine, repository: dg.RepositoryDefinition
) -> None:
    fail(engine, GONE, "2026-11-21|demo:BTCUSDX")
    assert close_gone(engine, repository, {}) == 2
    assert [state for _, state in rows(engine, STATES)] == ["obsolete", "obsolete"]
    ((is_open, body),) = rows(engine, ALERTS)
    assert not is_open
    assert body.startswith("Over: demo:BTCUSDX is not among the enabled instruments of prices.yaml any more.")
    assert rows(engine, "select count(*) from assets_failed") == [(0,)]
    with pytest.raises(PermanentError, match=r"is obsolete, there is nothing to retry\. demo:BTCUSDX is not among"):
        retry_asset(engine, 1, requested_by="test", streams=())
    assert close_gone(engine, repository, {}) == 0


def test_the_alert_stays_while_something_else_fails(engine: sa.Engine, repository: dg.RepositoryDefinition) -> None:
    fail(engine, GONE, THERE)
    assert close_gone(engine, repository, {}) == 1
    assert rows(engine, STATES) == [(THERE, "failed"), (GONE, "obsolete")]
    assert [is_open for is_open, _ in rows(engine, ALERTS)] == [True]


def test_what_comes_back_gets_a_new_row(engine: sa.Engine, repository: dg.RepositoryDefinition) -> None:
    fail(engine, GONE)
    close_gone(engine, repository, {})
    fail(engine, GONE, run="r2")
    assert [state for _, state in rows(engine, "select id, state from assets order by id")] == ["obsolete", "failed"]


@pytest.mark.parametrize(
    ("changes", "closed"),
    [
        pytest.param({"enabled": False}, ["orders_usd_1d", "prices/daily", "prices/quotes"], id="no source is enabled"),
        pytest.param({"quotes": False}, ["prices/quotes"], id="no source has quotes"),
        pytest.param({}, [], id="all is as it was"),
    ],
)
def test_what_nothing_runs_any_more_is_closed(
    engine: sa.Engine, repository: dg.RepositoryDefinition, changes: dict[str, bool], closed: list[str]
) -> None:
    demo = load_plan(None, "http://127.0.0.1:9").sources["demo"].model_copy(update=changes)
    fail(engine, "2026-11-20", asset="prices/daily")
    fail(engine, "2026-11-20", asset="orders_usd_1d")
    fail(engine, asset="prices/quotes")
    close_gone(engine, repository, idle_assets(PricePlan.model_construct(sources={"demo": demo})))
    query = "select asset_key from assets where state = 'obsolete' order by 1"
    assert [key for (key,) in rows(engine, query)] == closed
    assert len(rows(engine, "select id from alerts where resolved_at is null")) == 3 - len(closed)


@pytest.mark.parametrize("of_job", [False, True], ids=["a partition", "a run of a job"])
def test_a_retry_of_what_is_gone_closes_it_instead_of_failing(
    engine: sa.Engine, repository: dg.RepositoryDefinition, of_job: bool
) -> None:
    if of_job:
        text = range_text(range_tags(THERE, GONE))
        run = FailedRun("r1", "prices_candles", FailureKind.LOST, "RunLost", "It was lost.", TODAY, partition=text)
        assert record_failed_runs(engine, [run]) == 1
    else:
        fail(engine, GONE)
    retry_asset(engine, 1, requested_by="test", streams=())
    with dg.DagsterInstance.ephemeral() as instance:
        jobs = {CANDLES: "prices_candles"}
        assert list(retries(engine, instance, {"prices_candles"}, jobs, repository)) == []
    assert rows(engine, "select state from assets") == [("obsolete",)]
    assert rows(engine, "select state from replays") == [("done",)]


def test_only_an_instruments_rows_and_those_of_the_run_are_closed(engine: sa.Engine) -> None:
    fail(engine, GONE, THERE)
    EtlLedger(engine).begin(CANDLES, ["2026-11-22|demo:BTCUSDX"], "mine", "prices_candles")
    EtlLedger(engine).begin(CANDLES, ["2026-11-23|demo:BTCUSDX"], "another", "prices_candles")
    assert close_instrument(engine, CANDLES, "demo:BTCUSDX", "mine", "It is parked.") == 2
    assert rows(engine, STATES) == [
        (THERE, "failed"),
        (GONE, "obsolete"),
        ("2026-11-22|demo:BTCUSDX", "obsolete"),
        ("2026-11-23|demo:BTCUSDX", "planned"),
    ]


def test_the_sensor_says_what_it_closed(
    engine: sa.Engine, warehouse_url: str, repository: dg.RepositoryDefinition
) -> None:
    fail(engine, GONE)
    warehouse = Warehouse(loader_url=warehouse_url, owner_url=warehouse_url)
    with dg.build_sensor_context(repository_def=repository, resources={"warehouse": warehouse}) as context:
        found = repository.get_sensor_def("obsolete_rows_sensor").evaluate_tick(context)
    warehouse.engine.dispose()
    assert found.skip_message == "Closed 1 failed rows as obsolete."
    assert rows(engine, STATES) == [(GONE, "obsolete")]
