"""`users`: people with a password and a role."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sa
import typer
from rich.table import Table
from rich.text import Text

from pipeline_platform.access.password_rules import MIN_LENGTH, check_password
from pipeline_platform.access.passwords import digest_of
from pipeline_platform.access.roles import Role
from pipeline_platform.cli.auditing import auditing, system_user
from pipeline_platform.cli.options import AsJson, StateDir, connections, console, print_json
from pipeline_platform.errors import PermanentError
from pipeline_platform.warehouse import users as book
from pipeline_platform.warehouse.engine import connect

group = typer.Typer(
    help="Add, list and change users of the Dagster UI and the gateway.  Example: pipeline-platform users list",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="The user's name.", show_default=False)]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password's line from standard input.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(group, name="users")


@group.command("add")
def add(
    name: Name,
    role: Annotated[Role, typer.Option(help="What the user may do.")] = Role.VIEWER,
    password_stdin: FromStdin = False,
    state_dir: StateDir = None,
) -> None:
    """Add a user, and ask for the password twice: 12 characters or more.

    Example: pipeline-platform users add otto --role operator
    """
    name = book.user_name(name)
    with _warehouse(state_dir) as (engine, note):
        if book.find_user(engine, name) is not None:
            raise PermanentError(
                f"There is a user {name} already; `pipeline-platform users password {name}` changes it."
            )
        digest = digest_of(_new_password(name, password_stdin))
        book.add_user(engine, name, digest, role, created_by=f"os {system_user()}")
        note("user-added", name, role=role.value)
    typer.echo(f"The user {name} is {role}.")


@group.command("list")
def list_users(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """List all users, disabled ones too.

    Example: pipeline-platform users list --json
    """
    with _warehouse(state_dir) as (engine, _):
        found = book.list_users(engine)
    if as_json:
        print_json([_document(user) for user in found])
        return
    table = Table("name", "role", "added", "by", "password of", "disabled")
    for user in found:
        disabled = f"{user.disabled_at:%Y-%m-%d %H:%M}" if user.disabled_at else ""
        days = f"{user.created_at:%Y-%m-%d}", user.created_by, f"{user.password_changed_at:%Y-%m-%d}"
        table.add_row(*map(Text, (user.name, user.role, *days, disabled)))
    console.print(table)


@group.command("role")
def set_role(
    name: Name,
    role: Annotated[Role, typer.Argument(help="What the user may do.", show_default=False)],
    state_dir: StateDir = None,
) -> None:
    """Give a user another role; open logins have it within seconds.

    Example: pipeline-platform users role otto viewer
    """
    with _warehouse(state_dir) as (engine, note):
        book.set_role(engine, name, role)
        note("user-role", name, role=role.value)
    typer.echo(f"The user {book.user_name(name)} is {role}.")


@group.command("disable")
def disable(name: Name, state_dir: StateDir = None) -> None:
    """End a user's logins within seconds, and take no new ones.

    Example: pipeline-platform users disable otto
    """
    with _warehouse(state_dir) as (engine, note):
        book.disable(engine, name)
        note("user-disabled", name)
    typer.echo(f"The user {book.user_name(name)} is disabled, and logged out.")


@group.command("enable")
def enable(name: Name, state_dir: StateDir = None) -> None:
    """Let a disabled user log in again.

    Example: pipeline-platform users enable otto
    """
    with _warehouse(state_dir) as (engine, note):
        book.enable(engine, name)
        note("user-enabled", name)
    typer.echo(f"The user {book.user_name(name)} may log in.")


@group.command("password")
def set_password(name: Name, password_stdin: FromStdin = False, state_dir: StateDir = None) -> None:
    """Set a user's password, and end the logins that there are.

    Example: pipeline-platform users password otto
    """
    name = book.user_name(name)
    with _warehouse(state_dir) as (engine, note):
        if book.find_user(engine, name) is None:
            raise PermanentError(f"There is no user {name!r}; `pipeline-platform users list` shows their names.")
        book.set_password(engine, name, digest_of(_new_password(name, password_stdin)))
        note("user-password", name)
    typer.echo(f"The password of {name} is changed; open logins are over.")


def _new_password(name: str, from_stdin: bool) -> str:
    """The password, once from standard input or twice from the terminal; never from an argument, which `ps` shows."""
    if from_stdin:
        return check_password(sys.stdin.readline().rstrip("\r\n"), name)
    if not sys.stdin.isatty():
        raise PermanentError("There is no terminal to ask for the password; use --password-stdin.")
    password = check_password(getpass.getpass(f"Password of {name} ({MIN_LENGTH} characters or more): "), name)
    if getpass.getpass("Again: ") != password:
        raise PermanentError("The two passwords are not the same; nothing is changed.")
    return password


@contextmanager
def _warehouse(state_dir: Path | None) -> Iterator[tuple[sa.Engine, Callable[..., None]]]:
    """The warehouse as its owner, and what tells the audit of a change that is made."""
    settings, where = connections(state_dir)

    def note(event: str, name: str, **detail: object) -> None:
        told = {"user": book.user_name(name), **detail}
        with auditing(settings, where) as audit:
            audit.record(event, actor=f"os {system_user()}", address="local", detail=told)

    engine = connect(where.warehouse_url)
    try:
        yield engine, note
    finally:
        engine.dispose()


def _document(user: book.UserRow) -> dict[str, Any]:
    return {
        "name": user.name,
        "role": user.role,
        "created_by": user.created_by,
        "created_at": user.created_at.isoformat(),
        "password_changed_at": user.password_changed_at.isoformat(),
        "disabled_at": user.disabled_at.isoformat() if user.disabled_at else None,
    }
