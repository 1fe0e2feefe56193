"""What commands that act by themselves, not through the gateway, tell the audit."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from pipeline_platform.access.audit import Auditor
from pipeline_platform.local.connections import Connections
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse.engine import connect

PATIENCE = 5.0


def system_user() -> str:
    """The name of the system's user that runs the command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in a container
        return "unknown"


@contextmanager
def auditing(settings: Settings, where: Connections) -> Iterator[Auditor]:
    """An auditor for one command. What it cannot write it says: the command has done its work nevertheless."""
    engine = connect(where.warehouse_loader_url, application="pipeline-cli audit")
    logs = settings.state_dir / "logs"
    auditor = Auditor(engine, logs / "audit.log" if logs.is_dir() else None)
    try:
        yield auditor
    finally:
        lost = auditor.close(PATIENCE)
        engine.dispose()
        if lost:
            place = f"it is in {logs / 'audit.log'} alone" if logs.is_dir() else "it is nowhere else"
            typer.echo(f"This could not be written into the table audit; {place}. Is PostgreSQL up?", err=True)
