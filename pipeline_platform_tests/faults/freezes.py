"""SIGSTOP: a process that is there and does nothing, as under a debugger, a paused machine or a dying disk."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline_platform.local.process_table import session_members
from pipeline_platform_tests.faults.stand import Stand


@contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """The processes stand still meanwhile. They are woken whatever happens: a stopped one could not be ended."""
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def service(name: str) -> Callable[[Stand, float], None]:
    """A service stands still for so many seconds, with everything it has forked."""

    def strike(stand: Stand, seconds: float) -> None:
        with frozen(session_members(stand.pid(name))):
            time.sleep(seconds)

    return strike


def postgres(stand: Stand, seconds: float) -> None:
    """PostgreSQL stands still, the postmaster and every backend: each backend leads a session of its own."""
    postmaster = stand.pid("postgres")
    with frozen([postmaster, *stand.children(postmaster)]):
        time.sleep(seconds)


def worker_child(stand: Stand, seconds: float) -> None:
    """A process that executes runs stands still."""
    with frozen(stand.children(stand.pid("worker"))[-1:]):
        time.sleep(seconds)


FREEZES: dict[str, Callable[[Stand, float], None]] = {
    "a worker's child": worker_child,
    "the ingest worker": service("worker"),
    "the other worker": service("etl"),
    "the gateway": service("gateway"),
    "Valkey": service("valkey"),
    "PostgreSQL": postgres,
    "the daemon": service("daemon"),
    "the code server": service("code"),
    "the webserver": service("dagster"),
}
