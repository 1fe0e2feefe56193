"""What `fresh` says: a price that is fetched and frozen is old, one of a quiet hour or a weekend is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa

from pipeline_platform.core.prices import Instrument, Quote
from pipeline_platform.orchestration.prices.checks import PRICE_AGE, QUOTE_AGE
from pipeline_platform.orchestration.prices.planned import quotes_wanted
from pipeline_platform.sources.catalog import load_plan
from pipeline_platform.sources.plan import PricePlan
from pipeline_platform.warehouse.price_checks import old_quotes
from pipeline_platform.warehouse.quotes import add_quotes

EASTER_MONDAY = datetime(2024, 4, 1, 12, tzinfo=UTC)


def plan(*enabled: str) -> PricePlan:
    """The shipped plan with these sources enabled."""
    sources = load_plan().sources
    return PricePlan.model_construct(
        sources={name: each.model_copy(update={"enabled": name in enabled}) for name, each in sources.items()}
    )


@pytest.mark.parametrize(
    ("source", "symbol", "price_hours", "fetched_minutes", "words"),
    [
        pytest.param("binance", "BTCUSDT", 0.01, 1, "", id="a trade a moment ago"),
        pytest.param("binance", "BTCUSDT", 20, 1, "", id="nobody has traded for hours"),
        pytest.param("binance", "BTCUSDT", 25, 1, "has a price of", id="frozen: delisted"),
        pytest.param("coinbase", "BTC-USD", 900, 1, "has a price of", id="frozen for weeks"),
        pytest.param("binance", "BTCUSDT", 0.5, 20, "was fetched last at", id="not fetched any more"),
        pytest.param("ecb", "EUR-USD", 4 * 24 + 12, 1, "", id="a rate of the thursday before easter"),
        pytest.param("ecb", "EUR-USD", 5 * 24 + 12, 1, "has a price of", id="a rate of the wednesday before"),
        pytest.param("ecb", "EUR-USD", 4 * 24 + 12, 20, "was fetched last at", id="a rate that is not fetched"),
        pytest.param("kraken", "XBTUSD", 900, 900, "", id="a source that is off"),
        pytest.param("binance", "GONEUSDT", 900, 900, "", id="a symbol that was removed"),
        pytest.param("gone", "BTCUSDT", 900, 900, "", id="a source that was removed"),
        pytest.param("binance", "ETHUSDT", 900, 900, "", id="a symbol that is parked"),
    ],
)
def test_how_old_a_quote_may_be(
    engine: sa.Engine, source: str, symbol: str, price_hours: float, fetched_minutes: float, words: str
) -> None:
    now = EASTER_MONDAY
    quote = Quote(source, symbol, Decimal(1), now - timedelta(hours=price_hours))
    add_quotes(engine, [quote], fetched_at=now - timedelta(minutes=fetched_minutes))
    enabled = plan("binance", "coinbase", "ecb")
    oldest = quotes_wanted(enabled, now, PRICE_AGE, parked=[Instrument("binance", "ETHUSDT")])
    finding = old_quotes(engine, now, QUOTE_AGE, oldest)
    assert len(finding.wrong) == bool(words)
    assert all(f"{source}:{symbol} {words}" in told for told in finding.wrong)


def test_a_price_that_does_not_change_was_fetched_all_the_same(engine: sa.Engine) -> None:
    quote = Quote("ecb", "EUR-USD", Decimal("1.08"), EASTER_MONDAY)
    later = EASTER_MONDAY + timedelta(minutes=2)
    assert add_quotes(engine, [quote], fetched_at=EASTER_MONDAY, run_id="a") == 1
    changed = Quote("ecb", "EUR-USD", Decimal("1.09"), EASTER_MONDAY)
    assert add_quotes(engine, [changed], fetched_at=later, run_id="b") == 0
    assert add_quotes(engine, [quote], fetched_at=EASTER_MONDAY, run_id="c") == 0  # a late run
    with engine.connect() as connection:
        (row,) = connection.execute(sa.text("select price, fetched_at, run_id from price_quotes")).all()
    assert tuple(row) == (Decimal("1.08"), later, "a")


def test_a_source_without_quotes_is_not_looked_at() -> None:
    sources = plan("binance").sources
    silent = sources["binance"].model_copy(update={"quotes": False})
    quiet = PricePlan.model_construct(sources={**sources, "binance": silent})
    assert quotes_wanted(quiet, EASTER_MONDAY, PRICE_AGE) == {}
