"""Requests to append, and what became of them."""

from __future__ import annotations

from pipeline_platform.core.entries import EntryId
from pipeline_platform.queue.protocol import Appended, NewEntry, Position, Queue

STREAM = "telemetry"
FIRST, LAST = EntryId(0, 0), EntryId(10**15 - 1, 0)


def request(data: bytes = b"{}\n", *, count: int = 1, key: str = "", body: str = "", stream: str = STREAM) -> NewEntry:
    """One request of the API key k1."""
    return NewEntry(stream, count, data, "k1", key, body)


def append(queue: Queue, *items: NewEntry) -> list[EntryId]:
    """Appends all items, of which none may be refused."""
    done = [result for result in queue.append(items) if isinstance(result, Appended)]
    assert len(done) == len(items)
    return [result.id for result in done]


def backlog(position: Position) -> tuple[int, int, int]:
    """Entries and events waiting, and events ever accepted."""
    return position.entries, position.events, position.accepted_events
