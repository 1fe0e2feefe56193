"""That a source has nothing is a fact: hours without trades, days before a listing, days off are no gaps for ever."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from pipeline_platform.core.absences import PAUSES
from pipeline_platform.core.budgets import Priority
from pipeline_platform.core.prices import Instrument, Interval
from pipeline_platform.core.time_ranges import of_days
from pipeline_platform.errors import PlatformError
from pipeline_platform.local.backfills import plan_candles
from pipeline_platform.local.price_server.faults import Fault
from pipeline_platform.local.price_server.server import PriceServer
from pipeline_platform.orchestration.prices.fetch import Fetched, fetch_candles
from pipeline_platform.queue.budgets_memory import MemoryBudget
from pipeline_platform.sources.catalog import allowance_of, load_plan, open_source
from pipeline_platform.sources.protocol import Source
from pipeline_platform.warehouse.absences import absent_candles
from pipeline_platform.warehouse.price_days import DayOfSource, recompute_days
from pipeline_platform_tests.integration.price_stack import PriceStack, price_stack, serving
from pipeline_platform_tests.integration.test_price_assets import checks, tick

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]
DAY = date(2024, 2, 29)
BTC = Instrument("demo", "BTCUSDT")
GAPS = "select \"interval\", missing_from, missing_until from prices_gaps where symbol = 'BTCUSDT' order by 1, 2"
NOTHING = 'select "interval", start, until, times, again_at is null from prices_nothing order by 1, 2'


@pytest.fixture
def stack(warehouse_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PriceStack]:
    """The shipped definitions with the price server as the source demo."""
    with price_stack(warehouse_url, redis_url, monkeypatch, PriceServer()) as stack:
        yield stack


@dataclass
class Desk:
    """A price server that leaves things out, and who asks it for the day's candles at some time."""

    engine: sa.Engine
    server: PriceServer
    source: Source

    def leave_out(self, *spans: tuple[datetime, datetime]) -> None:
        """From now on the answers have nothing that opens in these."""
        self.server.faults.clear()
        self.server.faults.set("/api/v3/klines", without(*spans))

    def ask(self, now: datetime | None = None, *, only_gaps: bool = True, day: date = DAY) -> int:
        """Asks for what is missing of the day; how many requests that takes."""
        before = self.source.spent
        fetch_candles(
            self.engine,
            self.source,
            BTC,
            "BTC-USD",
            (Interval.HOUR, Interval.DAY),
            [of_days(day, day)],
            only_gaps=only_gaps,
            run_id="r",
            clock=lambda: now or self.server.clock(),
            into=Fetched(),
        )
        return self.source.spent - before

    def days(self) -> list[tuple[Any, ...]]:
        """The day over all sources, computed anew."""
        recompute_days(self.engine, [DayOfSource(BTC, "BTC-USD", Interval.HOUR, DAY, 24)])
        return self.rows("select candles, expected, gap from prices_daily")

    def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query), values)]


@pytest.fixture
def desk(engine: sa.Engine) -> Iterator[Desk]:
    """A desk with a source of its own."""
    with serving(PriceServer()) as server:
        options = load_plan(None, server.url).sources["demo"]
        source = open_source(options, MemoryBudget("demo", allowance_of(options)), Priority.LIVE, environ={})
        yield Desk(engine, server, source)
        source.close()


def at(hour: int, day: date = DAY) -> datetime:
    """An hour of the day, or of one after it."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hour)


def without(*spans: tuple[datetime, datetime]) -> Fault:
    """Answers that leave out what opens in these."""

    def change(rows: Any) -> Any:
        times = [(int(start.timestamp() * 1000), int(end.timestamp() * 1000)) for start, end in spans]
        return [row for row in rows if not any(start <= row[0] < end for start, end in times)]

    return Fault(change=change)


@pytest.mark.parametrize(
    ("empty", "hours", "day"),
    [
        pytest.param([(at(3), at(5))], 2, [(22, 24, False)], id="two hours in which nobody traded"),
        pytest.param([(at(1), at(14))], 13, [(11, 24, False)], id="the day of a listing"),
        pytest.param([(at(9), at(24))], 15, [(9, 24, False)], id="a halt until midnight"),
        pytest.param([(at(3), at(4)), (at(6), at(7))], 2, [(22, 24, False)], id="quiet hours here and there"),
        pytest.param([(at(0), at(24))], 24, [], id="a day before a listing"),
    ],
)
def test_what_a_source_has_nothing_for_is_no_gap(
    desk: Desk, empty: list[tuple[datetime, datetime]], hours: int, day: list[tuple[int, int, bool]]
) -> None:
    assert desk.days() == [(0, 24, True)]  # nobody has been asked
    desk.leave_out(*empty)
    desk.ask()
    assert [each for each in desk.rows(NOTHING) if each[0] == "1h"] == [("1h", *each, 1, False) for each in empty]
    assert absent_candles(desk.engine, BTC, Interval.HOUR, DAY, DAY) == {DAY: hours}
    assert desk.rows(GAPS) == []
    assert desk.days() == day
    assert desk.ask() == 0


def test_it_is_asked_for_again_a_few_times_and_then_settled(desk: Desk) -> None:
    desk.leave_out((at(3), at(5)))
    now = desk.server.clock()
    assert desk.ask(now) == 2
    for times, pause in enumerate(PAUSES, 1):
        assert desk.rows(NOTHING) == [("1h", at(3), at(5), times, False)]
        assert desk.ask(now + pause - timedelta(seconds=1)) == 0
        now += pause
        assert desk.ask(now) == 1
    assert desk.rows(NOTHING) == [("1h", at(3), at(5), len(PAUSES) + 1, True)]
    assert desk.ask(now + timedelta(days=400)) == 0
    assert desk.ask(now, only_gaps=False) == 2  # who asks for all of it is answered


def test_what_comes_after_all_is_stored_and_the_rest_stays_known(desk: Desk) -> None:
    desk.leave_out((at(3), at(6)))
    desk.ask()
    desk.leave_out((at(4), at(5)))
    desk.ask(only_gaps=False)
    assert desk.rows(NOTHING) == [("1h", at(4), at(5), 1, False)]
    assert desk.days() == [(23, 24, False)]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(status=400, body={"code": -1121, "msg": "Invalid symbol."}), id="an unknown symbol"),
        pytest.param(Fault(status=503), id="a source that is away"),
        pytest.param(Fault(change=lambda _: {"klines": []}), id="another envelope"),
        pytest.param(Fault(change=lambda rows: [row[:3] for row in rows]), id="another shape"),
        pytest.param(Fault(keep=0.5), id="an answer that is cut short"),
    ],
)
def test_what_was_not_answered_is_a_gap(desk: Desk, fault: Fault) -> None:
    desk.server.faults.set("/api/v3/klines", fault)
    with pytest.raises(PlatformError):
        desk.ask()
    assert desk.rows(NOTHING) == []
    assert desk.days() == [(0, 24, True)]
    desk.server.faults.clear()
    assert desk.ask() == 2


def test_a_candle_that_is_gone_is_a_gap_again(desk: Desk) -> None:
    desk.ask()
    with desk.engine.begin() as connection:
        gone = sa.text("delete from price_candles where open_time = any(:gone)")
        connection.execute(gone, {"gone": [at(2), at(7)]})
    assert desk.rows(GAPS) == [("1h", at(2), at(3)), ("1h", at(7), at(8))]
    assert desk.days() == [(22, 24, True)]
    assert desk.ask() == 1


def test_a_candle_at_odds_is_answered_for_and_asked_for_again(desk: Desk) -> None:
    def below_its_low(rows: Any) -> Any:
        odd = int(at(3).timestamp() * 1000)
        return [[*row[:2], "0.01", *row[3:]] if row[0] == odd else row for row in rows]

    desk.server.faults.set("/api/v3/klines", Fault(change=below_its_low))
    desk.ask()
    assert desk.rows(NOTHING) == [("1h", at(3), at(4), 1, False)]
    assert desk.days() == [(23, 24, False)]


def test_what_is_not_over_is_not_answered_for(desk: Desk) -> None:
    today = desk.server.clock().date()
    desk.leave_out((at(0, today), at(48, today)))
    desk.ask(day=today)
    assert desk.rows(f'select "interval" from ({NOTHING}) n where until > now()') == []
    assert desk.ask(day=today + timedelta(days=1)) == 0


def test_the_checks_are_green_and_nothing_is_requested_where_nobody_trades(stack: PriceStack) -> None:
    now = stack.server.clock()
    quiet = (now - timedelta(days=20), now - timedelta(hours=5))
    stack.server.faults.set("/api/v3/klines", without(quiet))  # listed five hours ago
    assert checks(stack)["no_gaps"] is False
    (request,), cursor = tick(stack, "prices_catch_up")
    result = stack.repository.get_job("prices_candles").execute_in_process(
        run_config=request.run_config, tags=dict(request.tags), instance=stack.instance
    )
    assert result.success
    assert checks(stack)["no_gaps"] is True
    assert tick(stack, "prices_catch_up", cursor)[0] == []
    assert tick(stack, "prices_catch_up")[0] == []
    plan, day = load_plan(None, "http://127.0.0.1:9"), (now - timedelta(days=3)).date()
    assert plan_candles(stack.engine, plan, day, day, now, only_gaps=True).partitions == []
    with stack.engine.begin() as connection:
        connection.execute(sa.text("update price_nothing set again_at = now() where symbol = 'ETHUSDT'"))
    assert len(tick(stack, "prices_catch_up")[0]) == 1  # it is due again
    assert checks(stack)["no_gaps"] is True
    later = now + timedelta(minutes=1)
    assert plan_candles(stack.engine, plan, day, day, later, only_gaps=True).partitions == [f"{day}|demo:ETHUSDT"]


def test_the_weekends_of_exchange_rates_are_no_gaps_and_settled(engine: sa.Engine) -> None:
    first, last = date(2024, 3, 25), date(2024, 4, 8)  # Easter is 31 March
    with serving(PriceServer()) as server:
        options = load_plan().sources["ecb"].model_copy(update={"enabled": True, "base_url": server.url})
        source = open_source(options, MemoryBudget("ecb", allowance_of(options)), Priority.LIVE, environ={})
        desk = Desk(engine, server, source)
        for only_gaps in (False, True):
            fetch_candles(
                engine,
                source,
                Instrument("ecb", "EUR-USD"),
                "EUR-USD",
                (Interval.DAY,),
                [of_days(first, last)],
                only_gaps=only_gaps,
                run_id="r",
                clock=server.clock,
                into=Fetched(),
            )
            assert source.spent == 1
        source.close()
    assert desk.rows("select count(*) from prices_candles") == [(9,)]
    assert desk.rows("select missing_from, missing_until from prices_gaps") == []
    assert desk.rows("select start::date::text, until::date::text, again_at from prices_nothing order by 1") == [
        ("2024-03-29", "2024-04-02", None),
        ("2024-04-06", "2024-04-08", None),
    ]
