"""`services.json`: what the supervisor last knew of each service, for `status` and for the next `up`.

A file rather than a socket: it can be read when the supervisor is gone, which is when people ask.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pipeline_platform.local.process_table import is_alive, kill_session

State = Literal["starting", "ready", "backoff", "stopped", "failed"]

FILE_NAME = "services.json"
LIVING: tuple[State, ...] = ("starting", "ready")


@dataclass(frozen=True)
class ServiceState:
    """One service. `since` is when it came into its state, ISO 8601 in UTC; `started` is its process's start mark."""

    name: str
    pid: int | None
    state: State
    restarts: int
    since: str
    started: str | None = None


def write_services(state_dir: Path, services: Iterable[ServiceState]) -> None:
    """Replace the file in one step."""
    path = state_dir / FILE_NAME
    aside = path.with_name(f".{FILE_NAME}.new")
    aside.write_text(json.dumps([asdict(service) for service in services], indent=1) + "\n")
    aside.replace(path)


def read_services(state_dir: Path) -> list[ServiceState]:
    """The services as they are: one whose process has ended without word is `stopped`. Empty before the first `up`."""
    try:
        rows = json.loads((state_dir / FILE_NAME).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [_as_it_is(ServiceState(**row)) for row in rows]


def end_leftovers(
    state_dir: Path,
    patience: float = 35.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Wait for the services of an `up` that was killed, and kill those that stay; call it with the lock held.

    Their reaper ends them within seconds; this keeps the next `up` from starting beside them. Returns their names.
    """
    leftovers = [service for service in read_services(state_dir) if service.state in LIVING]
    deadline = clock() + patience
    while clock() < deadline and any(_lives(service) for service in leftovers):
        sleep(0.05)
    for service in leftovers:
        if service.pid and _lives(service):
            kill_session(service.pid)
    return [service.name for service in leftovers]


def _lives(service: ServiceState) -> bool:
    return service.pid is not None and is_alive(service.pid, service.started)


def _as_it_is(service: ServiceState) -> ServiceState:
    if service.state in LIVING and not _lives(service):
        return replace(service, state="stopped", pid=None)
    return service
