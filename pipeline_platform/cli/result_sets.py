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
from rich.console import Console
from rich.table import Table
from rich.text import Text

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
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    console.print(table)
    if next(rows, None) is not None:
        note = f"The first {count:,} rows; there are more. --limit or --csv shows them."
        Console(stderr=True, highlight=False).print(note, style="yellow", soft_wrap=True)
    else:
        console.print(f"{count:,} row{'' if count == 1 else 's'}")


def _cell(value: Any) -> Text:
    if value is None:
        return Text("null", style="dim")
    number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    return Text(printable(_plain(value)), justify="right" if number else "left")


def printable(text: str) -> str:
    """Events come from anywhere: what would steer the terminal is shown instead of sent."""
    return "".join(sign if sign.isprintable() or sign == "\n" else f"\\x{ord(sign):02x}" for sign in text)


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


def print_csv(names: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> None:
    """CSV with a header; null is an empty field."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(["" if value is None else _plain(value) for value in row] for row in rows)


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
