"""What each running service is told, whom it runs as, and what others may read of it (findings F8, F11, F14)."""

from __future__ import annotations

import json
import os
import pwd
import stat
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from pipeline_platform.local.accounts import python_files, service_account
from pipeline_platform.local.environment import LOGINS, NEEDS
from pipeline_platform_tests.acceptance.processes import environment_of, login_of, processes_of
from pipeline_platform_tests.acceptance.stacks import Up

# Service -> the logins whose passwords it holds: of PostgreSQL by name, of Valkey with their database.
HOLDS = {
    "gateway": {"reader", "loader", "dagster_reader", "valkey gateway 0"},
    "code": {"pipeline", "loader", "dagster", "valkey daemon 0", "valkey daemon 1"},
    "worker": {"pipeline", "loader", "dagster", "valkey workers 0", "valkey workers 1"},
    "etl": {"pipeline", "loader", "dagster", "valkey workers 0", "valkey workers 1"},
    "daemon": {"dagster", "valkey daemon 1"},
    "dagster": {"loader", "dagster", "valkey web 0", "valkey web 1"},
    "postgres": set(),
    "valkey": set(),
}


@pytest.mark.parametrize("service", sorted(HOLDS))
def test_a_service_holds_the_logins_that_it_needs_and_no_other_password(up: Up, service: str) -> None:
    secrets = {path.name: path.read_text().strip() for path in (up.state_dir / "secrets").iterdir()}
    assert len(secrets) >= 12
    leader = up.pid(service)
    for pid in processes_of(leader):
        environment = environment_of(pid)
        urls = [value for name, value in environment.items() if name in LOGINS and "://" in value]
        assert {login_of(url) for url in urls} == HOLDS[service]
        assert {name for name in environment if name in LOGINS} == set(NEEDS.get(service, ()))
        passwords = {urlsplit(url).password for url in urls}
        for name, secret in secrets.items():
            holding = [variable for variable, value in environment.items() if secret in value]
            assert not holding or secret in passwords, (name, holding)
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        assert not [name for name, secret in secrets.items() if secret in arguments]


def test_what_the_environment_of_up_holds_is_passed_on_to_those_who_need_it(up: Up) -> None:
    # A key of a source or a webhook, named in a file of the operator's own: for runs and checks, not for the edge.
    assert up.env["KEY_OF_A_SOURCE"] == "sesame-street"
    knowing = {service for service in HOLDS if "KEY_OF_A_SOURCE" in environment_of(up.pid(service))}
    assert knowing == {"code", "worker", "etl"}


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs everything as themselves")
def test_as_root_no_service_is_root_where_another_account_can_run_it(up: Up) -> None:
    account, why = service_account([*python_files(), up.state_dir])
    users = {
        service: {pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name for pid in processes_of(up.pid(service))}
        for service in HOLDS
    }
    servers = {users.pop("postgres").pop(), users.pop("valkey").pop()}
    assert servers <= {"postgres", "nobody"}
    if account is None:
        assert f"WARNING: every service runs as root, because {why}." in " ".join(up.log.split())
    edge = users.pop("gateway")
    assert all(names == {account.name if account else "root"} for names in users.values()), users
    assert edge == ({"nobody"} if account else {"root"})


def test_nobody_else_reads_logs_or_secrets(up: Up) -> None:
    passable = 0o711 if os.geteuid() == 0 else 0o700
    folders = {"secrets": 0o700, "logs": 0o700, "ports": 0o700, "run": passable, "postgres": passable}
    folders |= {"valkey": passable, "run/services": 0o700, "postgres/data": 0o700, "valkey/data": 0o700}
    for name, mode in folders.items():
        assert stat.S_IMODE((up.state_dir / name).stat().st_mode) == mode, name
    logs = list((up.state_dir / "logs").iterdir())
    assert len(logs) >= len(HOLDS)
    secrets = list((up.state_dir / "secrets").iterdir())
    for path in [*logs, *secrets, up.state_dir / "connections.json", up.state_dir / "run" / "valkey.conf"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_the_gateways_login_and_the_superusers_password_are_shown_nowhere(up: Up) -> None:
    hidden = [(up.state_dir / "secrets" / name).read_text().strip() for name in ("reader", "postgres", "dagster")]
    shown = up.log + up.run("status").stdout + up.run("status", "--json").stdout
    assert not [secret for secret in hidden if secret in shown]
    where = json.loads((up.state_dir / "connections.json").read_text())
    assert hidden[1] not in json.dumps(where)
    with psycopg.connect(up.status()["warehouse_readonly_url"]) as connection:
        assert connection.execute("select current_user").fetchone() == ("analyst",)
