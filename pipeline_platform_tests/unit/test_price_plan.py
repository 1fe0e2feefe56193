"""prices.yaml: what it may say, and how a mistake is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline_platform.core.budgets import Allowance, Priority
from pipeline_platform.core.prices import Instrument, Interval
from pipeline_platform.errors import SettingError
from pipeline_platform.queue.budgets_memory import MemoryBudget
from pipeline_platform.sources.catalog import KINDS, allowance_of, load_plan, open_source
from pipeline_platform.sources.plan import SHIPPED, SourcePlan

GOOD = """\
sources:
  binance:
    enabled: true
    intervals: [1d, 1h]
    instruments: {BTC-USD: BTCUSDT, ETH-USD: ETHUSDT}
  mirror:
    kind: binance
    enabled: true
    base_url: https://mirror.example/binance
    intervals: [1d]
    budget: {weight: 100, seconds: 10}
    instruments: {BTC-USD: BTCUSDT}
  kraken:
    instruments: {BTC-USD: XBTUSD}
"""


def _file(folder: Path, text: str) -> Path:
    path = folder / "prices.yaml"
    path.write_text(text)
    return path


def test_a_plan_says_what_comes_from_where(tmp_path: Path) -> None:
    plan = load_plan(_file(tmp_path, GOOD))
    assert list(plan.enabled) == ["binance", "mirror"]
    assert list(plan.instruments()) == [
        (Instrument("binance", "BTCUSDT"), "BTC-USD"),
        (Instrument("binance", "ETHUSDT"), "ETH-USD"),
        (Instrument("mirror", "BTCUSDT"), "BTC-USD"),
    ]
    assert [each.source for each, _ in plan.instruments(Interval.HOUR)] == ["binance", "binance"]
    binance, mirror, kraken = plan.sources.values()
    assert binance.intervals == (Interval.HOUR, Interval.DAY)
    assert kraken.intervals == (Interval.HOUR, Interval.DAY)
    assert (mirror.kind, kraken.kind, kraken.enabled) == ("binance", "kraken", False)
    assert binance.canonical("ETHUSDT") == "ETH-USD"
    assert allowance_of(mirror) == Allowance(100, 10, burst=10, reserve=2.5)
    assert allowance_of(kraken) == KINDS["kraken"].allowance


@pytest.mark.parametrize(
    ("before", "after", "line", "field", "words"),
    [
        ("enabled: true", "enabled: maybe", 3, "sources.binance.enabled", "true or false"),
        ("    enabled: true", "    enable: true", 3, "sources.binance.enable", "no such field"),
        ("[1d, 1h]", "[1d, 2h]", 4, "sources.binance.intervals.2", "1m"),
        ("[1d, 1h]", "[]", 4, "sources.binance.intervals", "at least 1"),
        ("BTC-USD: BTCUSDT, ETH", "btc: BTCUSDT, ETH", 5, "sources.binance.instruments", "BTC-USD"),
        ("BTC-USD: BTCUSDT, ETH", "BTC-USD: '../x', ETH", 5, "sources.binance.instruments", "symbol"),
        ("ETH-USD: ETHUSDT", "ETH-USD: BTCUSDT", 5, "sources.binance.instruments", "same symbol"),
        ("kind: binance", "kind: binanze", 7, "sources.mirror.kind", "choose one of binance"),
        ("https://mirror", "ftp://mirror", 9, "sources.mirror.base_url", "pattern"),
        ("https://mirror", "https://me:secret@mirror", 9, "sources.mirror.base_url", "pattern"),
        ("weight: 100", "weight: 0", 11, "sources.mirror.budget.weight", "greater than 0"),
        ("seconds: 10", "seconds: 10, burst: 200", 11, "sources.mirror.budget", "burst < weight"),
        ("  mirror:", "  Mirror:", 6, "sources.Mirror.name", "lower case"),
        ("  kraken:\n", "  coingecko:\n    intervals: [1m]\n", 14, "sources.coingecko.intervals", "no candles of 1m"),
        ("  kraken:\n", "  kraken:\n    api_key_env: KEY\n", 14, "sources.kraken.api_key_env", "takes no key"),
        ("  kraken:\n", "  demo:\n    kind: kraken\n", 14, "sources.demo.kind", "made-up"),
        ("kind: binance", "kind: demo", 7, "sources.mirror.kind", "made-up"),
        ("  kraken:\n", "  binance:\n", 13, "binance", "given twice"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_field(
    tmp_path: Path, before: str, after: str, line: int, field: str, words: str
) -> None:
    assert before in GOOD
    path = _file(tmp_path, GOOD.replace(before, after, 1))
    with pytest.raises(SettingError) as caught:
        load_plan(path)
    assert str(caught.value).startswith(f"{path}, line {line}, field {field}: ")
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "a: b", "sources: {}", "sources: [a]", "sources:\n  binance", "x: [", "\x00"]
)
def test_what_is_no_plan_is_refused_with_the_files_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingError, match=r"prices\.yaml"):
        load_plan(_file(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="PIPELINE_PRICES_FILE"):
        load_plan(tmp_path / "none.yaml")


def test_the_shipped_plan_asks_nobody_until_somebody_says_so() -> None:
    plan = load_plan()
    assert set(plan.sources) == {*KINDS} - {"frankfurter_v1"}
    assert plan.enabled == {}
    assert list(plan.instruments()) == []


def test_the_shipped_plan_can_be_enabled_as_it_is(tmp_path: Path) -> None:
    plan = load_plan(_file(tmp_path, SHIPPED.read_text().replace("enabled: false", "enabled: true")))
    assert set(plan.enabled) == set(plan.sources)
    assert len(list(plan.instruments(Interval.DAY))) > 15


def test_the_demo_is_alone_and_never_beside_real_sources(tmp_path: Path) -> None:
    for path in (None, _file(tmp_path, GOOD)):
        plan = load_plan(path, demo_url="http://127.0.0.1:8010")
        assert list(plan.enabled) == ["demo"]
        assert plan.sources["demo"].base_url == "http://127.0.0.1:8010"
        assert {each.source for each, _ in plan.instruments(Interval.HOUR)} == {"demo"}


def test_a_key_comes_from_the_environment_and_goes_into_the_header(tmp_path: Path) -> None:
    text = "sources:\n  coingecko:\n    api_key_env: GECKO_KEY\n    instruments: {BTC-USD: bitcoin}\n"
    source = load_plan(_file(tmp_path, text)).sources["coingecko"]
    budget = MemoryBudget("coingecko", allowance_of(source))
    with pytest.raises(SettingError, match="GECKO_KEY is not set"):
        open_source(source, budget, Priority.LIVE, environ={})
    opened = open_source(source, budget, Priority.LIVE, environ={"GECKO_KEY": "hush"})
    assert opened._http._session.headers["x-cg-demo-api-key"] == "hush"  # type: ignore[attr-defined]
    opened.close()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kinds_allowance_lets_its_dearest_request_leave_at_once(kind: str) -> None:
    allowance = KINDS[kind].allowance
    assert allowance.burst - allowance.reserve >= 4
    assert allowance.burst + allowance.rate * allowance.seconds <= allowance.weight * 1.000001


PAGE = (Path(__file__).resolve().parents[2] / "docs" / "prices.md").read_text(encoding="utf-8")


def test_the_page_describes_every_field_and_every_kind() -> None:
    def first_cells(heading: str) -> list[str]:
        part = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
        return re.findall(r"^\| `([a-z0-9_]+)`", part, re.MULTILINE)

    assert first_cells("Fields of a source") == [name for name in SourcePlan.model_fields if name != "name"]
    assert sorted(first_cells("The sources")) == sorted(KINDS)


def test_the_pages_examples_are_well_formed(tmp_path: Path) -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert list(load_plan(_file(tmp_path, example)).enabled) == ["binance", "frankfurter"]
