"""What the platform asks of an ingest queue. `redis_streams` keeps it for real, `memory` is its twin for tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline_platform.core.entries import Entry, EntryId, EntrySize


@dataclass(frozen=True, slots=True)
class NewEntry:
    """One request to append: NDJSON `data` of `count` events.

    With `idempotency_key` (already scoped to stream and API key by the caller) a second append of the same key gives
    the first one's id, and `body_hash` tells whether it is the same request.
    """

    stream: str
    count: int
    data: bytes
    key_id: str
    idempotency_key: str = ""
    body_hash: str = ""


@dataclass(frozen=True, slots=True)
class Appended:
    """A durable entry. `repeated`: it was there already; `conflict`: there with another body."""

    id: EntryId
    repeated: bool = False
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """A stream's state: everything not yet trimmed counts as backlog."""

    last_id: EntryId
    oldest_id: EntryId | None
    entries: int
    events: int
    accepted_events: int


class Queue(Protocol):
    """A durable log of entries a stream.

    Every method raises QueueUnavailableError when the server cannot be asked.
    """

    def append(self, items: Sequence[NewEntry]) -> list[Appended | QueueRefusal]:
        """Appends all items in one round trip; returns when they are durable. An item that the server refused for
        want of memory comes back as a QueueRefusal; the others stand."""

    def waiting(self, stream: str, after: EntryId, limit: int) -> list[EntrySize]:
        """The first `limit` entries behind `after`, without their payload."""

    def wait(self, stream: str, after: EntryId, seconds: float) -> bool:
        """Waits until there is an entry behind `after`, `seconds` at most; returns whether there is one."""

    def read(self, stream: str, first: EntryId, last: EntryId) -> Iterator[Entry]:
        """The entries with first <= id <= last, ascending."""

    def trim(self, stream: str, below: EntryId) -> int:
        """Forgets the entries with id < below; returns how many."""

    def events_below(self, stream: str, below: EntryId) -> int:
        """The events of the entries with id < below that are not trimmed."""

    def position(self, stream: str) -> Position:
        """Where the stream stands."""


@dataclass(frozen=True, slots=True)
class QueueRefusal:
    """The server is out of memory (`full`) or would not write for another reason."""

    full: bool
    message: str
