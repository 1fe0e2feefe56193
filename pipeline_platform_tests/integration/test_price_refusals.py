"""Symbols that a source refuses: the others are fetched, after three days they are parked, with one alert."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from pipeline_platform.cli.backfill import parked_words
from pipeline_platform.core.prices import Instrument
from pipeline_platform.local.backfills import plan_candles
from pipeline_platform.local.price_server.server import PriceServer
from pipeline_platform.orchestration.prices import resources as price_resources
from pipeline_platform.sources.catalog import load_plan
from pipeline_platform.sources.plan import PricePlan
from pipeline_platform.warehouse.refusals import forget_others, known_refusals, note_answered, note_refused
from pipeline_platform_tests.integration.price_stack import PriceStack, price_stack
from pipeline_platform_tests.integration.test_price_assets import checks, tick

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]
LUNA, BTC = "LUNAUSDT", "BTCUSDT"  # the price server does not know the first
ALERTS = "select kind, severity, resolved_at is null, body from alerts where kind = 'symbol_parked' order by id"


@pytest.fixture
def stack(warehouse_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PriceStack]:
    """The price server as the source demo, of which two symbols are wanted and one is known."""

    def plan(_path: str, url: str) -> PricePlan:
        whole = load_plan(None, url)
        instruments = {"LUNA-USD": LUNA, "BTC-USD": BTC}
        demo = whole.sources["demo"].model_copy(update={"instruments": instruments})
        return PricePlan.model_construct(sources={**whole.sources, "demo": demo})

    monkeypatch.setattr(price_resources, "_plan", plan)
    with price_stack(warehouse_url, redis_url, monkeypatch, PriceServer()) as stack:
        yield stack


def older(stack: PriceStack, **by: float) -> None:
    """Makes what is known of refusals so old."""
    moved = ", ".join(f"{name} = {name} - :by" for name in ("refused_since", "refused_at", "parked_at"))
    with stack.engine.begin() as connection:
        statement = sa.text(f"update price_refusals set {moved}").bindparams(sa.bindparam("by", type_=sa.Interval))
        connection.execute(statement, {"by": timedelta(**by)})


def refusals(stack: PriceStack) -> list[tuple[object, ...]]:
    """What is remembered."""
    return stack.rows("select symbol, asked_for, times, parked_at is not null from prices_refused order by 1, 2")


@pytest.mark.parametrize("what", ["quotes", "candles"])
def test_a_symbol_is_parked_with_one_alert_and_asked_for_seldom(stack: PriceStack, what: str) -> None:
    today = stack.server.clock().date()

    def run() -> bool:
        if what == "quotes":
            told = stack.run("prices_quotes")
        else:
            keys = f"{today}|demo:{LUNA}", f"{today}|demo:{BTC}"
            told = stack.run("prices_candles", *keys, ops={"prices__candles": {"config": {"only_gaps": True}}})
        if told.success:
            parked = [each.materialization.metadata["parked"] for each in told.get_asset_materialization_events()]
            assert f"demo:{LUNA} is parked since" in str(parked[0].value)  # what the UI shows
        return told.success

    assert not run()  # it is told at once that something is wrong
    assert refusals(stack) == [(LUNA, what, 1, False)]
    older(stack, days=3)
    assert run()  # parked: no failure any more
    ((kind, severity, is_open, body),) = stack.rows(ALERTS)
    assert (kind, severity, is_open) == ("symbol_parked", "warning", True)
    assert "once a day" in body
    assert "prices.yaml" in body
    assert refusals(stack) == [(LUNA, what, 2, True)]
    assert run()
    assert refusals(stack) == [(LUNA, what, 2, True)]  # not asked for
    older(stack, days=1)
    assert run()
    assert refusals(stack) == [(LUNA, what, 3, True)]
    assert len(stack.rows(ALERTS)) == 1
    failing = "select count(*) from alerts where kind = 'asset_failing' and resolved_at is null"
    assert stack.rows(failing) == [(0,)]
    assert stack.rows("select count(*) from assets where state = 'failed'") == [(0,)]
    assert stack.rows(f"select distinct symbol from price_{what}") == [(BTC,)]
    if what == "candles":
        closed = stack.rows("select distinct state, error_message from assets where partition_key like '%LUNA%'")
        assert [state for state, _ in closed] == ["obsolete"] * len(closed)
        assert all("is parked since" in message for _, message in closed)


def test_a_person_who_asks_for_a_parked_symbol_is_obeyed(stack: PriceStack) -> None:
    luna, now = Instrument("demo", LUNA), stack.server.clock()
    for days in (4, 0):
        note_refused(stack.engine, luna, "candles", "Invalid symbol.", now - timedelta(days=days))
    before = stack.server.requests.total()
    assert stack.candles(now.date(), now.date(), symbol=LUNA, only_gaps=True).success  # as a schedule asks
    assert stack.server.requests.total() == before
    assert stack.rows("select count(*) from assets") == [(0,)]  # it was left out, not loaded
    assert stack.candles(now.date(), now.date(), symbol=LUNA).success  # as a person does in the UI
    assert refusals(stack) == [(LUNA, "candles", 3, True)]
    assert stack.rows("select state from assets") == [("obsolete",)]
    work = plan_candles(stack.engine, price_resources._plan("", stack.server.url), now.date(), now.date(), now)
    (words,) = parked_words(work, known_refusals(stack.engine, "candles"))
    assert words.startswith(f"demo:{LUNA} is parked since ")


def test_what_is_parked_keeps_no_check_red_and_is_named(stack: PriceStack) -> None:
    luna, now = Instrument("demo", LUNA), stack.server.clock()
    today = now.date()
    for asked_for in ("quotes", "candles"):
        for days in (4, 0):
            note_refused(stack.engine, luna, asked_for, "Invalid symbol.", now - timedelta(days=days))
    assert stack.run("prices_quotes").success
    assert stack.candles(today - timedelta(days=7), today, symbol=BTC).success
    assert {name: passed for name, passed in checks(stack).items() if not passed} == {}
    assert tick(stack, "prices_catch_up")[0] == []
    assert len(stack.rows(ALERTS)) == 1
    with stack.engine.begin() as connection:
        connection.execute(sa.text("update price_quotes set at = at - interval '2 days'"))
    assert checks(stack)["fresh"] is False  # it is fetched, and frozen


def test_a_symbol_that_answers_is_asked_as_ever(engine: sa.Engine) -> None:
    luna = Instrument("demo", LUNA)
    now = price_time()
    for asked_for in ("quotes", "candles"):
        for days in (4, 0):
            note_refused(engine, luna, asked_for, "Invalid symbol.", now - timedelta(days=days))
    note_answered(engine, [luna], "quotes")
    assert [each.asked_for for each in known_refusals(engine).values()] == ["candles"]
    assert open_alerts(engine) == 1  # its candles are refused still
    note_answered(engine, [luna], "candles")
    assert known_refusals(engine) == {}
    assert open_alerts(engine) == 0
    assert alert_body(engine).startswith("Over: its source answers again. Before: Invalid symbol.")


@pytest.mark.parametrize(
    ("planned", "left"),
    [
        pytest.param([("demo", LUNA)], 1, id="still in the plan"),
        pytest.param([("demo", "LUNA2USDT")], 0, id="renamed"),
        pytest.param([("other", LUNA)], 0, id="of another source"),
        pytest.param([], 0, id="no source is enabled"),
    ],
)
def test_what_is_not_in_the_plan_is_forgotten(engine: sa.Engine, planned: list[tuple[str, str]], left: int) -> None:
    for days in (4, 0):
        note_refused(engine, Instrument("demo", LUNA), "quotes", "Unknown.", price_time() - timedelta(days=days))
    forget_others(engine, [Instrument(*each) for each in planned])
    assert len(known_refusals(engine)) == open_alerts(engine) == left
    if not left:
        assert "prices.yaml" in alert_body(engine)


def price_time() -> datetime:
    """Now."""
    return datetime.now(UTC)


def open_alerts(engine: sa.Engine) -> int:
    """How many alerts are open."""
    with engine.connect() as connection:
        return int(connection.execute(sa.text("select count(*) from alerts where resolved_at is null")).scalar_one())


def alert_body(engine: sa.Engine) -> str:
    """What the latest alert says."""
    with engine.connect() as connection:
        return str(connection.execute(sa.text("select body from alerts order by id desc limit 1")).scalar_one())
