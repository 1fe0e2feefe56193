"""Frankfurter: the central banks' exchange rates, by day. Version 2 of its API; version 1, which is frozen, below.

Shapes and errors: github.com/lineofflight/frankfurter, lib/versions. We ask for the ECB's rates alone: a blend of many
banks changes when a bank is added. Today's rate comes in the afternoon, and is not final before the day is over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from pipeline_platform.core.prices import Quote
from pipeline_platform.errors import UnknownSymbolError
from pipeline_platform.sources.daily_rates import DailyRates, currencies
from pipeline_platform.sources.failures import Said
from pipeline_platform.sources.http import Query
from pipeline_platform.sources.quoting import Latest
from pipeline_platform.sources.series import About
from pipeline_platform.sources.shapes import Node

_INVALID = re.compile(r"invalid currency: ([A-Za-z,]+)")


class Frankfurter(DailyRates):
    """`https://api.frankfurter.dev/v2`: no key."""

    base_url = "https://api.frankfurter.dev"
    page = 4 * 365  # ranges over five years are refused with a provider
    unknown_words = "422 `invalid currency: ...`; a pair that the answer leaves out"

    @staticmethod
    def says_unknown(said: Said) -> bool:
        """422 with {"message": "invalid currency: XXX"}; 404 with "not found", which also means: nothing."""
        return (said.status == 422 and "invalid currency" in said.message) or _not_found(said)

    def _latest(self, symbols: Sequence[str]) -> Latest:
        """The answer says which currencies it does not know: the others are asked for again."""
        pairs = [currencies(symbol, self.name) for symbol in symbols]
        about = About("quotes", symbols[0] if len(symbols) == 1 else None)
        try:
            rows = self._ask(pairs[0][0], [other for _, other in pairs], {}, about)
        except UnknownSymbolError as error:
            named = _INVALID.search(str(error))
            unknown = set(named[1].split(",")) if named else set()
            known = [symbol for symbol, pair in zip(symbols, pairs, strict=True) if not unknown & set(pair)]
            if not known or len(known) == len(symbols):
                raise
            refused = {symbol: partial(_refuse, symbol, str(error)) for symbol in symbols if symbol not in known}
            return {**self._latest(known), **refused}
        return {symbol: partial(self._newest, symbol, rows) for symbol in symbols}

    def _rates(self, symbol: str, first: str, last: str) -> list[Node]:
        base, other = currencies(symbol, self.name)
        return self._ask(base, [other], {"from": first, "to": last}, About("candles", symbol))

    def _ask(self, base: str, others: list[str], query: Query, about: About) -> list[Node]:
        asked: Query = {**query, "base": base, "quotes": ",".join(others), "providers": "ECB"}
        return self._http.get("/v2/rates", asked, about=about).items()

    def _opened(self, row: Node) -> datetime:
        return row.field("date").day()

    def _rate(self, symbol: str, row: Node) -> Node | None:
        base, other = currencies(symbol, self.name)
        if row.field("quote").text() != other:
            return None
        if row.field("base").text() != base:
            row.field("base").wrong(f"{base}, as asked")
        return row.field("rate")


class FrankfurterV1(DailyRates):
    """`https://api.frankfurter.dev/v1`: the ECB's rates, in a shape that will not change. May start before `start`."""

    base_url = "https://api.frankfurter.dev"
    page = 4 * 365
    unknown_words = "404 `not found` of /latest; 422 `bad currency pair`; a currency that the answer leaves out"

    @staticmethod
    def says_unknown(said: Said) -> bool:
        """404 with {"message": "not found"}, which also means: nothing in this range; 422 with "bad currency pair"."""
        return _not_found(said) or (said.status == 422 and "bad currency pair" in said.message)

    def _latest(self, symbols: Sequence[str]) -> Latest:
        pairs = [currencies(symbol, self.name) for symbol in symbols]
        query: Query = {"base": pairs[0][0], "symbols": ",".join(other for _, other in pairs)}
        about = About("quotes", symbols[0] if len(symbols) == 1 else None)
        answer = self._http.get("/v1/latest", query, about=about)
        day, rates = answer.field("date").day(), dict(answer.field("rates").fields())
        return {
            symbol: partial(self._latest_rate, symbol, day, rates.get(other))
            for symbol, (_, other) in zip(symbols, pairs, strict=True)
        }

    def _latest_rate(self, symbol: str, day: datetime, rate: Node | None) -> Quote:
        if rate is None:
            raise UnknownSymbolError(f"{self.name} has no rate of {symbol}: correct it in prices.yaml.", symbol)
        return self._quote(symbol, rate, day)

    def _rates(self, symbol: str, first: str, last: str) -> list[Node]:
        base, other = currencies(symbol, self.name)
        query: Query = {"base": base, "symbols": other}
        answer = self._http.get(f"/v1/{first}..{last}", query, about=About("candles", symbol))
        return [node for _, node in answer.field("rates").fields()]

    def _opened(self, row: Node) -> datetime:
        """The name of a member of `rates`."""
        return Node(row.path.rpartition(".")[2], self.name, f"{row.path} (its name)").day()

    def _rate(self, symbol: str, row: Node) -> Node:
        return row.field(currencies(symbol, self.name)[1])


def _not_found(said: Said) -> bool:
    return said.status == 404 and said.message == "not found"


def _refuse(symbol: str, words: str) -> Quote:
    raise UnknownSymbolError(words, symbol)
