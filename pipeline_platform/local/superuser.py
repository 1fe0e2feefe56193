"""The embedded PostgreSQL's superuser, whom only `up` knows, and clusters of the time when the owner was it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from pipeline_platform.errors import SettingError
from pipeline_platform.local.databases import admin_connection
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.local.postgres_cluster import SUPERUSER

OLD_SUPERUSER = "pipeline"

# Everything in the schema that a superuser owns and no extension made. Indexes and the sequences of columns go with
# their tables.
_OWNED = """
select format('alter %s public.%I owner to ', case relkind
        when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' else 'table' end, relname)
from pg_class c join pg_roles r on r.oid = relowner and r.rolsuper
where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'S')
    and not exists (select from pg_depend d where d.objid = c.oid and d.classid = 'pg_class'::regclass
        and d.deptype in ('e', 'a', 'i') and (d.deptype = 'e' or c.relkind = 'S'))
union all
select format('alter routine %s owner to ', p.oid::regprocedure)
from pg_proc p join pg_roles r on r.oid = proowner and r.rolsuper
where pronamespace = 'public'::regnamespace
    and not exists (select from pg_depend d
        where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')
union all
select format('alter type public.%I owner to ', typname)
from pg_type t join pg_roles r on r.oid = typowner and r.rolsuper
where typnamespace = 'public'::regnamespace and typtype in ('e', 'd')
    and not exists (select from pg_depend d
        where d.objid = t.oid and d.classid = 'pg_type'::regclass and d.deptype = 'e')
"""


def settle_superuser(server: PostgresServer, former_passwords: Sequence[str] = ()) -> None:
    """See that the superuser is called `postgres` and has the password of its file.

    `former_passwords` are tried where that one is not taken. SettingError when none is.
    """
    for password in (server.password, *former_passwords):
        for name in (SUPERUSER, OLD_SUPERUSER):
            try:
                connection = psycopg.connect(server.url("postgres", name, password), connect_timeout=5)
            except psycopg.OperationalError:
                continue
            with connection:
                if _is_superuser(connection):
                    _settle(connection, name, server.password)
                    return
    raise SettingError(
        "PostgreSQL does not take the password of the state folder's secrets/postgres; put back the file that belongs "
        "to this folder."
    )


def hand_over(superuser_url: str, owner: str) -> list[str]:
    """Give the database, and what a superuser owns in its schema `public`, to `owner`; returns what was done."""
    with admin_connection(superuser_url) as connection, connection.transaction():
        who = sql.Identifier(owner)
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("alter database {} owner to {}").format(name, who))
        done = [str(row[0]) for row in connection.execute(_OWNED.encode()).fetchall()]
        for statement in done:
            connection.execute(sql.SQL("{}{}").format(sql.SQL(statement), who))
    return done


def _is_superuser(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("select rolsuper from pg_roles where rolname = current_user").fetchone()
    return bool(row and row[0])


def _settle(connection: psycopg.Connection[Any], name: str, password: str) -> None:
    """In one transaction: a name of its own, and the password of the file."""
    if name != SUPERUSER:
        # Nobody may rename whom he is: for a moment this session is another's.
        connection.execute("create role pipeline_renames superuser")
        connection.execute("set local session authorization pipeline_renames")
        old, new = sql.Identifier(name), sql.Identifier(SUPERUSER)
        connection.execute(sql.SQL("alter role {} rename to {}").format(old, new))
        connection.execute("reset session authorization")
        connection.execute("drop role pipeline_renames")
    hashed = connection.pgconn.encrypt_password(password.encode(), SUPERUSER.encode(), b"scram-sha-256").decode()
    change = sql.SQL("alter role {} password {}").format(sql.Identifier(SUPERUSER), sql.Literal(hashed))
    connection.execute(change)
