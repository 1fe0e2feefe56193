"""The European Central Bank's own rates, as CSV: euros only, published about 16:00 in Frankfurt on working days.

Columns are read by the names in the header (KEY,FREQ,CURRENCY,CURRENCY_DENOM,...,TIME_PERIOD,OBS_VALUE,...), so new
ones do no harm. `EUR-USD` is the series D.USD.EUR.SP00.A. It answers 404 both for a series that there is not and for a
range in which there is nothing; the two are told apart by asking for the latest rate.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from urllib.parse import quote

from pipeline_platform.errors import UnknownSymbolError
from pipeline_platform.sources.daily_rates import DailyRates, currencies
from pipeline_platform.sources.failures import Said
from pipeline_platform.sources.http import Query
from pipeline_platform.sources.quoting import Latest
from pipeline_platform.sources.series import About
from pipeline_platform.sources.shapes import Node

NO_VALUE = ("", "NaN")  # a day on which the bank was closed may still have a row
LATEST = 10  # observations: the last may be without a value, and so may those of some holidays before it


class Ecb(DailyRates):
    """`https://data-api.ecb.europa.eu`: no key."""

    base_url = "https://data-api.ecb.europa.eu"
    page = 10 * 365
    unknown_words = "404 `No results found` for the latest rates of the series; a base other than EUR"

    @staticmethod
    def says_unknown(said: Said) -> bool:
        """404 with {"detail": "No results found."}, which also means: nothing in this range."""
        return said.status == 404 and "no results" in said.text.lower()

    def _together(self, symbols: Sequence[str]) -> list[list[str]]:
        return [[symbol] for symbol in symbols]

    def _latest(self, symbols: Sequence[str]) -> Latest:
        [symbol] = symbols
        rows = self._series(symbol, {"lastNObservations": LATEST}, About("quotes", symbol))
        return {symbol: partial(self._newest, symbol, rows)}

    def _rates(self, symbol: str, first: str, last: str) -> list[Node]:
        return self._series(symbol, {"startPeriod": first, "endPeriod": last}, About("candles", symbol))

    def _opened(self, row: Node) -> datetime:
        return row.field("TIME_PERIOD").day()

    def _rate(self, symbol: str, row: Node) -> Node:  # noqa: ARG002 - a series has one pair
        return row.field("OBS_VALUE")

    def _series(self, symbol: str, query: Query, about: About) -> list[Node]:
        """The lines of an answer that have a value."""
        base, other = currencies(symbol, self.name)
        if base != "EUR":
            words = f"{self.name} has rates of EUR only; write EUR-{base} for {symbol} in prices.yaml."
            raise UnknownSymbolError(words, symbol)
        path = f"/service/data/EXR/D.{quote(other, safe='')}.EUR.SP00.A"
        header, rows = self._http.ask(
            path,
            {**query, "format": "csvdata"},
            about=about,
            read=lambda body: self._lines(body, path, about),
            accept="text/csv",
        )
        lines = [
            Node(dict(zip(header, row, strict=True)) if len(row) == len(header) else row, self.name, f"line {number}")
            for number, row in enumerate(rows, 2)
        ]
        return [
            line for line in lines if not (isinstance(line.value, dict) and line.value.get("OBS_VALUE") in NO_VALUE)
        ]

    def _lines(self, body: bytes, path: str, about: About) -> tuple[list[str], list[list[str]]]:
        """The header and the lines of CSV, whose last one has to be whole."""
        try:
            rows = list(csv.reader(io.StringIO(body.decode("utf-8-sig", "replace"), newline=""), strict=True))
        except csv.Error:
            rows = [[], [""]]  # a quote that does not end
        if not rows:
            return [], []
        if len(rows[-1]) != len(rows[0]):
            self._http.failures.failed(
                f"{self.name} answered {path} with CSV that is not whole (row {len(rows)}).", about
            )
        return rows[0], rows[1:]
