"""Which field of a refused event is to blame. Asked only when an event is refused: it takes a slow look of its own."""

from __future__ import annotations

import json
import math
import re
from typing import Any

_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_ODD = object()


def field_at_odds(text: bytes) -> str:
    """The first field whose name or value no event can have; "" when there is none, or `text` is no JSON object.

    Odd are numbers that are not finite or whole ones beyond 64 bits, NUL, lone surrogates, and bytes that are no UTF-8.
    """
    try:
        fields = _LENIENT.decode(text.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return ""
    if not isinstance(fields, _Pairs):
        return ""
    return next((_printable(name) for name, value in fields if _is_odd([name, value])), "")


class _Pairs(list[tuple[str, Any]]):
    """An object's fields, those that are repeated, too."""


def _is_odd(value: Any) -> bool:
    """Whether there is anything odd in it. Level by level: it may be nested deeply."""
    level = [value]
    while level:
        if any(part is _ODD or (type(part) is str and _NO_TEXT.search(part)) for part in level):
            return True
        level = [inner for part in level if isinstance(part, list | tuple) for inner in part]
    return False


def _integer(text: str) -> Any:
    return 0 if len(text) <= 20 and -(2**63) <= int(text) < 2**64 else _ODD


def _float(text: str) -> Any:
    return 0.0 if math.isfinite(float(text)) else _ODD


def _printable(name: str) -> str:
    return _NO_TEXT.sub(lambda sign: f"\\u{ord(sign[0]):04x}", name if len(name) <= 80 else name[:77] + "...")


_LENIENT = json.JSONDecoder(
    object_pairs_hook=_Pairs, parse_int=_integer, parse_float=_float, parse_constant=lambda _: _ODD
)
