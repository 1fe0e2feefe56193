"""Users of the platform: names, digests of passwords, roles. The owner writes them, the loader's login reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from pipeline_platform.errors import PermanentError
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.roles import LOADER, READER
from pipeline_platform.warehouse.schema import users

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class UserRow:
    """A row. Sessions that began under another `sessions_from` are over."""

    name: str
    digest: str = field(repr=False)
    role: str
    created_by: str
    created_at: datetime
    disabled_at: datetime | None
    password_changed_at: datetime
    sessions_from: datetime


def is_user_name(text: str) -> bool:
    """Whether a user could have this name."""
    return _NAME.match(text) is not None


def user_name(text: str) -> str:
    """The name as it is kept: lower case. Raises PermanentError for one that cannot be a user's."""
    name = text.strip().lower()
    if not is_user_name(name):
        raise PermanentError(
            f"{text[:70]!r} cannot be a user's name: it is 1 to 64 letters (a-z), digits and . _ @ + -, and begins "
            "with a letter or digit."
        )
    return name


def add_user(engine: sa.Engine, name: str, digest: str, role: str, *, created_by: str) -> None:
    """A new user. Raises PermanentError when there is one of this name."""
    values = {"name": user_name(name), "digest": digest, "role": role, "created_by": created_by}
    with warehouse_errors(), engine.begin() as connection:
        statement = sa.text(
            "insert into users (name, digest, role, created_by) values (:name, :digest, :role, :created_by) "
            "on conflict (name) do nothing"
        )
        if connection.execute(statement, values).rowcount != 1:
            raise PermanentError(f"There is a user {values['name']} already; `pipeline-platform users list` shows it.")


def find_user(engine: sa.Engine, name: str) -> UserRow | None:
    """The user of this name, if there is one."""
    with warehouse_errors(), engine.connect() as connection:
        row = connection.execute(sa.select(users).where(users.c.name == name)).one_or_none()
    return UserRow(**row._mapping) if row else None


def list_users(engine: sa.Engine) -> list[UserRow]:
    """All users by name, disabled ones too."""
    with warehouse_errors(), engine.connect() as connection:
        rows = connection.execute(sa.select(users).order_by(users.c.name)).all()
    return [UserRow(**row._mapping) for row in rows]


def set_role(engine: sa.Engine, name: str, role: str) -> None:
    """Another role; open sessions have it within seconds."""
    _change(engine, name, "role = :value", role)


def set_password(engine: sa.Engine, name: str, digest: str) -> None:
    """Another password; open sessions end."""
    _change(engine, name, "digest = :value, password_changed_at = now(), sessions_from = clock_timestamp()", digest)


def disable(engine: sa.Engine, name: str) -> None:
    """No more logins; open sessions end, and stay ended when the user is enabled again."""
    _change(engine, name, "disabled_at = coalesce(disabled_at, now()), sessions_from = clock_timestamp()")


def enable(engine: sa.Engine, name: str) -> None:
    """Logins again."""
    _change(engine, name, "disabled_at = null")


def _change(engine: sa.Engine, name: str, changes: str, value: str = "") -> None:
    with warehouse_errors(), engine.begin() as connection:
        statement = sa.text(f"update users set {changes} where name = :name")
        if connection.execute(statement, {"name": user_name(name), "value": value}).rowcount != 1:
            raise PermanentError(f"There is no user {name!r}; `pipeline-platform users list` shows their names.")


def grant_users(connection: sa.Connection) -> None:
    """The loader's login may look, for logins; the reader may not, whatever it was given before."""
    for role, statement in ((LOADER, "grant select on users to"), (READER, "revoke all on users from")):
        if connection.scalar(sa.text("select true from pg_roles where rolname = :role"), {"role": role}):
            connection.execute(sa.text(f"{statement} {role}"))
