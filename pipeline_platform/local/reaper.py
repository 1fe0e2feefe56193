"""Ends the children of a supervisor that was killed: a small process that outlives it.

PR_SET_PDEATHSIG reaches only the direct children. The reaper holds the read end of a pipe whose other end lives in the
supervisor alone: each child's shim registers its session (`+ session signal grace`), the supervisor strikes it out
after a clean end (`- session`), and end-of-file says that the supervisor is gone. What is on the list then gets its
stop signal, and SIGKILL when its grace is over. Run as `python -m pipeline_platform.local.reaper`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipeline_platform.local.process_table import kill_session, session_members, signal_session


@dataclass(frozen=True)
class Target:
    """A session to end, the polite way to ask, and the seconds it then has."""

    session: int
    stop_signal: int
    grace: float


class Reaper:
    """The supervisor's side: starts the process and keeps its list in step."""

    def __init__(self) -> None:
        self._targets: dict[int, Target] = {}
        self._start()

    @property
    def register_fd(self) -> int:
        """The descriptor that a shim registers through."""
        return self._write_fd

    def add(self, target: Target) -> None:
        """Note what a shim has registered, in case the reaper itself has to be replaced."""
        self._targets[target.session] = target

    def forget(self, session: int) -> None:
        """The session is empty: its number may soon belong to somebody else."""
        if self._targets.pop(session, None):
            self._send(f"- {session}\n")

    def ensure(self) -> None:
        """Start another reaper when this one was killed."""
        if self._process.poll() is None:
            return
        os.close(self._write_fd)
        self._start()
        for target in self._targets.values():
            self._send(f"+ {target.session} {target.stop_signal} {target.grace}\n")

    def close(self) -> None:
        """Let the reaper end; it first ends what is still on its list."""
        os.close(self._write_fd)
        self._process.wait()

    def _start(self) -> None:
        read_fd, self._write_fd = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipeline_platform.local.reaper"],
                stdin=read_fd,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(read_fd)

    def _send(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # a killed reaper; `ensure` will see it
            os.write(self._write_fd, line.encode())


def follow(lines: Iterable[bytes]) -> list[Target]:
    """Read the list until its writer is gone; what is left on it is returned, the last registered first."""
    targets: dict[int, Target] = {}
    for line in lines:
        match line.split():
            case [b"+", session, stop_signal, grace]:
                targets[int(session)] = Target(int(session), int(stop_signal), float(grace))
            case [b"-", session]:
                targets.pop(int(session), None)
            case _:
                pass  # a line cut off by the writer's death
    return list(reversed(targets.values()))


def end(
    targets: list[Target],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Ask every session to stop, at once, and kill what is still there after its grace."""
    started = clock()
    remaining = [target for target in targets if session_members(target.session)]
    for target in remaining:
        signal_session(target.session, target.stop_signal)
    while remaining:
        sleep(0.05)
        for target in remaining:
            if clock() - started >= target.grace:
                kill_session(target.session)
        remaining = [target for target in remaining if session_members(target.session)]


def main() -> None:
    # Whoever stops the whole stack by signal stops the supervisor too; the reaper ends after it, never before.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    end(follow(sys.stdin.buffer))


if __name__ == "__main__":
    main()
