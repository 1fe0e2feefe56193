"""Numbers that are written as text: the one reader of CSV fields, of edits and of parameters."""

from __future__ import annotations

import re

# Possessive, so that no text takes longer than its length: a sign, digits with or without a point, an exponent.
_JSON = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?", re.ASCII)
_NUMBER = re.compile(r"([+-]?)(?=\.?[0-9])0*+([0-9]*+)(?:\.([0-9]*+))?(?:[eE]([+-]?[0-9]++))?", re.ASCII)


def as_json(text: str) -> str | None:
    """The number that a text says, digit by digit as JSON writes it; None when it says none.

    What JSON has no form for is given one: a leading `+`, leading zeros, a point without digits on one side, spaces
    around. Digits of other scripts, `_`, `,`, NaN and infinity are no numbers.
    """
    if _JSON.fullmatch(text):
        return text
    match = _NUMBER.fullmatch(text.strip(" \t\r\n"))
    if match is None:
        return None
    sign, whole, fraction, exponent = match.groups()
    number = f"-{whole or 0}" if sign == "-" else whole or "0"
    if fraction:
        number += f".{fraction}"
    return f"{number}e{exponent}" if exponent else number


def float_in(text: str) -> float:
    """The number that a text says as the nearest float, infinity where there is none. Raises ValueError."""
    written = as_json(text)
    if written is None:
        raise ValueError(f"{text[:40]!r} is not a number")
    return float(written)


def whole_number_in(text: str) -> int:
    """The same for whole numbers: a number without a fraction is one, however it is written. Raises ValueError."""
    value = float_in(text)
    written = as_json(text) or ""
    if written.lstrip("-").isdecimal():
        return int(written)
    if not value.is_integer():
        raise ValueError(f"{text[:40]!r} is not a whole number")
    return int(value)
