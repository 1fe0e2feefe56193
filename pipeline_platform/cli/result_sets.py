"""Rows of a query as a table, as CSV, as JSON. Their values are texts already, in JSON also what JSON has itself."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import orjson
from rich.table import Table
from rich.text import Text

from pipeline_platform.cli.result_values import Column
from pipeline_platform.cli.terminal import SafeConsole, printable
from pipeline_platform.core.spreadsheets import harmless

_SPECIAL = re.compile(r'[",\r\n]')
_WIDE = 10_000  # columns of a "terminal" that is a file: nothing is cut off there
Rows = Iterator[tuple[Any, ...]]


def print_table(columns: Sequence[Column], rows: Rows, limit: int) -> None:
    """The first `limit` rows for people, and whether there are more."""
    table = Table()
    for column in columns:
        table.add_column(Text(printable(column.name)), justify="right" if column.number else "left")
    count = 0
    for row in islice(rows, limit):
        table.add_row(*(Text("null", style="dim") if value is None else Text(printable(value)) for value in row))
        count += 1
    console = SafeConsole(width=None if sys.stdout.isatty() else _WIDE)
    console.print(table)
    if next(rows, None) is not None:
        note = f"The first {count:,} rows; there are more. --limit or --csv shows them."
        SafeConsole(stderr=True).print(note, style="yellow", soft_wrap=True)
    else:
        console.print(f"{count:,} row{'' if count == 1 else 's'}")


def print_csv(columns: Sequence[Column], rows: Rows, *, spreadsheet: bool = False) -> None:
    """CSV with a header, as PostgreSQL's own: null is an empty field, an empty text is `""`.

    On a terminal, what would steer it is shown instead.
    With `spreadsheet`, texts that begin like a formula have an apostrophe in front.
    """
    shown = printable if sys.stdout.isatty() else str
    plain = [column.number or not spreadsheet for column in columns]

    def write(values: Sequence[Any], keep: Sequence[bool]) -> None:
        cells = (
            "" if value is None else _quoted(shown(value if kept else str(harmless(value))))
            for value, kept in zip(values, keep, strict=True)
        )
        sys.stdout.write(",".join(cells) + "\n")

    write([column.name for column in columns], [not spreadsheet] * len(columns))
    for row in rows:
        write(row, plain)


def _quoted(text: str) -> str:
    """A field of CSV that is not null. Python's writer would write an empty one as it writes null."""
    if text and not _SPECIAL.search(text):
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def print_json(columns: Sequence[Column], rows: Rows) -> None:
    """An array of objects, a row a line, written as the rows come."""
    keys = _distinct([column.name for column in columns])
    opening = "[\n"
    for row in rows:
        sys.stdout.write(f"{opening}{orjson.dumps(dict(zip(keys, row, strict=True))).decode()}")
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
