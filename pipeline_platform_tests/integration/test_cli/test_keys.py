"""`keys` and `audit`: what a key is for, when it ends, who made it; and that the audit knows."""

from __future__ import annotations

import getpass
import stat
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from pipeline_platform.local.connections import Connections
from pipeline_platform_tests.integration.test_cli.conftest import Stack
from pipeline_platform_tests.integration.test_cli.kit import run

USER = getpass.getuser()


def test_a_key_has_streams_an_end_and_a_maker(servers: Stack) -> None:
    here = ("--state-dir", servers.folder)
    narrow = ("--scope", "ingest", "--stream", "telemetry", "--stream", "orders", "--expires", "90d")
    made = run("keys", "create", "press hall", *narrow, *here, "--json").document
    assert made["streams"] == ["orders", "telemetry"]
    assert made["created_by"] == USER
    end = datetime.fromisoformat(made["expires_at"])
    assert abs(end - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=1)
    dated = run("keys", "create", "tour", "--scope", "read", "--expires", "2099-12-31", *here)
    assert "may read until 2099-12-31 00:00." in dated.err
    listed = {key["name"]: key for key in run("keys", "list", *here, "--json").document}
    assert listed["press hall"] == {name: part for name, part in made.items() if name != "token"}
    assert listed["first"]["streams"] is None
    assert listed["first"]["state"] == "good"
    assert listed["first"]["last_used_at"] is None
    table = run("keys", "list", *here).out
    for shown in ("orders telemetry", USER, f"{end:%Y-%m-%d %H:%M}", "2099-12-31 00:00"):
        assert shown in table


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--stream", "nope"), "There is no stream 'nope'; there are orders, telemetry."),
        (("--expires", "soon"), "'soon' is no end of a key"),
        (("--expires", "2027-02-30"), "--expires 2027-02-30: there is no such day"),
        (("--expires", "20270131"), "is no end of a key"),
        (("--expires", "2027-W05-1"), "is no end of a key"),
        (("--expires", "9999999d"), "is no end of a key"),
        (("--expires", "2020-01-01"), "cannot expire in the past"),
        (("--scope", "admin", "--stream", "orders"), "is for all streams"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused_and_not_made(servers: Stack, options: tuple[str, ...], said: str) -> None:
    here = ("--state-dir", servers.folder)
    assert said in run("keys", "create", "x", *options, *here).error
    assert [key["name"] for key in run("keys", "list", *here, "--json").document] == ["first"]


def test_the_audit_knows_who_made_and_revoked_keys_and_never_a_token(stack: Stack) -> None:
    here = ("--state-dir", stack.folder)
    made = run("keys", "create", "press hall", "--scope", "ingest", "--stream", "telemetry", *here, "--json").document
    assert run("keys", "revoke", made["id"], *here).code == 0
    revoked, created = run("audit", *here, "--json").document
    assert (created["event"], created["actor"], created["outcome"]) == ("key-created", f"os {USER}", "ok")
    assert created["detail"] == {
        **{"id": made["id"], "name": "press hall", "scopes": ["ingest"], "streams": ["telemetry"]},
        "expires_at": None,
    }
    assert (revoked["event"], revoked["detail"]) == ("key-revoked", {"id": made["id"]})
    log = stack.folder / "logs" / "audit.log"
    if log.exists():
        assert made["token"] not in log.read_text()
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
    table = run("audit", "--event", "key-created", *here).out
    assert "press hall" in table
    assert "key-revoked" not in table
    assert made["token"] not in table
    assert "Nothing in the audit matches." in run("audit", "--actor", "user nobody", *here).out


def test_keys_are_made_and_revoked_while_postgresql_is_away(servers: Stack) -> None:
    away = {**servers.where.__dict__, "warehouse_loader_url": "postgresql://nobody:x@127.0.0.1:1/none"}
    Connections(**away).save(servers.folder)
    here = ("--state-dir", servers.folder)
    made = run("keys", "create", "x", *here)
    assert made.code == 0
    assert made.out.startswith("pp_")
    assert "could not be written into the table audit" in made.err
    done = run("keys", "revoke", made.out.split("_")[1], *here)
    assert "is revoked" in done.out
    assert "could not be written into the table audit" in done.err
    with psycopg.connect(servers.where.warehouse_url) as connection:
        assert connection.execute("select count(*) from audit").fetchone() == (0,)


def test_what_somebody_did_cannot_steer_the_terminal_that_reads_it(stack: Stack) -> None:
    with psycopg.connect(stack.where.warehouse_url) as connection:
        connection.execute(
            "insert into audit (key, at, event, actor, actor_role, address, outcome, detail) values "
            "(gen_random_uuid(), now(), 'login', E'user \\x1b]0;title\\x07', '', '', 'ok', "
            "jsonb_build_object('path', E'\\x1b[31m'))"
        )
    out = run("audit", "--state-dir", stack.folder).out
    assert "login" in out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_following_tells_what_comes_once_and_the_newest_last(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def more(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 4:
            raise KeyboardInterrupt
        with psycopg.connect(stack.where.warehouse_url) as connection:
            for number in range(150 if looks == 2 else 1):
                connection.execute(
                    "insert into audit (key, at, event, actor, actor_role, address, outcome, detail) values "
                    "(gen_random_uuid(), now(), 'login', 'user otto', '', '', 'ok', jsonb_build_object('n', %s::text))",
                    [f"{looks}-{number}"],
                )

    monkeypatch.setattr("pipeline_platform.cli.audit.time.sleep", more)
    out = run("audit", "--follow", "--state-dir", stack.folder).out
    told = [line.split("n=")[1] for line in out.splitlines()]
    assert told == ["1-0", *(f"2-{number}" for number in range(150)), "3-0"]
