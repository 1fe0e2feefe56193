"""The kinds of sources there are, and how one is opened. A new source is its file, and its line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pipeline_platform.core.budgets import Allowance, Budget, Priority
from pipeline_platform.core.yaml_tree import read_text
from pipeline_platform.errors import SettingError
from pipeline_platform.sources.adapter import Adapter
from pipeline_platform.sources.binance import Binance
from pipeline_platform.sources.coinbase import Coinbase
from pipeline_platform.sources.coingecko import CoinGecko
from pipeline_platform.sources.demo import Demo
from pipeline_platform.sources.ecb import Ecb
from pipeline_platform.sources.frankfurter import Frankfurter, FrankfurterV1
from pipeline_platform.sources.http import PATIENT, HttpClient, Patience
from pipeline_platform.sources.kraken import Kraken
from pipeline_platform.sources.plan import SHIPPED, PricePlan, SourcePlan, parse_plan
from pipeline_platform.sources.protocol import Source

KINDS: dict[str, type[Adapter]] = {
    "binance": Binance,
    "coinbase": Coinbase,
    "coingecko": CoinGecko,
    "demo": Demo,
    "ecb": Ecb,
    "frankfurter": Frankfurter,
    "frankfurter_v1": FrankfurterV1,
    "kraken": Kraken,
}


def load_plan(path: Path | None = None, demo_url: str | None = None) -> PricePlan:
    """The plan of the file at `path`, by default the shipped one; with `demo_url`, its source `demo` alone.

    Raises SettingError naming the file, the line and the field.
    """
    path = path or SHIPPED
    plan, file = parse_plan(read_text(path, SettingError, " Check PIPELINE_PRICES_FILE."), str(path))
    for source in plan.sources.values():
        for field, message in _mistakes(source):
            raise SettingError(file.at(["sources", source.name, field], message))
    if demo_url is None:
        return plan
    return (plan if "demo" in plan.sources else load_plan()).for_demo(demo_url)


def allowance_of(source: SourcePlan) -> Allowance:
    """What the source may be asked: as its vendor's documents say, unless prices.yaml says otherwise."""
    return source.budget.allowance() if source.budget else KINDS[source.kind].allowance


def open_source(
    source: SourcePlan,
    budget: Budget,
    priority: Priority,
    *,
    environ: Mapping[str, str],
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    patience: Patience = PATIENT,
) -> Source:
    """The source, ready to be asked. Its key is read from `environ`; SettingError when it is not there."""
    kind = KINDS[source.kind]
    headers = {}
    if source.api_key_env and kind.key_header:
        if not (key := environ.get(source.api_key_env, "").strip()):
            raise SettingError(f"{source.name}: {source.api_key_env} is not set; it should hold the API key.")
        headers[kind.key_header] = key
    http = HttpClient(
        *(source.name, source.base_url or kind.base_url, budget, priority),
        headers=headers,
        patience=patience,
        says_unknown=kind.says_unknown,
        now=clock,
    )
    return kind(source.name, http, clock)


def _mistakes(source: SourcePlan) -> list[tuple[str, str]]:
    """What only the kind of source can tell: (field, message)."""
    kind = KINDS.get(source.kind)
    if kind is None:
        return [("kind", f"there is no kind {source.kind!r}; choose one of {', '.join(KINDS)}")]
    mistakes = []
    if absent := [each.value for each in source.intervals if each not in kind.intervals]:
        there = ", ".join(each.value for each in kind.intervals)
        mistakes.append(("intervals", f"{source.kind} has no candles of {', '.join(absent)}; choose of {there}"))
    if source.api_key_env and not kind.key_header:
        mistakes.append(("api_key_env", f"{source.kind} takes no key"))
    if (source.kind == "demo") != (source.name == "demo"):
        mistakes.append(("kind", "made-up prices have the source demo, and nothing else has it"))
    return mistakes
