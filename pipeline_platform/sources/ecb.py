"""The European Central Bank's own rates, as CSV: euros only, published about 16:00 in Frankfurt on working days.

Columns are read by the names in the header (KEY,FREQ,CURRENCY,CURRENCY_DENOM,...,TIME_PERIOD,OBS_VALUE,...), so new
ones do no harm. `EUR-USD` is the series D.USD.EUR.SP00.A.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from http import HTTPStatus

from pipeline_platform.core.prices import Candle, Interval, Quote
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.errors import SettingError, SourceRefusedError, SourceUnavailableError
from pipeline_platform.sources.frankfurter import DailyRates, currencies
from pipeline_platform.sources.http import Query
from pipeline_platform.sources.shapes import Node

NO_VALUE = ("", "NaN")  # a day on which the bank was closed may still have a row


class Ecb(DailyRates):
    """`https://data-api.ecb.europa.eu`: no key."""

    base_url = "https://data-api.ecb.europa.eu"
    page = 10 * 365

    def _quotes(self, symbols: Sequence[str]) -> list[Quote]:
        """One request a symbol. `at` is the start of the day of the rate."""
        found = {}
        for symbol in symbols:
            for row in self._rates(symbol, {"lastNObservations": "1"}):
                found[symbol] = row
        return self._in_order(symbols, found)

    def _page(self, symbol: str, interval: Interval, chunk: TimeRange) -> Iterable[Candle]:  # noqa: ARG002 - days
        last = chunk.end - timedelta(seconds=1)
        query: Query = {"startPeriod": f"{chunk.start:%Y-%m-%d}", "endPeriod": f"{last:%Y-%m-%d}"}
        try:
            for day, rate in self._rates(symbol, query):
                yield self._candle(symbol, day, rate)
        except SourceRefusedError as error:
            if error.status != HTTPStatus.NOT_FOUND:  # which also means: nothing in this range
                raise

    def _rates(self, symbol: str, query: Query) -> Iterator[tuple[datetime, Decimal]]:
        base, other = currencies(symbol, self.name)
        if base != "EUR":
            raise SettingError(f"{self.name} has rates of EUR only; write EUR-{base} for {symbol} in prices.yaml.")
        path = f"/service/data/EXR/D.{other}.EUR.SP00.A"
        body = self._http.get_bytes(path, {**query, "format": "csvdata"}, accept="text/csv")
        header, *rows = self._rows(body, path) or [[]]
        for number, row in enumerate(rows, 2):
            line = Node(dict(zip(header, row, strict=True)), self.name, f"line {number}")
            if line.field("OBS_VALUE").text() not in NO_VALUE:
                yield line.field("TIME_PERIOD").day(), line.field("OBS_VALUE").decimal()

    def _rows(self, body: bytes, path: str) -> list[list[str]]:
        try:
            rows = list(csv.reader(io.StringIO(body.decode("utf-8-sig", "replace"), newline=""), strict=True))
        except csv.Error:
            rows = [[], [""]]  # a quote that does not end
        for number, row in enumerate(rows, 1):
            if len(row) != len(rows[0]):
                raise SourceUnavailableError(f"{self.name} answered {path} with CSV that is not whole (row {number}).")
        return rows
