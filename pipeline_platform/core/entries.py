"""Entries of the ingest queue and their identities."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import NamedTuple, Self

from pipeline_platform.errors import PermanentError

_ENTRY_ID = re.compile(r"([0-9]{1,15})-([0-9]{1,20})\Z")
_TAG = re.compile(r"[0-9a-f]{32}\Z")


class EntryId(NamedTuple):
    """A Redis Streams id, `<ms>-<seq>`: the server's clock when the entry became durable, and a counter within it."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`1763712000000-0` as an id; PermanentError when it is not one."""
        match = _ENTRY_ID.match(text)
        if not match:
            raise PermanentError(f"{text!r} is not an entry id such as 1763712000000-0.")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"

    def next(self) -> EntryId:
        """The smallest id after this one."""
        return EntryId(self.ms, self.seq + 1)

    def before(self) -> EntryId:
        """An id before this one with none in use between them: nobody counts to 2**64 within a millisecond."""
        return EntryId(self.ms, self.seq - 1) if self.seq else EntryId(self.ms - 1, 2**64 - 2)


ZERO = EntryId(0, 0)


class Receipt(NamedTuple):
    """What a producer holds of an accepted request; it names the entry, so no status has to be written for it."""

    stream: str
    entry: EntryId

    @classmethod
    def parse(cls, text: str) -> Self:
        """`telemetry.1763712000000-0` as a receipt; PermanentError when it is not one."""
        stream, dot, entry = text.partition(".")
        if not dot or not stream:
            raise PermanentError(f"{text[:80]!r} is not a receipt such as telemetry.1763712000000-0.")
        return cls(stream, EntryId.parse(entry))

    def __str__(self) -> str:
        return f"{self.stream}.{self.entry}"


class TaggedReceipt(NamedTuple):
    """A receipt as a producer gets it: with a tag that shows whose request it was, and that nobody can guess.

    Whoever may read everything may leave the tag out.
    """

    receipt: Receipt
    tag: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """`telemetry.1763712000000-0`, with or without `.<tag>`; PermanentError when it is neither."""
        plain, dot, tag = text.rpartition(".")
        if dot and _TAG.match(tag):
            return cls(Receipt.parse(plain), tag)
        return cls(Receipt.parse(text))

    @classmethod
    def of(cls, receipt: Receipt, key_id: str, secret: bytes) -> Self:
        """The receipt of a request of that key: always the same one."""
        mac = hashlib.blake2b(f"{receipt} {key_id}".encode(), key=secret, digest_size=16)  # a third of HMAC's time
        return cls(receipt, mac.hexdigest())

    def is_of(self, key_id: str, secret: bytes) -> bool:
        """Whether the tag is the one of a request of that key, in constant time."""
        return hmac.compare_digest(self.tag, self.of(self.receipt, key_id, secret).tag)

    def __str__(self) -> str:
        return f"{self.receipt}.{self.tag}" if self.tag else str(self.receipt)


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted request in the queue: `count` events as NDJSON `data`, a line an event, no blank lines."""

    id: EntryId
    count: int
    data: bytes
    key_id: str = ""

    @property
    def received_us(self) -> int:
        """When the request was made durable, epoch microseconds."""
        return self.id.ms * 1000


@dataclass(frozen=True, slots=True)
class EntrySize:
    """What the planner knows of an entry: its id and size, not its payload."""

    id: EntryId
    events: int
    bytes: int
