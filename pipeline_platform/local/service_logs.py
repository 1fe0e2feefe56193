"""One log file a service, bounded: at the limit it is moved to `.1`, whose predecessor goes.

Its owner alone may read it: PostgreSQL's holds the texts of failed statements, with values.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import IO

LIMIT_BYTES = 20 * 2**20


class ServiceLog:
    """An append-only file of lines. A full disk loses log lines, never the service: errors of writing are dropped."""

    def __init__(self, path: Path, limit: int = LIMIT_BYTES) -> None:
        self._path, self._limit = path, limit
        self._lock = threading.Lock()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = _opened(path)
        self._size = self._file.tell()

    def write(self, line: str) -> None:
        data = line.encode(errors="replace") + b"\n"
        with self._lock:
            if self._file.closed:
                return
            try:
                if self._size + len(data) > self._limit and self._size:
                    self._rotate()
                self._file.write(data)
                self._file.flush()
                self._size += len(data)
            except OSError:
                pass

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._file = _opened(self._path)
        self._size = 0


def _opened(path: Path) -> IO[bytes]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)  # one that an earlier version made, and any umask
    return os.fdopen(descriptor, "ab")
