"""Content-Encoding: gzip and zstd, never inflated beyond a bound."""

from __future__ import annotations

import zlib

import zstandard

from pipeline_platform.gateway.problems import ProblemError

ENCODINGS = ("identity", "gzip", "zstd")
_GZIP = 16 + zlib.MAX_WBITS
_WINDOW = 8 * 2**20  # what RFC 8878 asks every decoder to support, and no more
# A zstd block of a few bytes may stand for 128 KiB, and the reader inflates all it is given: so it is given little.
_PIECE = 256
FREE_BYTES = 2**20  # a body may always inflate to so much
RATIO = 100  # and beyond that to so many times what was sent; events compress to a tenth or a twentieth
_MEMBERS = 100  # of a body; each costs a copy of what is behind it


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
    parts: list[bytes] = []
    room = most
    for _ in range(_MEMBERS):
        member = zlib.decompressobj(_GZIP)
        try:
            part = member.decompress(data, room + 1)
        except zlib.error:
            raise _damaged("gzip") from None
        room -= len(part)
        if room < 0:
            raise _beyond(most, limit)
        if not member.eof:
            raise _damaged("gzip")
        parts.append(part)
        data = member.unused_data.lstrip(b"\0")  # padding between members is customary
        if not data:
            return b"".join(parts)
    raise _damaged("gzip")


def _unzstd(data: bytes, most: int, limit: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    frame = decompressor.decompressobj()
    parts: list[bytes] = []
    room, at, frames = most, 0, 1
    try:
        while at < len(data):
            if frame.eof:
                frame = decompressor.decompressobj()
                frames += 1
                if frames > _MEMBERS:
                    raise _damaged("zstd")
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
