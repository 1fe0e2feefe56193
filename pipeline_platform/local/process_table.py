"""What the kernel says about processes: who is alive, since when, and who belongs to which session.

Every child of the supervisor leads a session of its own, and what it forks stays in that session even when it changes
its process group, so a session is the unit to end. Without /proc (macOS) the process group has to do.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
HAS_PROC = Path("/proc/self/stat").exists()


class Process(NamedTuple):
    """One row of the table. `started` counts clock ticks since boot."""

    pid: int
    state: str
    parent: int
    session: int
    started: int


def find(pid: int) -> Process | None:
    """The process, unless it has ended (a zombie has)."""
    try:
        # pid (name) state ppid pgrp session ... starttime is the 22nd; the name may hold blanks and brackets.
        fields = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    process = Process(pid, fields[0], int(fields[1]), int(fields[3]), int(fields[19]))
    return None if process.state in "ZX" else process


def start_mark(pid: int) -> str | None:
    """Boot and tick of the process's start: with the pid they name it for good. None when it has ended, or no /proc."""
    process = find(pid)
    return f"{_boot_id()} {process.started}" if process else None


def is_alive(pid: int, mark: str | None = None) -> bool:
    """Whether the pid lives and, when its start mark is known, is still the same process."""
    if HAS_PROC:
        return find(pid) is not None and mark in (None, start_mark(pid))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _boot_id() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def everyone() -> list[Process]:
    """All living processes; empty without /proc."""
    names = [name for name in os.listdir(PROC) if name.isdigit()] if HAS_PROC else []
    return [process for process in (find(int(name)) for name in names) if process is not None]


def session_members(session: int) -> list[int]:
    """The pids of the session's living processes."""
    if not HAS_PROC:
        try:
            os.killpg(session, 0)
        except OSError:
            return []
        return [session]
    return [process.pid for process in everyone() if process.session == session]


def signal_session(session: int, signum: int) -> None:
    """Send the signal to every process of the session, whatever process groups they made."""
    if not HAS_PROC:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(session, signum)
    _signal(session_members(session), signum)


def kill_session(session: int) -> None:
    """SIGKILL the session and the descendants that left it, until no member is left.

    Several rounds, because a process may fork between look and kill. Descendants are found through their parents, so
    those of a parent that is dead already are not (see `Service.clean_up`).
    """
    for _ in range(20):
        if not session_members(session):
            return
        signal_session(session, signal.SIGSTOP)  # nobody forks while we look
        _signal(_with_descendants(session), signal.SIGKILL)
        signal_session(session, signal.SIGKILL)


def runs_in(pid: int, program: str, folder: Path, uid: int) -> bool:
    """Whether the process is this program of this user, working in the folder. Needs /proc."""
    process = PROC / str(pid)
    try:
        return (
            process.stat().st_uid == uid
            and (process / "exe").readlink().name.removesuffix(" (deleted)") == program
            and (process / "cwd").readlink() == folder
        )
    except OSError:
        return False


def _with_descendants(session: int) -> list[int]:
    table = everyone()
    found = {process.pid for process in table if process.session == session}
    while more := {process.pid for process in table if process.parent in found} - found:
        found |= more
    return sorted(found)


def _signal(pids: list[int], signum: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)
