"""The ingest queue on Redis Streams.

Three keys a stream, tagged so that a Redis Cluster keeps them together:

    pp:{stream}:entries   the requests: n (events), k (API key id), d (NDJSON)
    pp:{stream}:sizes     the same ids without payload: n, b (bytes), e (events accepted so far, this one included)
    pp:{stream}:totals    events and bytes accepted since the stream began

An entry and its idempotency key are written by one script, so they exist together or not at all. Nothing is ever
trimmed by length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import redis

from pipeline_platform.core.entries import ZERO, Entry, EntryId, EntrySize
from pipeline_platform.queue.connection import queue_errors
from pipeline_platform.queue.protocol import Appended, NewEntry, Position, QueueRefusal

READ_BYTES = 16 * 2**20  # asked for in smaller pieces, the client's buffer costs twice the time

# KEYS: entries, sizes, totals[, idempotency]   ARGV: n, key id, data[, body hash, ttl in seconds]
APPEND = """
if KEYS[4] then
  local seen = redis.call('GET', KEYS[4])
  if seen then return seen end
end
local id = redis.call('XADD', KEYS[1], '*', 'n', ARGV[1], 'k', ARGV[2], 'd', ARGV[3])
local events = redis.call('HINCRBY', KEYS[3], 'events', ARGV[1])
redis.call('HINCRBY', KEYS[3], 'bytes', #ARGV[3])
redis.call('XADD', KEYS[2], id, 'n', ARGV[1], 'b', #ARGV[3], 'e', events)
if KEYS[4] then redis.call('SET', KEYS[4], id .. ' ' .. ARGV[4], 'EX', ARGV[5]) end
return id
"""


class RedisStreams:
    """A Queue on a Redis-protocol server; `ttl` is an Idempotency-Key's lifetime in seconds."""

    def __init__(self, client: redis.Redis, *, ttl: int = 86_400) -> None:
        self._redis = client
        self._ttl = ttl
        self._sha = ""

    def append(self, items: Sequence[NewEntry]) -> list[Appended | QueueRefusal]:
        """See Queue.append."""
        with queue_errors():
            if not self._sha:
                self._load()
            replies = self._send(items)
            lost = [number for number, reply in enumerate(replies) if _is_noscript(reply)]
            if lost:  # the server was restarted and forgot the script; nothing of these was written
                self._load()
                for number, reply in zip(lost, self._send([items[number] for number in lost]), strict=True):
                    replies[number] = reply
        return [_appended(item, reply) for item, reply in zip(items, replies, strict=True)]

    def _load(self) -> None:
        self._sha = str(self._redis.script_load(APPEND))

    def _send(self, items: Sequence[NewEntry]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for item in items:
            keys = [_key(item.stream, "entries"), _key(item.stream, "sizes"), _key(item.stream, "totals")]
            args: list[Any] = [item.count, item.key_id, item.data]
            if item.idempotency_key:
                keys.append(_key(item.stream, f"idem:{item.idempotency_key}"))
                args += [item.body_hash, self._ttl]
            pipeline.evalsha(self._sha, len(keys), *keys, *args)
        return list(pipeline.execute(raise_on_error=False))

    def waiting(self, stream: str, after: EntryId, limit: int) -> list[EntrySize]:
        """See Queue.waiting."""
        with queue_errors():
            rows: Any = self._redis.xrange(_key(stream, "sizes"), min=str(after.next()), max="+", count=limit)
        return [EntrySize(_id(raw), int(fields[b"n"]), int(fields[b"b"])) for raw, fields in rows]

    def wait(self, stream: str, after: EntryId, seconds: float) -> bool:
        """See Queue.wait. The server wakes us: an idle stream costs next to nothing."""
        with queue_errors():
            # COUNT 1 of the sizes: the answer is a few bytes, whatever came.
            found = self._redis.xread({_key(stream, "sizes"): str(after)}, count=1, block=max(1, int(seconds * 1000)))
        return bool(found)

    def read(self, stream: str, first: EntryId, last: EntryId) -> Iterator[Entry]:
        """See Queue.read. Asks for about READ_BYTES at a time, whatever the size of the entries."""
        count, start = 16, first
        while start <= last:
            with queue_errors():
                rows: Any = self._redis.xrange(_key(stream, "entries"), min=str(start), max=str(last), count=count)
            if not rows:
                return
            size = 0
            for raw, fields in rows:
                data = fields[b"d"]
                size += len(data)
                yield Entry(_id(raw), int(fields[b"n"]), data, fields[b"k"].decode())
            if len(rows) < count:
                return
            start = _id(rows[-1][0]).next()
            count = max(1, min(10_000, count * READ_BYTES // max(size, 1)))

    def trim(self, stream: str, below: EntryId) -> int:
        """See Queue.trim. The payloads go first: a size without its entry is harmless, the reverse is not."""
        with queue_errors():
            gone = self._redis.xtrim(_key(stream, "entries"), minid=str(below), approximate=False)
            self._redis.xtrim(_key(stream, "sizes"), minid=str(below), approximate=False)
        return int(gone)

    def events_below(self, stream: str, below: EntryId) -> int:
        """See Queue.events_below. From the running totals of the first and the last of them."""
        with queue_errors():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.xrange(_key(stream, "sizes"), count=1)
            pipeline.xrevrange(_key(stream, "sizes"), max=f"({below}", count=1)
            oldest, newest = pipeline.execute()
        if not oldest or not newest:
            return 0
        first, last = oldest[0][1], newest[0][1]
        return int(last[b"e"]) - (int(first[b"e"]) - int(first[b"n"]))

    def position(self, stream: str) -> Position:
        """See Queue.position."""
        with queue_errors():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.xinfo_stream(_key(stream, "entries"))
            pipeline.xrange(_key(stream, "sizes"), count=1)
            pipeline.hget(_key(stream, "totals"), "events")
            info, oldest, total = pipeline.execute(raise_on_error=False)
        accepted = int(total or 0) if not isinstance(total, Exception) else 0
        if isinstance(info, Exception):
            if "no such key" not in str(info):
                with queue_errors():
                    raise info
            return Position(ZERO, None, 0, 0, accepted)
        last = _id(info["last-generated-id"])
        if not oldest:
            return Position(last, None, 0, 0, accepted)
        raw, fields = oldest[0]
        backlog = accepted - (int(fields[b"e"]) - int(fields[b"n"]))
        return Position(last, _id(raw), int(info["length"]), backlog, accepted)

    def memory_share(self) -> float:
        """The used share of maxmemory, 0 where the server has no limit."""
        with queue_errors():
            info: Any = self._redis.info("memory")
        limit = int(info.get("maxmemory", 0))
        return int(info["used_memory"]) / limit if limit else 0.0


def _key(stream: str, name: str) -> str:
    return f"pp:{{{stream}}}:{name}"


def _id(raw: bytes | str) -> EntryId:
    return EntryId.parse(raw.decode() if isinstance(raw, bytes) else raw)


def _is_noscript(reply: object) -> bool:
    return isinstance(reply, redis.exceptions.NoScriptError)


def _appended(item: NewEntry, reply: Any) -> Appended | QueueRefusal:
    if isinstance(reply, Exception):
        full = isinstance(reply, redis.exceptions.OutOfMemoryError) or "OOM" in str(reply)
        return QueueRefusal(full, str(reply)[:120])
    entry, repeated, body = reply.decode().partition(" ")
    return Appended(_id(entry), bool(repeated), bool(repeated) and body != item.body_hash)
