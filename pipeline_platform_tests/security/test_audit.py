"""The audit: rows that nobody can change, nothing lost while PostgreSQL is away, memory bounded whatever comes."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from pipeline_platform.access.audit import MOST_DETAIL, Auditor
from pipeline_platform.access.audit_log import AuditLog
from pipeline_platform.access.refusals import MOST_WINDOWS, Refusal, RefusalTally
from pipeline_platform.errors import PermanentError
from pipeline_platform.local.accounts import server_account
from pipeline_platform.local.ports import free_port
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.local.supervisor import Supervisor
from pipeline_platform.warehouse.audit import AuditEntry, AuditFilter, insert, purge_audit, search
from pipeline_platform.warehouse.engine import connect, warehouse_errors
from pipeline_platform.warehouse.migrate import migrate
from pipeline_platform_tests.conftest import make_state_dir
from pipeline_platform_tests.integration.test_gateway.kit import Client, Pipeline, until
from pipeline_platform_tests.security import keys_kit

template_database = keys_kit.template_database
engine = keys_kit.engine
login_url = keys_kit.login_url
loader = keys_kit.loader
redis_client = keys_kit.redis_client
store = keys_kit.store
settings = keys_kit.settings
pipeline = keys_kit.pipeline
base = keys_kit.base
connected = keys_kit.connected

ALL = AuditFilter()


def _entry(event: str, ago: timedelta = timedelta(0), **parts: Any) -> AuditEntry:
    return AuditEntry(datetime.now(UTC) - ago, event, **parts)


@pytest.mark.parametrize(
    "statement",
    [
        "update audit set actor = 'somebody else'",
        "delete from audit",
        "truncate audit",
        "drop table audit",
        "alter table audit disable trigger all",
        "alter table audit rename to gone",
        "insert into audit (id, key, at, event, actor, actor_role, address, outcome, detail) overriding system value "
        "select id, gen_random_uuid(), at, 'forged', '', '', '', '', '{}' from audit "
        "on conflict (id) do update set event = 'forged'",
    ],
)
def test_the_loader_adds_rows_and_cannot_change_one(loader: sa.Engine, statement: str) -> None:
    insert(loader, [_entry("resume", actor="key 1a2b3c4d")])
    with pytest.raises(PermanentError, match="42501"), warehouse_errors(), loader.begin() as connection:
        connection.execute(sa.text(statement))
    assert [(row.event, row.actor) for row in search(loader, ALL, limit=10)] == [("resume", "key 1a2b3c4d")]


def test_the_reader_cannot_even_look(login_url: Callable[[str], str]) -> None:
    reader = connect(login_url("pipeline_reader"))
    with pytest.raises(PermanentError, match="42501"), warehouse_errors(), reader.connect() as connection:
        connection.execute(sa.text("select count(*) from audit"))
    reader.dispose()


def test_who_may_only_insert_can_record(engine: sa.Engine, login_url: Callable[[str], str]) -> None:
    name = f"recorders_{uuid.uuid4().hex}"
    with engine.begin() as connection:
        connection.execute(sa.text(f"create role {name}"))
        connection.execute(sa.text(f"grant usage on schema public to {name}"))
        connection.execute(sa.text(f"grant insert on audit to {name}"))
    recorder = connect(login_url(name))
    for entries in ([_entry("login")], [_entry("login"), _entry("logout")]):
        insert(recorder, entries)
        insert(recorder, entries)
    with pytest.raises(PermanentError, match="42501"):
        search(recorder, ALL, limit=1)
    recorder.dispose()
    assert [row.event for row in search(engine, ALL, limit=10)] == ["logout", "login", "login"]
    with engine.begin() as connection:
        connection.execute(sa.text(f"drop owned by {name}"))
        connection.execute(sa.text(f"drop role {name}"))


def test_an_entry_that_is_sent_twice_is_one_row(loader: sa.Engine) -> None:
    once, other = _entry("login"), _entry("logout")
    insert(loader, [once])
    insert(loader, [once, other])
    assert [row.event for row in search(loader, ALL, limit=10)] == ["logout", "login"]


def test_rows_are_found_by_what_they_are_and_in_pages(loader: sa.Engine) -> None:
    insert(loader, [_entry("login", timedelta(days=2), actor="user otto", outcome="ok")])
    insert(loader, [_entry("login-refused", actor="user otto", outcome="refused") for _ in range(5)])
    insert(loader, [_entry("replay", actor="key 1a2b3c4d")])
    assert len(search(loader, AuditFilter(events=("login", "replay")), limit=10)) == 2
    assert len(search(loader, AuditFilter(actor="user otto"), limit=10)) == 6
    assert len(search(loader, AuditFilter(outcome="refused"), limit=10)) == 5
    yesterday = datetime.now(UTC) - timedelta(days=1)
    assert [row.event for row in search(loader, AuditFilter(until=yesterday), limit=10)] == ["login"]
    assert len(search(loader, AuditFilter(since=yesterday), limit=10)) == 6
    pages, below = [], None
    while page := search(loader, ALL, limit=3, below_id=below):
        pages.append([row.id for row in page])
        below = page[-1].id
    assert [len(page) for page in pages] == [3, 3, 1]
    ids = [row for page in pages for row in page]
    assert ids == sorted(ids, reverse=True)


def test_the_owner_purges_what_is_old(engine: sa.Engine, loader: sa.Engine) -> None:
    insert(loader, [_entry("login", timedelta(days=400)) for _ in range(7)] + [_entry("logout")])
    assert purge_audit(engine, datetime.now(UTC) - timedelta(days=365), step=3) == 7
    assert [row.event for row in search(loader, ALL, limit=10)] == ["logout"]
    with pytest.raises(PermanentError, match="42501"):
        purge_audit(loader, datetime.now(UTC))


def test_recording_writes_a_row_and_a_line(loader: sa.Engine, tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    auditor = Auditor(loader, log)
    auditor.record(
        "discard", actor="key 1a2b3c4d", role="admin", address="203.0.113.9", detail={"ids": [7, 8], "matched": 2}
    )
    assert auditor.close() == 0
    [row] = search(loader, ALL, limit=10)
    [line] = [json.loads(text) for text in log.read_text().splitlines()]
    for found in (row.event, line["event"]):
        assert found == "discard"
    assert (row.actor, row.actor_role, row.address, row.outcome) == ("key 1a2b3c4d", "admin", "203.0.113.9", "ok")
    assert row.detail == line["detail"] == {"ids": [7, 8], "matched": 2}
    assert line["at"] == row.at.isoformat()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "detail",
    [{"text": "a\0b"}, {"text": "\ud800"}, {"ids": list(range(100_000))}, {7: object()}, {"text": "x" * 10**6}],
    ids=["nul", "surrogate", "ids", "object", "long"],
)
def test_nothing_that_is_recorded_breaks_it_or_is_long(
    loader: sa.Engine, tmp_path: Path, detail: dict[str, object]
) -> None:
    auditor = Auditor(loader, tmp_path / "audit.log")
    auditor.record("login", actor="user \x1b]0;title\x07" + "x" * 10_000, detail=detail)
    auditor.record("logout", actor="user otto")
    assert auditor.close() == 0
    newest, first = search(loader, ALL, limit=10)
    assert (newest.event, first.event) == ("logout", "login")
    assert len(first.actor) == 200
    assert first.actor.isprintable()
    assert len(json.dumps(first.detail)) < 2 * MOST_DETAIL


def test_nothing_is_lost_while_postgresql_is_away(
    loader: sa.Engine, database_url: str, login_url: Callable[[str], str], tmp_path: Path
) -> None:
    name = sa.make_url(database_url).database
    with psycopg.connect(database_url, autocommit=True) as owner:
        auditor = Auditor(loader, tmp_path / "audit.log", retry=0.05)
        auditor.record("resume", actor="key 1", detail={"n": 0})
        until(lambda: not auditor.waiting, 10)
        owner.execute(f'alter database "{name}" connection limit 0'.encode())
        owner.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
        for number in range(1, 2001):
            auditor.record("resume", actor="key 1", detail={"n": number})
        until(lambda: (tmp_path / "audit.log").read_bytes().count(b"\n") == 2001, 10)
        assert auditor.waiting == 2000
        owner.execute(f'alter database "{name}" connection limit -1'.encode())
        until(lambda: not auditor.waiting, 20)
        assert auditor.close() == 0
        found = owner.execute("select count(*), count(distinct detail->>'n'), max((detail->>'n')::int) from audit")
        assert found.fetchone() == (2001, 2001, 2000)


def test_nothing_is_lost_while_postgresql_itself_is_stopped_and_started(tmp_path: Path) -> None:
    folder = make_state_dir()
    server = PostgresServer.prepare(folder, server_account(), durable=False)

    def started() -> Supervisor:
        supervisor = Supervisor([server.service()], lambda name, line: None, folder)
        supervisor.start()
        return supervisor

    supervisor = started()
    engine = connect(server.url("postgres"))
    auditor = Auditor(engine, retry=0.05)
    try:
        migrate(engine, [])
        auditor.record("resume", actor="key 1", detail={"n": 0})
        until(lambda: not auditor.waiting, 10)
        supervisor.stop()
        for number in range(1, 501):
            auditor.record("resume", actor="key 1", detail={"n": number})
        assert auditor.waiting == 500
        supervisor = started()
        until(lambda: not auditor.waiting, 30)
        assert [row.detail["n"] for row in search(engine, ALL, limit=1000)] == list(range(500, -1, -1))
    finally:
        auditor.close()
        engine.dispose()
        supervisor.stop()
        shutil.rmtree(folder.parent)


def test_memory_is_bounded_while_postgresql_is_away_and_the_gap_is_told(loader: sa.Engine, tmp_path: Path) -> None:
    away = sa.create_engine(f"postgresql+psycopg://nobody:x@127.0.0.1:{free_port()}/none")
    auditor = Auditor(away, tmp_path / "audit.log", most_bytes=200_000, retry=0.05)
    for number in range(5_000):
        auditor.record("resume", actor="key 1", detail={"n": number, "text": "x" * 1000})
    kept = auditor.waiting
    assert auditor.waiting_bytes <= 200_000
    assert 100 <= kept < 200
    auditor._writer._engine = loader  # PostgreSQL is back
    until(lambda: not auditor.waiting, 10)
    auditor.close()
    rows = search(loader, ALL, limit=10_000)
    assert [row.event for row in rows] == ["audit-gap"] + ["resume"] * kept
    assert rows[0].detail == {"count": 5_000 - kept}
    assert auditor.waiting_bytes == 0


def test_refusals_are_one_row_a_minute_for_an_address_and_a_reason(loader: sa.Engine) -> None:
    now = [0.0]
    auditor = Auditor(loader, clock=lambda: now[0] + time.monotonic())
    for _ in range(500):
        auditor.refused(Refusal("unauthorized", "203.0.113.9", "unknown key", path="/v1/stats"))
    until(lambda: not auditor.waiting, 10)
    [row] = search(loader, ALL, limit=10)
    assert (row.event, row.address, row.outcome) == ("unauthorized", "203.0.113.9", "refused")
    assert row.detail == {"reason": "unknown key", "count": 1, "path": "/v1/stats"}
    now[0] = 61.0
    until(lambda: len(search(loader, ALL, limit=10)) == 2, 15)
    assert search(loader, ALL, limit=1)[0].detail["count"] == 499
    auditor.refused(Refusal("unauthorized", "203.0.113.9", "unknown key"))
    assert auditor.close() == 0
    assert [row.detail["count"] for row in search(loader, ALL, limit=10)] == [1, 499, 1]


def test_refusals_of_ever_new_addresses_are_bounded_and_counted() -> None:
    now = 0.0
    tally = RefusalTally(lambda: now)

    def throw(count: int) -> int:
        return sum(tally.note(Refusal("unauthorized", f"10.{n}", "no key")) is not None for n in range(count))

    assert throw(2 * MOST_WINDOWS) == MOST_WINDOWS + 1
    assert throw(4 * MOST_WINDOWS) == 0
    assert len(tally._windows) == MOST_WINDOWS + 1
    now = 61.0
    told = tally.due()
    assert len(told) == MOST_WINDOWS + 1
    assert sum(refusal.count for refusal in told) == 6 * MOST_WINDOWS - (MOST_WINDOWS + 1)
    now = 122.0
    assert tally.due() == []
    assert not tally.waiting


def test_the_log_is_moved_aside_at_its_limit_by_several_writers(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    one, other = AuditLog(path, limit=2000), AuditLog(path, limit=2000)
    for number in range(20):
        (one if number % 2 else other).write([_entry("resume", actor=f"key {number}")])
    old = path.with_name("audit.log.1")
    lines = [json.loads(line) for file in (old, path) for line in file.read_text().splitlines()]
    assert [line["actor"] for line in lines] == [f"key {number}" for number in range(20 - len(lines), 20)]
    assert old.stat().st_size <= 2000
    assert path.stat().st_size <= 2000


def test_the_log_belongs_to_whom_its_folder_belongs_and_is_no_way_elsewhere(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "logs", tmp_path / "elsewhere"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    AuditLog(folder / "audit.log").write([_entry("login")])
    assert (folder / "audit.log").stat().st_uid == folder.stat().st_uid
    assert stat.S_IMODE((folder / "audit.log").stat().st_mode) == 0o600
    elsewhere.write_text("as it was")
    (folder / "link.log").symlink_to(elsewhere)
    os.mkfifo(folder / "pipe.log")
    for name in ("link.log", "pipe.log"):
        with pytest.raises(OSError, match=r"levels of symbolic links|No such device"):
            AuditLog(folder / name).write([_entry("login")])
    assert elsewhere.read_text() == "as it was"


def test_a_log_that_cannot_be_written_keeps_no_row_from_the_table(loader: sa.Engine, tmp_path: Path) -> None:
    auditor = Auditor(loader, tmp_path / "none" / "audit.log")
    auditor.record("login", actor="user otto")
    assert auditor.close() == 0
    assert [row.event for row in search(loader, ALL, limit=10)] == ["login"]


def _events(engine: sa.Engine, count: int) -> list[Any]:
    until(lambda: len(search(engine, ALL, limit=100)) >= count, 10)
    return search(engine, ALL, limit=100)[::-1]


def test_who_reads_exports_replays_discards_and_resumes_is_in_the_audit(
    connected: Callable[..., Client], pipeline: Pipeline, engine: sa.Engine
) -> None:
    admin, operator = connected("admin"), connected("operate")
    admin.post([{"payload": "very-private"}] * 5)
    pipeline.run()

    def post(client: Client, path: str, **body: Any) -> None:
        assert client.http.post(client.base + path, json=body, timeout=30).status_code in (200, 202)

    assert len(admin.get("/v1/dead-letters?stream=telemetry&limit=3").json()["data"]) == 3
    assert admin.get("/v1/dead-letters/1").status_code == 200
    assert admin.get("/v1/dead-letters/export?state=open").text.count("\n") == 5
    post(operator, "/v1/dead-letters/replay", ids=[1, 2], dry_run=True)  # shows no payload
    post(admin, "/v1/dead-letters/replay", ids=[1, 2], dry_run=True)
    post(operator, "/v1/dead-letters/replay", ids=[1, 2], dry_run=False)
    post(admin, "/v1/dead-letters/discard", ids=[3], dry_run=False)
    post(operator, "/v1/streams/telemetry/resume")
    found = [(row.event, row.actor.split()[1], row.detail) for row in _events(engine, 7)]
    boss, hand = admin.token.split("_")[1], operator.token.split("_")[1]
    assert found == [
        ("dead-letters-read", boss, {"filter": {"streams": ["telemetry"]}, "count": 3}),
        ("dead-letters-read", boss, {"filter": {"ids": [1]}, "count": 1}),
        ("dead-letters-exported", boss, {"filter": {"states": ["open"]}, "count": 5}),
        ("dead-letters-read", boss, {"filter": {"ids": [1, 2]}, "count": 2, "dry_run": True}),
        ("replay", hand, {"replay": 1, "filter": {"ids": [1, 2]}, "matched": 2, "edited": False}),
        ("discard", boss, {"replay": 2, "filter": {"ids": [3]}, "matched": 1}),
        ("resume", hand, {"stream": "telemetry", "resumed": False}),
    ]
    rows = search(engine, ALL, limit=100)
    assert {row.address for row in rows} == {"127.0.0.1"}
    assert {row.outcome for row in rows} == {"ok"}
    assert {row.actor_role for row in rows} == {"admin", "operate"}
    assert "very-private" not in str(rows)


def test_an_export_that_breaks_off_is_in_the_audit_too(
    connected: Callable[..., Client], pipeline: Pipeline, engine: sa.Engine
) -> None:
    admin = connected("admin")
    for _ in range(20):
        admin.post([{"payload": "x" * 60_000}] * 100)
    pipeline.run()
    with admin.get("/v1/dead-letters/export", stream=True) as answer:
        next(answer.iter_content(1024))
    [row] = _events(engine, 1)
    assert (row.event, row.outcome) == ("dead-letters-exported", "failed")
    assert 0 < row.detail["count"] < 2000


def test_the_audit_is_read_over_http_in_pages_by_admins(connected: Callable[..., Client], loader: sa.Engine) -> None:
    admin = connected("admin")
    insert(loader, [_entry("login", timedelta(days=2), actor="user otto")])
    insert(loader, [_entry("login-refused", actor="user otto", outcome="refused") for _ in range(5)])
    rows: list[dict[str, Any]] = []
    cursor = ""
    while len(rows) < 100:
        page = admin.get(f"/v1/audit?limit=4{cursor}").json()
        rows += page["data"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert [row["event"] for row in rows] == ["login-refused"] * 5 + ["login"]
    assert set(rows[0]) == {"id", "at", "event", "actor", "actor_role", "address", "outcome", "detail"}
    for query, count in (
        ("event=login", 1),
        ("event=login&event=login-refused", 6),
        ("actor=user%20otto&outcome=refused", 5),
        (f"until={int((datetime.now(UTC) - timedelta(days=1)).timestamp() * 1000)}", 1),
        ("actor=user%20vera", 0),
    ):
        assert len(admin.get(f"/v1/audit?{query}").json()["data"]) == count, query
    for query, status in (("evnet=login", 422), ("limit=0", 422), ("cursor=x", 400), ("since=yesterday", 422)):
        assert admin.get(f"/v1/audit?{query}").status_code == status, query


def test_the_gateway_goes_on_and_loses_nothing_while_it_cannot_write_the_audit(
    connected: Callable[..., Client], engine: sa.Engine
) -> None:
    nobody = connected()
    with engine.begin() as connection:
        connection.execute(sa.text("revoke insert on audit from pipeline_loader"))
    assert nobody.get("/v1/stats").status_code == 401
    assert connected("ingest").post().status_code == 202
    with engine.begin() as connection:
        assert connection.scalar(sa.text("select count(*) from audit")) == 0
        connection.execute(sa.text("grant insert on audit to pipeline_loader"))
    assert [row.event for row in _events(engine, 1)] == ["unauthorized"]
