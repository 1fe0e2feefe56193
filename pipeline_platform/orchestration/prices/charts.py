"""Prices drawn in one line of text, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 24


def sparkline(values: Sequence[Decimal]) -> str:
    """The values as bars between their least and their greatest; at most 24 of them."""
    if len(values) > WIDTH:
        values = [values[number * (len(values) - 1) // (WIDTH - 1)] for number in range(WIDTH)]
    if not values:
        return ""
    low, high = min(values), max(values)
    if low == high:
        return BARS[3] * len(values)
    return "".join(BARS[int((value - low) * (len(BARS) - 1) / (high - low))] for value in values)


def table(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows as a Markdown table; nothing when there are none."""
    rows = list(rows)
    if not rows:
        return ""
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(_cell(row[name]) for name in head) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,.8f}".rstrip("0").rstrip(".") if isinstance(value, Decimal) else str(value).replace("|", "\\|")
