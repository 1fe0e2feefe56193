"""Content-Encoding: gzip and zstd, never inflated beyond a bound."""

from __future__ import annotations

import re
import zlib

import zstandard

from pipeline_platform.gateway.problems import ProblemError

ENCODINGS = ("identity", "gzip", "zstd")
_GZIP = 16 + zlib.MAX_WBITS
_WINDOW = 8 * 2**20  # what RFC 8878 asks every decoder to support, and no more
# A zstd block of a few bytes may stand for 128 KiB, and the reader inflates all it is given: so it is given little.
_PIECE = 256
_LARGEST_PIECE = 64 * 2**10
FREE_BYTES = 2**20  # a body may always inflate to so much
_PADDING = re.compile(rb"\0*+")
RATIO = 100  # and beyond that to so many times what was sent; events compress to a tenth or a twentieth


def inflate(data: bytes, encoding: str, limit: int) -> bytes:
    """The body behind `encoding`; a 413 problem beyond `limit` bytes, a 400 one for damaged data."""
    if encoding in ("", "identity"):
        return data
    # Whoever sends little may not make much work of it.
    most = min(limit, max(FREE_BYTES, RATIO * len(data)))
    if encoding in ("gzip", "x-gzip"):
        return _gunzip(data, most, limit)
    if encoding == "zstd":
        return _unzstd(data, most, limit)
    raise unsupported_encoding()


def unsupported_encoding() -> ProblemError:
    """The 415 for any other Content-Encoding."""
    detail = f"Content-Encoding may be {', '.join(ENCODINGS)}, one of them and once."
    return ProblemError("unsupported-media-type", detail, headers={"Accept-Encoding": "gzip, zstd"})


def body_too_large(limit: int) -> ProblemError:
    """The 413 for a body beyond its bound."""
    return ProblemError("too-large", f"A body may have at most {limit} bytes, also after decompression; send several.")


def _beyond(most: int, limit: int) -> ProblemError:
    if most >= limit:
        return body_too_large(limit)
    detail = f"The body inflates to more than {RATIO} times what was sent; send it uncompressed."
    return ProblemError("too-large", detail)


def _gunzip(data: bytes, most: int, limit: int) -> bytes:
    member = zlib.decompressobj(_GZIP)
    parts: list[bytes] = []
    room, at, size = most, 0, _PIECE
    while at < len(data):
        if member.eof:
            # What is behind a member is copied: pieces grow with it, so that any number of them costs what they weigh.
            member, size = zlib.decompressobj(_GZIP), _PIECE
        piece = data[at : at + size]
        try:
            part = member.decompress(piece, room + 1)
        except zlib.error:
            raise _damaged("gzip") from None
        at += len(piece) - len(member.unused_data)
        size = min(2 * size, _LARGEST_PIECE)
        room -= len(part)
        if room < 0:
            raise _beyond(most, limit)
        parts.append(part)
        if member.eof and data[at : at + 1] == b"\0":
            at = _PADDING.match(data, at).end()  # type: ignore[union-attr]  # between members it is customary
    if not member.eof:
        raise _damaged("gzip")
    return b"".join(parts)


def _unzstd(data: bytes, most: int, limit: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    frame = decompressor.decompressobj()
    parts: list[bytes] = []
    room, at = most, 0
    try:
        while at < len(data):
            if frame.eof:
                frame = decompressor.decompressobj()
            piece = data[at : at + _PIECE]
            part = frame.decompress(piece)
            at += len(piece) - len(frame.unused_data)
            room -= len(part)
            if room < 0:
                raise _beyond(most, limit)
            parts.append(part)
    except (zstandard.ZstdError, MemoryError):
        raise _damaged("zstd") from None
    if not frame.eof:
        raise _damaged("zstd")
    return b"".join(parts)


def _damaged(kind: str) -> ProblemError:
    return ProblemError("malformed-body", f"The body is not a complete {kind} stream.")
