"""The body of a POST: read under a bound, decompressed, and made canonical NDJSON."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterable
from concurrent.futures import Executor
from typing import Protocol

from starlette.types import Receive

from pipeline_platform.core.media_types import MediaType, content_codings, read_media_type
from pipeline_platform.gateway.inflate import ENCODINGS, body_too_large, inflate, unsupported_encoding
from pipeline_platform.gateway.ndjson import Bounds, Events, NotPlainError, from_json, from_ndjson, from_unlabelled
from pipeline_platform.gateway.problems import ProblemError

BODY_SECONDS = 60.0
# Below this size checking a body takes less than a millisecond: not worth a thread.
INLINE_BYTES = 256 * 2**10
CAREFUL_INLINE_BYTES = 4 * 2**10  # the same for bodies that are not plain: escapes, nesting, mistakes


class Parser(Protocol):
    """Makes events of a body; without `careful` only of a plain one, others are a NotPlainError."""

    def __call__(self, body: bytes, bounds: Bounds, *, careful: bool = True) -> Events: ...


MEDIA_TYPES: dict[str, Parser] = {
    "application/json": from_json,
    "application/x-ndjson": from_ndjson,
    "application/ndjson": from_ndjson,
    "application/jsonl": from_ndjson,
    "": from_unlabelled,
}


class DisconnectedError(Exception):
    """The client went away before its body was complete; nobody is left to answer."""


@functools.lru_cache(maxsize=256)  # producers send the same few; refusals are not kept
def way_to_read(content_type: bytes, content_encoding: bytes) -> tuple[Parser, str]:
    """The parser for a body with these headers and its coding, "" for none; a 415 problem for what is not supported."""
    parser = MEDIA_TYPES.get(media_type_of(content_type, MEDIA_TYPES).name if content_type else "")
    if parser is None:
        detail = "Send application/json (an object or an array) or application/x-ndjson (one object a line)."
        raise _unsupported(detail, MEDIA_TYPES)
    return parser, coding_of(content_encoding)


def media_type_of(content_type: bytes, supported: Iterable[str]) -> MediaType:
    """The type that a body is sent as; a 415 problem for what is no media type or not UTF-8."""
    try:
        media = read_media_type(content_type.decode("latin-1"))
    except ValueError as error:
        raise _unsupported(f"Content-Type is {error}.", supported) from None
    if not media.utf8:
        raise _unsupported("Bodies are UTF-8; leave the charset out.", supported)
    return media


def coding_of(content_encoding: bytes) -> str:
    """The coding of a body, "" for none; a 415 problem for several, and for others than ours."""
    codings = content_codings(content_encoding.decode("latin-1"))
    if len(codings) > 1 or not set(codings).issubset(ENCODINGS):
        raise unsupported_encoding()
    return codings[0] if codings else ""


def _unsupported(detail: str, supported: Iterable[str]) -> ProblemError:
    return ProblemError("unsupported-media-type", detail, headers={"Accept-Post": ", ".join(filter(None, supported))})


async def read_body(receive: Receive, declared: bytes, limit: int) -> bytes:
    """The body as sent, at most `limit` bytes; `declared` is its Content-Length, which may be missing or a lie."""
    if declared.isdigit() and int(declared[:20]) > limit:
        raise body_too_large(limit)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read(receive, limit)
    except TimeoutError:
        raise ProblemError(
            "timeout", f"A body has {BODY_SECONDS:g} s to arrive.", headers={"Connection": "close"}
        ) from None


async def _read(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise body_too_large(limit)
        if not message.get("more_body", False):
            return b"".join([*parts, part]) if parts else part
        parts.append(part)


async def canonical_events(raw: bytes, parser: Parser, encoding: str, bounds: Bounds, threads: Executor) -> Events:
    """The events of a body; large, compressed and unusual ones are worked on beside the event loop."""
    if encoding in ("", "identity") and len(raw) <= INLINE_BYTES:
        with contextlib.suppress(NotPlainError):
            return parser(raw, bounds, careful=len(raw) <= CAREFUL_INLINE_BYTES)
    work = asyncio.get_running_loop().run_in_executor(
        threads, lambda: parser(inflate(raw, encoding, bounds.body_bytes), bounds)
    )
    return await work
