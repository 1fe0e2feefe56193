"""`job`, `keys`, `streams`, `doctor`, and the help of every command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
import typer

from pipeline_platform.cli import doctor_servers
from pipeline_platform.cli.main import COMMANDS, command_line
from pipeline_platform.core.entries import EntryId
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.keys import token_id
from pipeline_platform.queue.workers import WorkerBoard
from pipeline_platform_tests.integration.test_cli.conftest import Stack
from pipeline_platform_tests.integration.test_cli.kit import readings, run, write_ndjson
from pipeline_platform_tests.integration.test_gateway.kit import until


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


def test_every_command_has_help_with_an_example() -> None:
    found = dict(_commands(typer.main.get_command(command_line())))
    assert {("ingest",), ("streams", "check"), ("job",), ("sql",), ("doctor",), ("keys", "create")} <= set(found)
    for path, command in found.items():
        if path:
            assert command.help, path
            assert "Example" in command.help, path
            shown = run(*path, "--help")
            assert shown.code == 0
            assert "Example: pipeline-platform " in shown.out or len(path) == 1, path
            if not hasattr(command, "commands"):
                assert "--state-dir" in shown.out, path


def test_a_command_is_found_alone_as_among_all() -> None:
    assert set(_words(command_line())) == set(COMMANDS)
    for word in COMMANDS:
        assert _words(command_line(word)) == [word]


def _words(app: typer.Typer) -> list[str]:
    return list(getattr(typer.main.get_command(app), "commands", ()))


def test_job_follows_a_request(stack: Stack, tmp_path: Path) -> None:
    bad = {"source": "a", "metric": "m", "value": "x"}
    file = write_ndjson(tmp_path / "x.ndjson", [*readings(5), bad])
    here = ("--state-dir", stack.folder)
    receipt = run("ingest", "telemetry", file, *here, "--json").document["first_receipt"]
    assert run("job", receipt, *here, "--json").document["state"] == "queued"
    assert run("job", receipt, *here, "--wait", 0.2).code == 1
    stack.pipeline.run()
    done = run("job", receipt, *here, "--wait", 5)
    assert done.code == 0
    assert "partial" in done.out
    assert "6 received, 5 loaded, 0 negative, 1 rejected" in done.out
    assert "http://dagster.test:3000/runs/run-1" in done.out
    shown = [line.split() for line in done.out.partition("since receipt")[2].strip().splitlines()]
    assert [words[0] for words in shown] == ["received", "planned", "requested", "started", "loaded", "visible"]
    took, since = ([int(words[n].replace(",", "")) for words in shown[1:]] for n in (2, 4))
    assert since == sorted(since)
    assert sum(took) == pytest.approx(since[-1], abs=3)
    assert "is not a receipt" in run("job", "nonsense", *here).error
    assert "There never was a receipt" in run("job", "telemetry.1-1", *here).error


def test_status_counts_the_workers_of_all_machines(stack: Stack) -> None:
    here = ("--state-dir", stack.folder)
    with connect_queue(stack.where.redis_url) as client:
        WorkerBoard(client).beat("worker@one", 2, 0)
        WorkerBoard(client).beat("worker@two", 4, 3)
        workers = run("status", *here, "--json").document["workers"]
        assert workers == {"alive": 2, "busy": 1, "slots": 6, "slots_busy": 3}
        assert "2 workers live, on all machines; 3 of 6 processes execute a run" in run("status", *here).out


def test_status_shows_no_secret_unless_it_is_asked_to(servers: Stack) -> None:
    here = ("--state-dir", servers.folder)
    asked = replace(servers.where, redis_url=f"{servers.where.redis_url}?password=secret-of-the-query")
    words = [asked.api_key.split("_", 2)[2], "secret-of-the-query"]
    words += [urlsplit(url).password or "" for url in (asked.warehouse_url, servers.where.redis_url)]
    assert all(len(word) > 8 for word in words)
    (servers.folder / "asked").mkdir()
    asked.save(servers.folder / "asked")
    for place in (here, ("--state-dir", servers.folder / "asked")):
        shown = run("status", *place).out + run("status", *place, "--json").out
        assert not [word for word in words if word in shown]
        assert f"pp_{token_id(asked.api_key)}_***" in shown
    whole = run("status", *here, "--json", "--secrets").document
    assert (whole["api_key"], whole["warehouse_url"]) == (servers.where.api_key, servers.where.warehouse_url)
    assert servers.where.api_key in run("status", *here, "--secrets").out
    assert run("status", *here, "--field", "api_key").out.strip() == servers.where.api_key


def test_keys_are_made_listed_and_revoked(servers: Stack) -> None:
    here = ("--state-dir", servers.folder)
    made = run("keys", "create", "shop [1]", "--scope", "ingest", *here, "--json").document
    assert made["scopes"] == ["ingest"]
    assert made["token"].startswith(f"pp_{made['id']}_")
    plain = run("keys", "create", "other", *here)
    assert plain.out.startswith("pp_")
    assert "may ingest and read" in plain.err
    listed = run("keys", "list", *here)
    assert "shop [1]" in listed.out
    assert made["token"] not in listed.out
    assert run("keys", "revoke", made["id"], *here).code == 0
    revoked = {key["id"]: key["revoked_at"] for key in run("keys", "list", *here, "--json").document}
    assert revoked[made["id"]]
    assert sum(map(bool, revoked.values())) == 1
    assert "There is no key 'nope'" in run("keys", "revoke", "nope", *here).error
    assert "is not a scope" in run("keys", "create", "x", "--scope", "all", *here).error


def test_streams_are_listed_and_shown(servers: Stack, tmp_path: Path) -> None:
    here = ("--state-dir", servers.folder)
    listed = {row["name"]: row for row in run("streams", "list", *here, "--json").document}
    assert listed["telemetry"]["measures"] == ["value"]
    assert listed["telemetry"]["backlog"] == 0
    without = run("streams", "list", "--state-dir", tmp_path, "--json").document
    assert [row["backlog"] for row in without] == [None, None]
    assert "orders" in run("streams", "list", *here).out
    shown = run("streams", "show", "orders", *here).out
    assert "amount (negatives: reject)" in shown
    assert "/v1/streams/orders/events" in shown
    assert run("streams", "show", "orders", *here, "--json").document["views"] == [
        "orders",
        "orders_1m",
        "orders_1h",
        "orders_1d",
    ]
    assert "there are orders, telemetry" in run("streams", "show", "nope", *here).error
    assert "there are orders, telemetry" in run("alerts", "list", "--stream", "nope", *here).error


def test_streams_check_says_what_would_change(servers: Stack, tmp_path: Path) -> None:
    here = ("--state-dir", servers.folder)
    assert run("streams", "check", *here, "--json").document["changes"] == []
    file = tmp_path / "telemetry.yaml"
    file.write_text("name: telemetry\ndimensions: [source, metric, site]\nmeasures: [value]\n")
    added = run("streams", "check", file, *here)
    assert added.code == 0
    assert "migrate would: telemetry: add the column telemetry_series.site" in added.out
    file.write_text("name: telemetry\ndimensions: [source]\nmeasures: [value]\n")
    lost = run("streams", "check", tmp_path, *here, "--json")
    assert lost.code == 1
    assert [change["destructive"] for change in lost.document["changes"]] == [True]
    file.write_text("name: telemetry\ndimensions: [source]\nmeasures: [value]\npolicies: {late: 1h}\n")
    wrong = run("streams", "check", file, *here)
    assert wrong.code == 1
    assert f"{file}, line 4, field policies.late: no such field" in wrong.out
    file.write_text("name: telemetry_batch\ndimensions:\n  - ctid\n  - limit\nmeasures: [b]\n")
    odd = run("streams", "check", file, *here, "--json")
    assert odd.code == 1
    assert odd.document["errors"] == [
        f"{file}, line 3, field dimensions.ctid: PostgreSQL has a column of this name in every table; choose another."
    ]
    file.write_text("name: telemetry_batch\ndimensions: [limit]\nmeasures: [b]\n")
    assert f"{file}, line 1, field name: the streams 'telemetry' and" in run("streams", "check", tmp_path, *here).out
    file.write_text("name: user\ndimensions: [a]\nmeasures: [b]\n")
    assert f"{file}, line 1, field name: 'user' is a word of SQL" in run("streams", "check", file, *here).out
    file.write_text("name: new\ndimensions: [order, a]\nmeasures: [user]\n")
    alone = run("streams", "check", file, "--state-dir", tmp_path / "none")
    assert alone.code == 0
    assert "the tables were not compared" in alone.out
    assert 'need quotes in it: "order", "user".' in alone.out
    assert run("streams", "check", tmp_path / "missing", *here).code == 1


def _levels(folder: Path) -> tuple[int, dict[str, set[str]], str]:
    done = run("doctor", "--state-dir", folder, "--json")
    levels: dict[str, set[str]] = {}
    for check in done.document["checks"]:
        levels.setdefault(check["check"], set()).add(check["level"])
    return done.code, levels, done.out


def test_doctor_finds_nothing_wrong_with_a_good_stack(stack: Stack, tmp_path: Path) -> None:
    file = write_ndjson(tmp_path / "x.ndjson", [*readings(50), {"source": "a"}])
    assert run("ingest", "telemetry", file, "--state-dir", stack.folder).code == 0
    stack.pipeline.run()
    until(lambda: _levels(stack.folder)[0] == 0, 10)
    _, levels, out = _levels(stack.folder)
    for check in ("Python", "PostgreSQL", "room for locks", "Valkey", "state folder", "schema", "streams", "Redis",
                  "durability", "queue memory", "queue of telemetry", "telemetry reconciled", "gateway"):  # fmt: skip
        assert levels[check] == {"ok"}, out
    assert "ok  durability" in run("doctor", "--state-dir", stack.folder).out


def test_doctor_notices_what_disagrees(servers: Stack) -> None:
    # Given facts that lack a row the ledger counted, a lost entry, and a queue that went backwards
    pipeline = servers.pipeline
    with redis.Redis.from_url(servers.where.redis_url) as client:
        line = '{"source":"a","metric":"m","value":1}\n'
        for stream, seconds in (("telemetry", 0), ("orders", 10**9)):
            entry = f"{1_700_000_000_000 + seconds * 1000}-0"
            client.xadd(f"pp:{{{stream}}}:entries", {"n": 2, "k": "k", "d": line * 2}, id=entry)
            client.xadd(f"pp:{{{stream}}}:sizes", {"n": 2, "b": 10, "e": 2}, id=entry)
    with psycopg.connect(servers.where.warehouse_url) as connection:
        connection.execute(
            "insert into assets (asset_key, stream, state, first_ms, first_seq, last_ms, last_seq, events_read, "
            "events_loaded, first_ts, last_ts, loaded_at) values "
            "('x', 'telemetry', 'loaded', 1800000000000, 0, 1800000000000, 0, 2, 2, now(), now(), now()), "
            "('y', 'orders', 'planned', 1, 0, 1, 0, 0, 0, null, null, null)"
        )
    assert pipeline.ledger.last_planned("telemetry") == EntryId(1_800_000_000_000, 0)
    # If doctor looks, I expect each to fail with what to do
    code, levels, out = _levels(servers.folder)
    assert code == 1
    assert levels["queue of telemetry"] == {"fail"}
    assert "an old copy was restored" in out
    assert levels["queue of orders"] == {"fail"}
    assert "planned but no longer there" in out
    assert levels["telemetry reconciled"] == {"ok", "fail"}
    assert "the ledger says 2 loaded" in out
    assert levels["gateway"] == {"warn"}


def test_doctor_without_a_stack_is_a_look_at_the_machine(tmp_path: Path) -> None:
    code, levels, _ = _levels(tmp_path / "none")
    assert code == 0
    assert levels["stack"] == {"warn"}
    assert "PostgreSQL" in levels
    (tmp_path / "file").touch()
    code, levels, _ = _levels(tmp_path / "file")
    assert (code, levels["state folder"]) == (1, {"fail"})


def test_doctor_warns_of_a_server_that_forgets(servers: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"appendonly": "no", "appendfsync": "everysec", "maxmemory-policy": "allkeys-lru"}
    monkeypatch.setattr(redis.Redis, "config_get", lambda *_: told)
    code, levels, out = _levels(servers.folder)
    assert (code, levels["durability"]) == (0, {"warn"})
    assert out.count("NOT DURABLE") == 3


def test_doctor_warns_of_open_locks_and_of_old_sessions(servers: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    _, levels, out = _levels(servers.folder)
    assert (levels["locks"], levels["sessions"]) == ({"warn"}, {"ok"})
    assert "rights.sql" in out
    with psycopg.connect(servers.where.warehouse_url) as connection:
        connection.execute(files("pipeline_platform.local").joinpath("rights.sql").read_bytes())
    at_once = doctor_servers._OLD_SESSIONS.replace("1 minute", "0 seconds")
    monkeypatch.setattr(doctor_servers, "_OLD_SESSIONS", at_once)
    with psycopg.connect(servers.where.warehouse_readonly_url) as idle:
        idle.execute("select 1")
        _, levels, out = _levels(servers.folder)
        assert (levels["locks"], levels["sessions"]) == ({"ok"}, {"warn"})
        assert f"process {idle.info.backend_pid}" in out


def test_doctor_warns_of_a_server_with_room_for_few_locks(servers: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_servers, "days_of_events", lambda _: 100_000)
    _, levels, out = _levels(servers.folder)
    assert levels["room for locks"] == {"warn"}
    assert "set max_locks_per_transaction to 2000 and restart PostgreSQL" in out


def test_doctor_says_when_servers_are_away_and_never_a_password(servers: Stack) -> None:
    away = servers.where.__dict__ | {
        "warehouse_url": "postgresql://me:geheim@127.0.0.1:9/x",
        "redis_url": "redis://:geheim@127.0.0.1:9/0",
    }
    type(servers.where)(**away).save(servers.folder)
    code, levels, out = _levels(servers.folder)
    assert code == 1
    assert "fail" in levels["PostgreSQL"]
    assert levels["Redis"] == {"fail"}
    assert "geheim" not in out
