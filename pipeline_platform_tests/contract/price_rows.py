"""Where the answers of each source keep their records, and records that are at odds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def itself(body: Any) -> Any:
    """An answer that is its rows."""
    return body


def replaced(_: Any, rows: Any) -> Any:
    """Other rows for such an answer."""
    return rows


def with_value(column: Any, value: Any) -> Callable[[Any], Any]:
    """A row with another value in a column."""

    def change(row: Any) -> Any:
        return {**row, column: value} if isinstance(row, dict) else [*row[:column], value, *row[column + 1 :]]

    return change


def later(amount: int) -> Callable[[Any], Any]:
    """A row whose time, a number, is later."""
    return lambda row: [row[0] + amount, *row[1:]]


def upside_down(high: int, low: int) -> Callable[[Any], Any]:
    """A row whose high is below its low."""

    def change(row: Any) -> Any:
        row = list(row)
        row[high] = type(row[high])(float(row[low]) / 2)
        return row

    return change


def long(length: int) -> Callable[[Any], Any]:
    """A row with another number of members."""
    return lambda row: [*row, "0"][:length]


def kraken_rows(body: Any) -> Any:
    """Of the one pair."""
    return next(rows for name, rows in body["result"].items() if name != "last")


def kraken_with(body: Any, rows: Any) -> Any:
    """Other rows of the one pair."""
    [name] = [name for name in body["result"] if name != "last"]
    return {"error": [], "result": {name: rows, "last": 0}}


def gecko_rows(body: Any) -> Any:
    """The points."""
    return body["prices"]


def gecko_with(body: Any, rows: Any) -> Any:
    """Other points."""
    return {**body, "prices": rows}


def v1_rows(body: Any) -> Any:
    """Days and their rates."""
    return [[day, rates] for day, rates in body["rates"].items()]


def v1_with(body: Any, rows: Any) -> Any:
    """Other days."""
    return {**body, "rates": dict(rows)}


def csv_rows(body: str) -> Any:
    """The lines below the header."""
    return body.split("\r\n")[1:-1]


def cell(column: int, value: str) -> Callable[[str], str]:
    """A line of CSV with another value."""

    def change(line: str) -> str:
        cells = line.split(",")
        cells[column] = value
        return ",".join(cells)

    return change


def csv_with(body: str, rows: Any) -> str:
    """Other lines below the header."""
    return "\r\n".join([body.split("\r\n")[0], *rows, ""])
