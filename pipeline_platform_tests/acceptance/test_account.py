"""As root, with a Python that another account can run: nothing of ours is root, and it works (findings F11 and F8).

With the demo, so that its load and its prices are looked at as well.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import psycopg
import pytest

from pipeline_platform.local.accounts import Account, python_files, service_account
from pipeline_platform.local.environment import LOGINS
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.keys import KeyStore, token_id
from pipeline_platform_tests.acceptance.processes import environment_of, processes_of
from pipeline_platform_tests.acceptance.stacks import COMMAND, Up
from pipeline_platform_tests.oracle import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs everything as themselves")
ROOT = Path(__file__).resolve().parents[2]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def _reachable_command(folder: Path) -> list[str]:
    """The command by a Python that the account can run: ours, or the system's of the same version on our packages."""
    if service_account(python_files())[0]:
        return COMMAND
    python = Path(f"/usr/bin/python{VERSION}")
    packages = Path(str(distribution("dagster").locate_file("")))
    account, why = service_account([python, packages / "dagster" / "__init__.py", ROOT / "setup.py"])
    if account is None:
        pytest.skip(f"no Python {VERSION} that another account can run: {why}")
    venv = folder / "venv"
    subprocess.run([python, "-m", "venv", "--without-pip", venv], check=True, env={"PATH": os.environ["PATH"]})
    site = venv / "lib" / f"python{VERSION}" / "site-packages"
    (site / "shared.pth").write_text(f"{ROOT}\n{packages}\n")
    if not (packages / "async_timeout").exists():  # what a Python before 3.11.3 would have had installed for redis-py
        (site / "async_timeout.py").write_text("from asyncio import timeout\n")
    return [str(venv / "bin" / "python"), "-m", "pipeline_platform.cli.main"]


@pytest.fixture(scope="module")
def demo() -> Iterator[Up]:
    folder = Path(tempfile.mkdtemp(prefix="pipeline-venv-"))
    folder.chmod(0o755)
    stack = Up("--demo", command=_reachable_command(folder))
    try:
        yield stack.start(180)
    finally:
        stack.remove()
        shutil.rmtree(folder)


def _users(demo: Up) -> dict[str, set[str]]:
    return {
        service["name"]: {pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name for pid in processes_of(service["pid"])}
        for service in demo.status()["services"]
    }


@pytest.mark.timeout(400)
def test_every_service_runs_as_an_account_that_is_not_postgresqls(demo: Up) -> None:
    users = _users(demo)
    assert {"gateway", "code", "worker", "etl", "daemon", "dagster", "prices", "demo"} < set(users)
    servers = users.pop("postgres") | users.pop("valkey")
    edge = users.pop("gateway") | users.pop("prices") | users.pop("demo")
    ours = set().union(*users.values())
    assert (edge, ours) == ({"nobody"}, {"daemon"})
    assert "root" not in servers
    assert "runs as root" not in demo.log
    wait_for("it loads", lambda: all(stream["loaded"] for stream in demo.status()["streams"]), 120)


def test_the_demo_has_a_key_of_its_own_and_no_password(demo: Up) -> None:
    where = demo.status()
    for service in ("demo", "prices"):
        environment = environment_of(demo.pid(service))
        wanted = {"PIPELINE_API_KEY"} if service == "demo" else set()
        assert {name for name in environment if name in LOGINS} == wanted
        text = " ".join(environment.values())
        secrets = {path.name: path.read_text().strip() for path in (demo.state_dir / "secrets").iterdir()}
        assert [name for name, secret in secrets.items() if secret in text] == (["demo_key"] if wanted else [])
    with connect(where["redis_url"]) as client:
        keys = {key.id: key for key in KeyStore(client).list()}
    token = environment_of(demo.pid("demo"))["PIPELINE_API_KEY"]
    assert keys[str(token_id(token))].scopes == {"ingest", "read"}


@pytest.mark.parametrize("service", ["gateway", "worker"])
def test_the_account_reads_nothing_of_what_root_keeps(demo: Up, service: str) -> None:
    entry = pwd.getpwnam(_users(demo)[service].pop())
    account = Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    paths = [demo.state_dir / name for name in ("connections.json", "secrets/reader", "run/valkey.conf")]
    paths += [demo.state_dir / "logs" / "postgres.log", demo.state_dir / "postgres" / "data" / "PG_VERSION"]
    if service == "gateway":  # nor what another of our services was told
        paths.append(Path(f"/proc/{demo.pid('worker')}/environ"))
    for path in paths:
        assert path.exists()
        read = subprocess.run(
            ["cat", path], capture_output=True, user=account.uid, group=account.gid, extra_groups=[], cwd="/"
        )
        assert read.returncode != 0, path
    with psycopg.connect(demo.status()["warehouse_readonly_url"]) as connection:
        assert connection.execute("select count(*) > 0 from assets").fetchone() == (True,)


def test_a_service_writes_where_its_account_may(demo: Up) -> None:
    folder = demo.state_dir / "run" / "services"
    assert {path.name for path in folder.iterdir()} >= {"worker-ready", "etl-ready"}
    assert pwd.getpwuid(folder.stat().st_uid).pw_name != "root"
