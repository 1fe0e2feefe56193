"""Where the elements of a JSON array begin and end, as bytes: nothing is parsed and written again on the way.

So a reader behind it sees numbers, escapes and repeated fields as they were sent.
"""

from __future__ import annotations

import re

SPACE = b" \t\r\n"
# A flat object without escapes and what ends it, in one go: nearly all elements of nearly all arrays.
_FLAT = re.compile(rb'[ \t\r\n]*+(\{[^{}\[\]"\\]*+(?:"[^"\\]*+"[^{}\[\]"\\]*+){0,999}\})[ \t\r\n]*+([,\]])')
_BREAKS = re.compile(rb"[ \t]*+[\r\n][ \t\r\n]*+")
# Everything up to the next mark: within an element only brackets count, between elements commas, too. Texts are passed
# over, but for those with an escape. No group is possessive, which Python 3.11.2 matches wrongly; so that they keep no
# more than a little in memory, they end after a thousand texts.
_WITHIN = re.compile(rb'(?:[^"{}\[\]]*+"[^"\\]*+"){0,999}[^"{}\[\]]*+(["{}\[\]]?)')
_BETWEEN = re.compile(rb'(?:[^"{}\[\],]*+"[^"\\]*+"){0,999}[^"{}\[\],]*+(["{}\[\],]?)')


def elements_of(array: bytes, objects: int = 0) -> list[bytes]:
    """The elements of an array that is known to be JSON, each on one line. `objects`: how many, if all are objects."""
    if b"\n" in array or b"\r" in array:
        array = one_line(array)
    inside = array[1:-1].strip(SPACE)
    if objects == 1:
        return [inside]
    # No braces but those around the objects, and always the same between two, as programs write it: one cut for all.
    if objects and inside.count(b"{") == objects:
        end = inside.find(b"}")
        joint = inside[end : inside.find(b"{", end) + 1]
        if joint.translate(None, b" \t") == b"},{":
            lines = inside.replace(joint, b"}\n{").split(b"\n")
            if len(lines) == objects:
                return lines
    found, at, sign = [], 1, b"," if inside else b"]"
    while sign == b",":
        element = next_element(array, at)
        assert element is not None, "not a JSON array"
        text, sign, at = element
        found.append(text)
    return found


def one_line(text: bytes) -> bytes:
    """The same JSON without line breaks and what indents them: as it is JSON, its texts hold none."""
    if text.count(b"\n") + text.count(b"\r") > len(text) // 16:  # a list of so many lines takes far more than the text
        return _BREAKS.sub(b" ", text)
    return b" ".join(map(bytes.strip, text.splitlines()))


def next_element(array: bytes, at: int) -> tuple[bytes, bytes, int] | None:
    """The element at `at`, the comma or bracket behind it, and where that ends; None when it has no end in `array`."""
    if flat := _FLAT.match(array, at):
        return flat[1], flat[2], flat.end()
    end = end_of(array, at, array=True)
    return (array[at:end].strip(SPACE), array[end : end + 1], end + 1) if end >= 0 else None


def end_of(data: bytes, at: int, *, array: bool) -> int:
    """Where the value that begins at `at` ends: an element before its comma or bracket, an object behind its brace.

    -1 when that is not in `data`.
    """
    depth = 0
    while True:
        mark = (_WITHIN if depth else _BETWEEN).match(data, at)
        assert mark is not None  # it matches nothing, too
        sign, at = mark[1], mark.end()
        if sign == b'"':
            if (at := text_end(data, at)) < 0:
                return -1
        elif not sign:
            return -1
        elif sign in (b"{", b"["):
            depth += 1
        elif depth:
            depth -= 1
            if not depth and not array:
                return at
        elif array and sign != b"}":
            return at - 1


def text_end(data: bytes, at: int) -> int:
    """Where the text that begins before `at` ends, behind its quote; -1 when that is not in `data`."""
    while (quote := data.find(b'"', at)) >= 0:
        slash = quote
        while slash > at and data[slash - 1] == 0x5C:
            slash -= 1
        if (quote - slash) % 2 == 0:
            return quote + 1
        at = quote + 1
    return -1
