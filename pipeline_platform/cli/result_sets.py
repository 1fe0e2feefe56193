"""Rows of a query as a table, as CSV, as JSON."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

import orjson
from rich.table import Table
from rich.text import Text

from pipeline_platform.cli.terminal import SafeConsole, printable
from pipeline_platform.core.spreadsheets import harmless

_WIDE = 10_000  # columns of a "terminal" that is a file: nothing is cut off there


def print_table(names: Sequence[str], rows: Iterator[tuple[Any, ...]], limit: int) -> None:
    """The first `limit` rows for people, and whether there are more."""
    table = Table()
    for name in names:
        table.add_column(Text(printable(name)))
    count = 0
    for row in islice(rows, limit):
        table.add_row(*(_cell(value) for value in row))
        count += 1
    console = SafeConsole(width=None if sys.stdout.isatty() else _WIDE)
    console.print(table)
    if next(rows, None) is not None:
        note = f"The first {count:,} rows; there are more. --limit or --csv shows them."
        SafeConsole(stderr=True).print(note, style="yellow", soft_wrap=True)
    else:
        console.print(f"{count:,} row{'' if count == 1 else 's'}")


def _cell(value: Any) -> Text:
    if value is None:
        return Text("null", style="dim")
    number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    return Text(printable(_plain(value)), justify="right" if number else "left")


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, dict | list):
        return orjson.dumps(value, default=_default).decode()
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def print_csv(names: Sequence[str], rows: Iterator[tuple[Any, ...]], *, spreadsheet: bool = False) -> None:
    """CSV with a header; null is an empty field. On a terminal, what would steer it is shown instead.

    With `spreadsheet`, texts that begin like a formula have an apostrophe in front.
    """
    shown = printable if sys.stdout.isatty() else str

    def cell(value: Any) -> str:
        return "" if value is None else shown(_plain(harmless(value) if spreadsheet else value))

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(map(cell, names))
    writer.writerows(map(cell, row) for row in rows)


def print_json(names: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> None:
    """An array of objects, a row a line, written as the rows come."""
    keys = _distinct(names)
    opening = "[\n"
    for row in rows:
        document = orjson.dumps(dict(zip(keys, row, strict=True)), default=_default, option=orjson.OPT_NON_STR_KEYS)
        sys.stdout.write(f"{opening}{document.decode()}")
        opening = ",\n"
    sys.stdout.write("[]\n" if opening == "[\n" else "\n]\n")


def _distinct(names: Sequence[str]) -> list[str]:
    """Names as keys: the second `count` is `count_2`."""
    keys: list[str] = []
    for name in names:
        number, key = 1, name
        while key in keys:
            number += 1
            key = f"{name}_{number}"
        keys.append(key)
    return keys


def _default(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    if isinstance(value, int):  # beyond 64 bits
        return str(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, date):
        return value.isoformat()
    return _plain(value)
