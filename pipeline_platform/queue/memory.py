"""The in-memory twin of the queue, for tests that need no server. It keeps the same contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pipeline_platform.core.entries import ZERO, Entry, EntryId, EntrySize
from pipeline_platform.queue.protocol import Appended, NewEntry, Position, QueueRefusal


@dataclass
class _Stream:
    entries: list[Entry] = field(default_factory=list)
    last_id: EntryId = ZERO
    accepted: int = 0
    seen: dict[str, tuple[EntryId, str]] = field(default_factory=dict)


class MemoryQueue:
    """A Queue in a list. `clock_ms` stands for the server's clock."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._streams: dict[str, _Stream] = {}

    def _of(self, stream: str) -> _Stream:
        return self._streams.setdefault(stream, _Stream())

    def append(self, items: Sequence[NewEntry]) -> list[Appended | QueueRefusal]:
        """See Queue.append."""
        return [self._append(item) for item in items]

    def _append(self, item: NewEntry) -> Appended:
        state = self._of(item.stream)
        if item.idempotency_key in state.seen:
            entry, body = state.seen[item.idempotency_key]
            return Appended(entry, repeated=True, conflict=body != item.body_hash)
        now = self._clock_ms()
        state.last_id = EntryId(now, 0) if now > state.last_id.ms else state.last_id.next()
        state.entries.append(Entry(state.last_id, item.count, item.data, item.key_id))
        state.accepted += item.count
        if item.idempotency_key:
            state.seen[item.idempotency_key] = (state.last_id, item.body_hash)
        return Appended(state.last_id)

    def waiting(self, stream: str, after: EntryId, limit: int) -> list[EntrySize]:
        """See Queue.waiting."""
        behind = [entry for entry in self._of(stream).entries if entry.id > after]
        return [EntrySize(entry.id, entry.count, len(entry.data)) for entry in behind[:limit]]

    def wait(self, stream: str, after: EntryId, seconds: float) -> bool:  # noqa: ARG002  nobody else could append
        """See Queue.wait; what is not there will not come."""
        return bool(self.waiting(stream, after, 1))

    def read(self, stream: str, first: EntryId, last: EntryId) -> Iterator[Entry]:
        """See Queue.read."""
        yield from [entry for entry in self._of(stream).entries if first <= entry.id <= last]

    def trim(self, stream: str, below: EntryId) -> int:
        """See Queue.trim."""
        state = self._of(stream)
        kept = [entry for entry in state.entries if entry.id >= below]
        gone, state.entries = len(state.entries) - len(kept), kept
        return gone

    def events_below(self, stream: str, below: EntryId) -> int:
        """See Queue.events_below."""
        return sum(entry.count for entry in self._of(stream).entries if entry.id < below)

    def position(self, stream: str) -> Position:
        """See Queue.position."""
        state = self._of(stream)
        oldest = state.entries[0].id if state.entries else None
        events = sum(entry.count for entry in state.entries)
        return Position(state.last_id, oldest, len(state.entries), events, state.accepted)
