"""Who was behind a secret a moment ago, so that not each request asks Redis."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from pipeline_platform.access.identity import Identity

FRESH_SECONDS = 2.0  # a revoked key, an ended session, another role: known everywhere after so long
AWAY_SECONDS = 30.0  # while Redis cannot be asked, what was known stays good for so long
_MOST = 4096


@dataclass(frozen=True, slots=True)
class _Answer:
    identity: Identity
    asked_at: float
    touched_at: float


class AnswerCache:
    """Good answers by the SHA-256 of what was presented, the latest 4096. Used by the event loop only.

    Refusals are not kept: whoever sends many wrong secrets gains nothing, and pushes nobody out.
    """

    def __init__(self, clock: Callable[[], float], *, touch_every: float) -> None:
        self._clock = clock
        self._touch_every = touch_every
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()

    @staticmethod
    def slot(secret: str) -> bytes:
        """The key of a secret."""
        return hashlib.sha256(secret.encode()).digest()

    def fresh(self, slot: bytes, *, touch: bool) -> Identity | None:
        """An answer so new that it need not be asked for again; with `touch`, one whose use was noted lately too."""
        answer = self._answers.get(slot)
        now = self._clock()
        if answer is None or now - answer.asked_at > FRESH_SECONDS:
            return None
        return None if touch and now - answer.touched_at > self._touch_every else answer.identity

    def lately(self, slot: bytes) -> Identity | None:
        """An answer that is good enough while nobody can be asked."""
        answer = self._answers.get(slot)
        return answer.identity if answer and self._clock() - answer.asked_at <= AWAY_SECONDS else None

    def keep(self, slot: bytes, identity: Identity | None, *, touch: bool) -> None:
        """Notes an answer; None takes the old one away."""
        old = self._answers.pop(slot, None)
        if identity is None:
            return
        now = self._clock()
        self._answers[slot] = _Answer(identity, now, now if touch or old is None else old.touched_at)
        while len(self._answers) > _MOST:
            self._answers.popitem(last=False)

    def forget(self, slot: bytes) -> None:
        """Takes an answer away."""
        self._answers.pop(slot, None)

    def __len__(self) -> int:
        return len(self._answers)
