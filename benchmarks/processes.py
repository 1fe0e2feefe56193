"""What the processes of a measurement use: their processor time, and their memory over time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MEGABYTE = 2**20


def family(pid: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time used so far; 0 for a process that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss(pid: int) -> float:
    """Proportional resident megabytes: memory that processes share is counted once."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return int(text.split("\nPss:")[1].split()[0]) / 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """Resident megabytes at a moment: all of them, and those of the process alone (without shared buffers)."""

    at: float
    resident: float
    own: float


@dataclass(frozen=True, slots=True)
class Usage:
    """A process over a measurement: the most of the first and of the last quarter, in megabytes; processor seconds."""

    name: str
    first: Sample
    last: Sample
    peak: float
    cpu: float

    @property
    def flat(self) -> bool:
        """Whether its own memory did not grow by more than a tenth and 16 MB."""
        return self.last.own <= self.first.own * 1.1 + 16


class Watch:
    """Samples every process of a family twice a second while the block runs. `names`: what known pids are called."""

    def __init__(self, pid: int, names: Mapping[int, str], pause: float = 0.5) -> None:
        self._pid, self._names, self._pause = pid, dict(names), pause
        self._samples: dict[int, list[Sample]] = {}
        self._cpu: dict[int, tuple[float, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def usages(self) -> list[Usage]:
        """The processes that were there for at least half of the time; the others have no quarters to compare."""
        longest = max(map(len, self._samples.values()), default=0)
        return [self._usage(pid, rows) for pid, rows in self._samples.items() if 2 * len(rows) >= longest]

    def cpu_by_name(self) -> dict[str, float]:
        """Processor seconds of all processes of a name together, the short-lived ones too."""
        total: dict[str, float] = {}
        for pid, (began, now) in self._cpu.items():
            name = self._names.get(pid, "?")
            total[name] = total.get(name, 0.0) + now - began
        return total

    def _usage(self, pid: int, rows: list[Sample]) -> Usage:
        quarter = max(1, len(rows) // 4)
        began, now = self._cpu[pid]
        return Usage(
            self._names.get(pid, "?"),
            _most(rows[:quarter]),
            _most(rows[-quarter:]),
            max(row.resident for row in rows),
            now - began,
        )

    def _run(self) -> None:
        while True:
            now = time.monotonic()
            for pid in family(self._pid):
                self._sample(pid, now)
            if self._stop.wait(self._pause):
                return

    def _sample(self, pid: int, now: float) -> None:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            parent = int(status.split("\nPPid:")[1].split()[0])
            resident, own = (int(status.split(f"\n{key}:")[1].split()[0]) / 1024 for key in ("VmRSS", "RssAnon"))
        except (OSError, IndexError):  # gone, or going
            return
        self._names.setdefault(pid, f"{self._names.get(parent, '?')} > child")
        self._samples.setdefault(pid, []).append(Sample(now, resident, own))
        used = cpu_seconds(pid)
        self._cpu[pid] = (self._cpu.get(pid, (used, used))[0], used)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _most(rows: list[Sample]) -> Sample:
    """The largest, since what a process needs comes and goes with its batches."""
    return Sample(rows[0].at, max(row.resident for row in rows), max(row.own for row in rows))
