"""One log file a service, bounded: at the limit it is moved to `.1`, whose predecessor goes."""

from __future__ import annotations

import threading
from pathlib import Path

LIMIT_BYTES = 20 * 2**20


class ServiceLog:
    """An append-only file of lines. A full disk loses log lines, never the service: errors of writing are dropped."""

    def __init__(self, path: Path, limit: int = LIMIT_BYTES) -> None:
        self._path, self._limit = path, limit
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
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
        self._file = self._path.open("ab")
        self._size = 0
