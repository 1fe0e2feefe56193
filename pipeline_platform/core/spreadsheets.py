"""Texts for spreadsheets, which take some for formulas: `=HYPERLINK(...)` as a source's name would be run."""

from __future__ import annotations

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def harmless(value: object) -> object:
    """A text that begins like a formula with an apostrophe in front; everything else as it is, numbers too."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
