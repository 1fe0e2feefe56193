"""Tells the audit who did what: at once for the teller, safely by a thread, and kept while PostgreSQL is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import orjson
import sqlalchemy as sa

from pipeline_platform.access.audit_log import AuditLog, AuditSink
from pipeline_platform.access.audit_writer import GAP, AuditWriter
from pipeline_platform.access.refusals import Refusal, RefusalTally
from pipeline_platform.warehouse.audit import AuditEntry

EVENTS = (
    *("login", "logout", "login-refused", "unauthorized", "forbidden"),
    *("key-created", "key-revoked", "user-added", "user-role", "user-disabled", "user-enabled", "user-password"),
    *("dead-letters-read", "dead-letters-exported", "replay", "discard", "resume", "dagster-mutation", GAP),
)
OUTCOMES = ("ok", "refused", "failed")
MOST_BYTES = 8 * 2**20  # of entries that wait for PostgreSQL
MOST_DETAIL = 4096  # bytes of one entry's detail
RETRY_SECONDS = 1.0
_MOST_TEXT = 200
_log = logging.getLogger(__name__)


class Audit(Protocol):
    """What is told of what happens."""

    def record(
        self,
        event: str,
        *,
        actor: str,
        outcome: str = "ok",
        address: str = "",
        detail: Mapping[str, object] | None = None,
        role: str = "",
    ) -> None:
        """Something happened. Returns at once and never raises."""

    def refused(self, refusal: Refusal) -> None:
        """A request was refused: at most one entry a minute for an address and a reason."""

    def close(self, timeout: float = 5.0) -> int:
        """Writes what waits, for at most so many seconds; how many entries are not in the table."""
        ...


class NullAuditor:
    """Forgets everything: for tests and for who has no warehouse."""

    def record(
        self,
        event: str,
        *,
        actor: str,
        outcome: str = "ok",
        address: str = "",
        detail: Mapping[str, object] | None = None,
        role: str = "",
    ) -> None:
        """Nothing."""

    def refused(self, refusal: Refusal) -> None:
        """Nothing."""

    def close(self, timeout: float = 5.0) -> int:  # noqa: ARG002
        """Nothing waits."""
        return 0


class Auditor:
    """Writes JSON lines to `log`, if given, and rows into `audit` of the warehouse behind `engine`.

    `actor` is `key <id>`, `user <name>`, or `os <name>` of the command line; empty when nobody knows. `role` is the
    role, or the scopes, that the actor had. `outcome` is ok, refused or failed.
    """

    def __init__(
        self,
        engine: sa.Engine,
        log: Path | AuditSink | None = None,
        *,
        most_bytes: int = MOST_BYTES,
        retry: float = RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tally = RefusalTally(clock)
        self._writer = AuditWriter(
            engine,
            AuditLog(log) if isinstance(log, Path) else log,
            most_bytes=most_bytes,
            retry=retry,
            clock=clock,
            tick=self._tell_due,
        )

    def record(
        self,
        event: str,
        *,
        actor: str,
        outcome: str = "ok",
        address: str = "",
        detail: Mapping[str, object] | None = None,
        role: str = "",
    ) -> None:
        """Something happened. Returns at once and never raises."""
        try:
            entry = AuditEntry(
                datetime.now(UTC),
                _plain(event),
                _plain(actor),
                _plain(role),
                _plain(address),
                _plain(outcome),
                _bounded(detail or {}),
            )
            self._writer.put(entry)
        except Exception:  # noqa: BLE001 - what is done does not fail because it cannot be noted
            _log.exception("an entry of the audit could not be made")

    def refused(self, refusal: Refusal) -> None:
        """A request was refused: at most one entry a minute for an address and a reason."""
        now = self._tally.note(refusal)
        if now is not None:
            self._tell(now)

    @property
    def waiting(self) -> int:
        """Entries that are not in the table yet."""
        return self._writer.waiting

    @property
    def waiting_bytes(self) -> int:
        """What they hold of memory; never more than `most_bytes`."""
        return self._writer.waiting_bytes

    def close(self, timeout: float = 5.0) -> int:
        """Writes what waits, for at most so many seconds; how many entries are not in the table."""
        for refusal in self._tally.due(all_of_them=True):
            self._tell(refusal)
        return self._writer.close(timeout)

    def _tell_due(self) -> bool:
        for refusal in self._tally.due():
            self._tell(refusal)
        return self._tally.waiting

    def _tell(self, refusal: Refusal) -> None:
        detail: dict[str, object] = {"reason": refusal.reason, "count": refusal.count}
        if refusal.path:
            detail["path"] = refusal.path
        self.record(
            refusal.event,
            actor=refusal.actor,
            role=refusal.role,
            outcome="refused",
            address=refusal.address,
            detail=detail,
        )


def _plain(text: str) -> str:
    """A text that PostgreSQL and a terminal take, short."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:_MOST_TEXT])


def _bounded(detail: Mapping[str, object]) -> dict[str, Any]:
    """The detail as JSON that PostgreSQL takes; what is too long is cut, and then no longer an object of its own."""
    try:
        data = orjson.dumps(dict(detail), default=str)
    except (TypeError, ValueError):  # a lone surrogate, a key that is no text
        return {"cut": ascii(detail)[:MOST_DETAIL]}
    if len(data) > MOST_DETAIL:
        return {"cut": data[:MOST_DETAIL].decode(errors="ignore")}
    if b"\\u0000" in data:
        return {"cut": data.decode().replace("\\u0000", "?")}
    found: dict[str, Any] = orjson.loads(data)
    return found
