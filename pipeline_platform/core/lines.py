"""The lines of an entry's NDJSON, before anybody looks into them."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

NEWLINE = ord("\n")

Bools = npt.NDArray[np.bool_]


def lines_of(data: bytes) -> list[bytes]:
    """The lines of an entry's data; line i of the entry is event i of the request."""
    return data.removesuffix(b"\n").split(b"\n")


def join(lines: list[bytes], which: Bools) -> bytes:
    return b"".join(line + b"\n" for line in itertools.compress(lines, which.tolist()))


def with_newline(data: bytes) -> bytes:
    return data if data.endswith(b"\n") else data + b"\n"


def no_object(data: bytes, rows: int) -> Bools | None:
    """Which lines cannot be one JSON object in UTF-8 each; None when there are not `rows` lines.

    The reader does not mind two objects on a line, one on two lines or blank lines, any of which would give rows to the
    wrong lines, and a line `null` crashes it. Between } and { no JSON value goes on, so a line that begins with { and
    ends with } holds whole objects; where there are then as many rows as lines, each line holds one.
    """
    bytes_ = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(bytes_ == NEWLINE)
    if not rows or len(ends) != rows:
        return None
    starts = np.concatenate([[0], ends[:-1] + 1])
    odd = (bytes_[starts] != ord("{")) | (bytes_[np.maximum(ends - 1, 0)] != ord("}"))
    if not data.isascii():
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            odd |= np.array([not _is_utf8(line) for line in lines_of(data)], bool)
    return np.asarray(odd, dtype=bool)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
