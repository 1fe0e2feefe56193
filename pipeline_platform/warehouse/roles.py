"""The loader and the reader: who may do what. Made by every `migrate`, since a dump of a database holds no roles."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

LOADER, READER = "pipeline_loader", "pipeline_reader"

# A role belongs to the whole server, and making one needs a right that an owner of one database may lack. Without
# the roles everything works as the owner; `pipeline-platform doctor` says so.
ROLES = """
do $$
declare
    role_name text;
begin
    foreach role_name in array array['pipeline_loader', 'pipeline_reader'] loop
        if not exists (select from pg_roles where rolname = role_name) then
            begin
                execute format('create role %I nologin', role_name);
            exception
                when insufficient_privilege then
                    raise notice 'no right to create the role %', role_name;
                when duplicate_object or unique_violation then
                    null;  -- another migration on the same server was quicker
            end;
        end if;
    end loop;
end
$$
"""


def ensure_roles(connection: sa.Connection) -> None:
    """Makes the roles that are missing, where the owner may."""
    connection.execute(sa.text(ROLES))


def grant(connection: sa.Connection, relations: Iterable[str], version_table: str) -> None:
    """Gives both roles what they need on our own relations, by name: the schema may hold somebody else's tables."""
    ours = ", ".join(f'"{name}"' for name in relations)
    for role, rights in ((LOADER, "select, insert, update, delete"), (READER, "select")):
        if not connection.scalar(sa.text("select true from pg_roles where rolname = :role"), {"role": role}):
            continue
        connection.execute(sa.text(f"grant usage on schema public to {role}"))
        connection.execute(sa.text(f"grant {rights} on {ours} to {role}"))
        connection.execute(sa.text(f"grant select on {version_table} to {role}"))
        if role == LOADER:
            connection.execute(sa.text(f"grant execute on function pipeline_ensure_partition(text, date) to {role}"))
