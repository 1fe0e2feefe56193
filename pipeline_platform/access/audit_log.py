"""The audit's lines for who collects logs, one JSON object a line: in a file, or on the way to one.

A service cannot write into the folder of logs, which is `up`'s. It prints its lines with a mark in front, and `up` puts
them into the file; in a container they are in the container's log.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import orjson

from pipeline_platform.warehouse.audit import AuditEntry

LIMIT_BYTES = 64 * 2**20
MARK = "audit "


class AuditSink(Protocol):
    """Takes the lines. Raises OSError."""

    def write(self, entries: Iterable[AuditEntry]) -> None: ...


class PrintedAudit:
    """Prints the lines, marked."""

    def write(self, entries: Iterable[AuditEntry]) -> None:
        """A line for each entry, at once."""
        sys.stdout.write("".join(MARK + line(entry).decode() for entry in entries))
        sys.stdout.flush()


class AuditLog:
    """An append-only file, readable by its owner only. At the limit it is moved to `.1`, whose predecessor goes."""

    def __init__(self, path: Path, limit: int = LIMIT_BYTES) -> None:
        self._path, self._limit = path, limit

    def write(self, entries: Iterable[AuditEntry]) -> None:
        """Appends a line for each entry. Raises OSError."""
        self.append(b"".join(map(line, entries)))

    def append(self, data: bytes) -> None:
        """Appends whole lines. Raises OSError."""
        with os.fdopen(self._open(), "ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_size + len(data) <= self._limit or not self._is_current(file.fileno()):
                file.write(data)  # whoever has just moved the file away gets these lines at its end
                return
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        with os.fdopen(self._open(), "ab", buffering=0) as file:
            file.write(data)

    def _open(self) -> int:
        # The folder may be an account's that we do not trust with more: no link is followed, no pipe waited for.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(self._path, flags)
        if os.geteuid() == 0:  # as by the command line: the account's own processes have to go on with it
            folder = self._path.parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
        return descriptor

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False


def line(entry: AuditEntry) -> bytes:
    """The entry as a line of JSON."""
    return (
        orjson.dumps(
            {
                "at": entry.at.isoformat(),
                "event": entry.event,
                "actor": entry.actor,
                "actor_role": entry.actor_role,
                "address": entry.address,
                "outcome": entry.outcome,
                "detail": entry.detail,
            }
        )
        + b"\n"
    )
