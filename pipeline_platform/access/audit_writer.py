"""The thread behind the audit: lines into the log, rows into the table, patience while PostgreSQL is away."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from typing import NamedTuple

import sqlalchemy as sa

from pipeline_platform.access.audit_log import AuditSink, line
from pipeline_platform.errors import PlatformError, PoisonError
from pipeline_platform.warehouse.audit import AuditEntry, insert

GAP = "audit-gap"
_BATCH = 500
_OVERHEAD = 500  # bytes of an entry in memory beside its text
_log = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    entry: AuditEntry
    size: int


class AuditWriter:
    """Takes entries at once and writes them by a thread, which begins with the first.

    At most `most_bytes` wait for the table. What comes beyond that is counted, and told as `audit-gap` when there is
    room again. `tick` is called about once a `tick_seconds`, for entries that come by the clock.
    """

    def __init__(
        self,
        engine: sa.Engine,
        log: AuditSink | None,
        *,
        most_bytes: int,
        retry: float,
        clock: Callable[[], float],
        tick: Callable[[], bool],
        tick_seconds: float = 5.0,
    ) -> None:
        self._engine, self._file = engine, log
        self._most, self._retry, self._clock = most_bytes, retry, clock
        self._tick, self._tick_seconds = tick, tick_seconds
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._new: deque[_Waiting] = deque()
        self._unsaved: deque[_Waiting] = deque()  # written to the log; the thread's own
        self._bytes = 0
        self._gap = 0
        self._gap_began: datetime | None = None
        self._closing_at: float | None = None
        self._log_failed = False

    @property
    def waiting(self) -> int:
        """Entries that are not in the table yet, nor lost."""
        return len(self._new) + len(self._unsaved)

    @property
    def waiting_bytes(self) -> int:
        """What they hold of memory; never more than `most_bytes`."""
        return self._bytes

    def put(self, entry: AuditEntry) -> None:
        """Takes the entry, or counts it where there is no room."""
        size = len(line(entry)) + _OVERHEAD
        with self._changed:
            if self._bytes + size > self._most:
                self._gap += 1
                self._gap_began = self._gap_began or entry.at
                return
            self._bytes += size
            self._new.append(_Waiting(entry, size))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self, timeout: float) -> int:
        """Writes what waits, for at most so many seconds; how many entries are not in the table."""
        with self._changed:
            self._closing_at = self._clock() + timeout
            thread = self._thread
            self._changed.notify()
        if thread is not None:
            thread.join(timeout + 1.0)
        return self.waiting + self._gap

    def _run(self) -> None:
        again_at = 0.0
        while True:
            with self._changed:
                if self._closing_at is not None:
                    self._changed.wait(0.05 if again_at else 0)
                elif not self._new:
                    self._changed.wait(self._idle_seconds(again_at))
                fresh = list(self._new)
                self._unsaved.extend(fresh)
                self._new.clear()
                closing_at = self._closing_at
            self._write_lines([waiting.entry for waiting in fresh])
            if self._clock() >= again_at or closing_at is not None:
                again_at = 0.0 if self._save() else self._clock() + self._retry
            if closing_at is not None and (not self.waiting or self._clock() >= closing_at):
                return

    def _idle_seconds(self, again_at: float) -> float | None:
        ticking = self._tick_seconds if self._tick() else None
        if self._new:  # the tick has brought some
            return 0.0
        return max(0.0, again_at - self._clock()) if self._unsaved else ticking

    def _write_lines(self, entries: list[AuditEntry]) -> None:
        if self._file is None or not entries:
            return
        try:
            self._file.write(entries)
            self._log_failed = False
        except OSError as error:
            if not self._log_failed:
                _log.warning("the audit's log cannot be written: %s", error.strerror)
            self._log_failed = True

    def _save(self) -> bool:
        """Puts what is unsaved into the table; False when that is to be tried again."""
        size = _BATCH
        while self._unsaved:
            batch = list(islice(self._unsaved, size))
            try:
                insert(self._engine, [waiting.entry for waiting in batch])
            except PoisonError:
                if len(batch) > 1:
                    size = 1  # to find the one that PostgreSQL does not take
                    continue
                _log.warning("PostgreSQL does not take an entry of the audit: %s", batch[0].entry.event)
            except PlatformError:
                return False
            except Exception:  # noqa: BLE001 - the thread outlives any surprise
                _log.exception("the audit cannot be written")
                return False
            self._forget(len(batch))
        return True

    def _forget(self, count: int) -> None:
        with self._changed:
            for _ in range(count):
                self._bytes -= self._unsaved.popleft().size
            gap, began, self._gap, self._gap_began = self._gap, self._gap_began, 0, None
        if gap and began is not None:
            self.put(AuditEntry(began, GAP, outcome="failed", detail={"count": gap}))
