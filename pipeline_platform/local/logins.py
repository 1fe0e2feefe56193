"""The logins of the embedded PostgreSQL, and what each may; set anew at every `up`, whatever they did to themselves.

A login may always change its own password and its own settings: PostgreSQL has no right for that. So nothing that
matters hangs on a setting which the login itself can lift, people have another login than the gateway, and the gateway
says at every connection what it needs. See docs/decisions/0028-logins-that-cannot-stop-loading.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from types import MappingProxyType

import psycopg
from psycopg import errors, sql

from pipeline_platform.errors import SettingError
from pipeline_platform.local.databases import admin_connection

OWNER, LOADER, READER, ANALYST = "pipeline", "loader", "reader", "analyst"
DAGSTER, DAGSTER_READER = "dagster", "dagster_reader"

READING: Mapping[str, str] = MappingProxyType(
    {
        "default_transaction_read_only": "on",
        "idle_in_transaction_session_timeout": "60s",
        "statement_timeout": "30s",
        "temp_file_limit": "1GB",  # a superuser's to set: the login cannot lift it
    }
)


@dataclass(frozen=True)
class Login:
    """A login without any right of its own but those of the role `member_of` and of what it owns."""

    name: str
    member_of: str | None = None
    connections: int = -1
    settings: Mapping[str, str] = field(default_factory=dict)


# The owner makes no roles and no databases: `up` does, as the superuser.
BEFORE_MIGRATIONS = (Login(OWNER), Login(DAGSTER))
AFTER_MIGRATIONS = (
    Login(LOADER, "pipeline_loader"),
    Login(READER, "pipeline_reader", 20, READING),
    Login(ANALYST, "pipeline_reader", 10, READING),
    Login(DAGSTER_READER, None, 10, READING),
)
LOGINS = (*BEFORE_MIGRATIONS, *AFTER_MIGRATIONS)
GROUPS = ("pipeline_loader", "pipeline_reader")


def settle_login(admin_url: str, login: Login, password: str) -> None:
    """Make the login what it is said to be: attributes, password and settings, also those of single databases.

    `admin_url` is a superuser's, or of a role that may manage this one; SettingError when it may not.
    """
    name = sql.Identifier(login.name)
    with admin_connection(admin_url) as connection, connection.transaction():
        # Hashed on our side: a statement that fails is logged by the server, and would be with the password in it.
        hashed = connection.pgconn.encrypt_password(password.encode(), login.name.encode(), b"scram-sha-256").decode()
        try:
            if not connection.execute("select 1 from pg_roles where rolname = %s", [login.name]).fetchone():
                connection.execute(sql.SQL("create role {}").format(name))
            connection.execute(
                sql.SQL(
                    "alter role {} login inherit nosuperuser nocreatedb nocreaterole noreplication nobypassrls "
                    "connection limit {} valid until 'infinity' password {}"
                ).format(name, sql.Literal(login.connections), sql.Literal(hashed))
            )
            _settings(connection, login)
            if login.member_of is not None:
                connection.execute(sql.SQL("grant {} to {}").format(sql.Identifier(login.member_of), name))
        except errors.UndefinedObject:
            raise SettingError(f"The role {login.member_of} does not exist yet; run the migrations first.") from None
        except errors.InsufficientPrivilege:
            user = connection.info.user
            raise SettingError(
                f"The user {user} may not manage the role {login.name}; create it yourself, or grant {user} CREATEROLE."
            ) from None


def ensure_groups(admin_url: str) -> None:
    """The roles without a login that the migrations give rights to; the owner of the warehouse may not make any."""
    with admin_connection(admin_url) as connection:
        for group in GROUPS:
            if not connection.execute("select 1 from pg_roles where rolname = %s", [group]).fetchone():
                connection.execute(sql.SQL("create role {} nologin").format(sql.Identifier(group)))


def close_database(superuser_url: str, visitors: tuple[str, ...]) -> None:
    """Take from everybody what PostgreSQL gives them (rights.sql); only the owner and `visitors` may connect."""
    with admin_connection(superuser_url) as connection, connection.transaction():
        database = sql.Identifier(connection.info.dbname)
        connection.execute(files("pipeline_platform.local").joinpath("rights.sql").read_bytes())
        connection.execute(sql.SQL("revoke connect on database {} from public").format(database))
        for visitor in visitors:
            who = sql.Identifier(visitor)
            connection.execute(sql.SQL("grant connect on database {} to {}").format(database, who))


def deny_connections(superuser_url: str, names: Iterable[str]) -> None:
    """Nobody but superusers and its owner connects to these databases, where nothing of ours is."""
    with admin_connection(superuser_url) as connection:
        for name in names:
            connection.execute(sql.SQL("revoke connect on database {} from public").format(sql.Identifier(name)))


def _settings(connection: psycopg.Connection[tuple[object, ...]], login: Login) -> None:
    name = sql.Identifier(login.name)
    connection.execute(sql.SQL("alter role {} reset all").format(name))
    of_databases = connection.execute(
        "select d.datname::text from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase "
        "join pg_roles r on r.oid = s.setrole where r.rolname = %s",
        [login.name],
    ).fetchall()
    for (database,) in of_databases:
        where = sql.Identifier(str(database))
        connection.execute(sql.SQL("alter role {} in database {} reset all").format(name, where))
    for setting, value in login.settings.items():
        what = sql.Identifier(setting)
        connection.execute(sql.SQL("alter role {} set {} to {}").format(name, what, sql.Literal(value)))
