"""Text that PostgreSQL can hold."""

from __future__ import annotations


def storable(value: str) -> str:
    """`value` with NUL and lone surrogates, which PostgreSQL's text has not, written as escapes."""
    return value.replace("\0", "\\u0000").encode("utf-8", "backslashreplace").decode()
