"""docker/postgres-init.sql makes the logins that `up` makes: run by psql, twice, on a real server."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline_platform.local.accounts import server_account
from pipeline_platform.local.databases import ensure_databases
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform_tests.conftest import make_state_dir, running
from pipeline_platform_tests.security.servers_kit import running_database

ROOT = Path(__file__).resolve().parents[2]
LOGINS = ("pipeline", "loader", "reader", "analyst", "dagster", "dagster_reader")
ROLES = """
select r.rolname::text, rolcanlogin, rolsuper or rolcreatedb or rolcreaterole or rolreplication or rolbypassrls,
    rolconnlimit, rolpassword like 'SCRAM-SHA-256$%%',
    (select array_agg(setting order by setting) from pg_db_role_setting s, unnest(setconfig) setting
        where setrole = r.oid),
    (select array_agg(g.rolname::text) from pg_auth_members m join pg_roles g on g.oid = m.roleid
        where m.member = r.oid)
from pg_authid r where rolname = any(%s) order by 1
"""
# Who may connect and make temporary tables, and who may take locks or make large objects, but for the superuser.
RIGHTS = """
select pg_get_userbyid(datdba)::text,
    (select array_agg(distinct r.rolname::text order by r.rolname::text) from pg_roles r
        where has_database_privilege(r.oid, d.oid, 'connect') and rolcanlogin and not rolsuper),
    (select array_agg(distinct r.rolname::text order by r.rolname::text) from pg_roles r
        where has_database_privilege(r.oid, d.oid, 'temporary') and rolcanlogin and not rolsuper),
    (select array_agg(distinct r.rolname::text order by r.rolname::text) from pg_roles r
        where has_function_privilege(r.oid, 'pg_advisory_xact_lock(bigint)', 'execute') and rolcanlogin
            and not rolsuper),
    has_function_privilege('public', 'lo_creat(integer)', 'execute')
from pg_database d where datname = current_database()
"""


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    state_dir = make_state_dir()
    server = PostgresServer.prepare(state_dir, server_account(), durable=False)
    for _ in running(server.service(), state_dir):
        ensure_databases(server.url(), ["warehouse"])
        yield server
    shutil.rmtree(state_dir.parent)


def _asked(url: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode(), values or None).fetchall()


def test_the_file_makes_what_up_makes(server: PostgresServer, tmp_path: Path) -> None:
    text = (ROOT / "docker" / "postgres-init.sql").read_text()
    rights = ROOT / "pipeline_platform" / "local" / "rights.sql"
    script = tmp_path / "logins.sql"
    script.write_text(text.replace("/srv/rights.sql", str(rights)))
    passwords = {f"{login.upper()}_PASSWORD": f"secret-of-{login}" for login in LOGINS}
    passwords["OWNER_PASSWORD"] = passwords.pop("PIPELINE_PASSWORD")
    psql = [str(server.binaries.bin / "psql"), "--no-psqlrc", "--file", str(script), server.url("warehouse")]
    for _ in range(2):
        done = subprocess.run(psql, env=passwords, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    with running_database() as up:
        names = list(LOGINS)
        assert _asked(server.url(), ROLES, names) == _asked(up.superuser_url, ROLES, names)
        for ours, of_up in (("warehouse", "warehouse"), ("warehouse_dagster", "dagster")):
            assert _asked(server.url(ours), RIGHTS) == _asked(up.url("superuser", of_up), RIGHTS), ours
    for login in ("loader", "reader", "analyst"):
        psycopg.connect(server.url("warehouse", login, f"secret-of-{login}")).close()
