"""prices.yaml: which prices come from which source. A mistake is named with its file, line and field."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline_platform.core.budgets import Allowance
from pipeline_platform.core.prices import Instrument, Interval
from pipeline_platform.core.yaml_tree import YamlFile, parse_mapping
from pipeline_platform.errors import SettingError

SHIPPED = Path(__file__).resolve().parent.parent / "prices.yaml"
SOURCE_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
CANONICAL = re.compile(r"[A-Z0-9]{1,15}-[A-Z0-9]{1,15}\Z")
SYMBOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}\Z")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AllowancePlan(_Frozen):
    """At most `weight` in any `seconds`; `burst` of it at once; `reserve` of the burst for live schedules alone."""

    weight: float = Field(gt=0)
    seconds: float = Field(60.0, gt=0)
    burst: float | None = Field(None, gt=0, description="Default: a tenth of `weight`.")
    reserve: float | None = Field(None, ge=0, description="Default: a quarter of `burst`.")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        self.allowance()
        return self

    def allowance(self) -> Allowance:
        """As the budget wants it."""
        burst = self.weight / 10 if self.burst is None else self.burst
        return Allowance(self.weight, self.seconds, burst, burst / 4 if self.reserve is None else self.reserve)


class SourcePlan(_Frozen):
    """One source: how it is asked, and for what. `instruments` maps our names to the source's: `BTC-USD: BTCUSDT`."""

    name: str
    kind: str = Field("", description="Which of our sources' languages it speaks. Default: its name.")
    enabled: bool = False
    base_url: str | None = Field(None, pattern=r"^https?://[^\s?#@]+$", description="Default: the vendor's.")
    api_key_env: str | None = Field(
        None, pattern=r"^[A-Z][A-Z0-9_]*$", description="The environment variable that holds the key."
    )
    quotes: bool = Field(True, description="Whether the latest prices are fetched too.")
    intervals: tuple[Interval, ...] = Field((Interval.HOUR, Interval.DAY), min_length=1)
    budget: AllowancePlan | None = Field(None, description="Default: what the vendor's documents allow.")
    instruments: dict[str, str] = Field(min_length=1, max_length=500)

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not SOURCE_NAME.match(value):
            raise ValueError("a source's name is lower case letters, digits and _, at most 40, starting with a letter")
        return value

    @field_validator("instruments")
    @classmethod
    def _instruments(cls, value: dict[str, str]) -> dict[str, str]:
        for canonical, symbol in value.items():
            if not CANONICAL.match(canonical):
                raise ValueError(f"{canonical!r} should be two currencies, such as BTC-USD")
            if not SYMBOL.match(symbol):
                raise ValueError(f"{symbol!r} is not a symbol: letters, digits and ._:/- only")
        if len(set(value.values())) < len(value):
            raise ValueError("two instruments have the same symbol")
        return value

    @field_validator("intervals")
    @classmethod
    def _intervals(cls, value: tuple[Interval, ...]) -> tuple[Interval, ...]:
        return tuple(each for each in Interval if each in value)

    @model_validator(mode="after")
    def _key_in_secret(self) -> Self:
        if self.api_key_env and (self.base_url or "").startswith("http://"):
            raise ValueError("with api_key_env, base_url begins with https://: the key would go in clear")
        return self

    @property
    def symbols(self) -> tuple[str, ...]:
        """The source's own names, as the file orders them."""
        return tuple(self.instruments.values())

    def canonical(self, symbol: str) -> str:
        """Our name of a symbol; KeyError when the file does not have it."""
        return {theirs: ours for ours, theirs in self.instruments.items()}[symbol]


class PricePlan(_Frozen):
    """The whole of prices.yaml."""

    sources: dict[str, SourcePlan] = Field(min_length=1)

    @field_validator("sources", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        """Gives every source its name, and its kind when that is the same."""
        if not isinstance(value, dict):
            return value
        return {
            name: {"kind": name, **options, "name": name} if isinstance(options, dict) else options
            for name, options in value.items()
        }

    @property
    def enabled(self) -> dict[str, SourcePlan]:
        """The sources that are asked at all."""
        return {name: source for name, source in self.sources.items() if source.enabled}

    def instruments(self, interval: Interval | None = None) -> Iterator[tuple[Instrument, str]]:
        """Every enabled (source, symbol) with our name for it; with `interval`, those that have candles of it."""
        for source in self.enabled.values():
            if interval is None or interval in source.intervals:
                for canonical, symbol in source.instruments.items():
                    yield Instrument(source.name, symbol), canonical

    def for_demo(self, url: str) -> PricePlan:
        """The plan with the source `demo` alone, at `url`: made-up prices are never beside real ones."""
        demo = self.sources["demo"].model_copy(update={"enabled": True, "base_url": url})
        others = {name: each.model_copy(update={"enabled": False}) for name, each in self.sources.items()}
        return PricePlan.model_construct(sources={**others, "demo": demo})


def parse_plan(text: str, where: str) -> tuple[PricePlan, YamlFile]:
    """The plan in YAML `text` with its file, for the lines of later errors; SettingError names the mistake's place."""
    shape = "a price file is a mapping with sources; see docs/prices.md"
    file = parse_mapping(text, where, SettingError, shape)
    try:
        return PricePlan.model_validate(file.data), file
    except ValidationError as error:
        raise SettingError(file.explain(error, "docs/prices.md")) from None
