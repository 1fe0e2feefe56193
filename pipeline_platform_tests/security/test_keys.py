"""Keys: what each scope opens, named streams, the end of a key, its last use and its maker."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
import requests
import sqlalchemy as sa

from pipeline_platform.errors import PermanentError, QueueUnavailableError
from pipeline_platform.gateway.scopes import LOGIN, ROUTES
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.key_uses import KEY_USED, KeyUses
from pipeline_platform.queue.keys import IMPLIED, KEYS, SCOPES, Key, KeyStore
from pipeline_platform_tests.integration.batches import rows
from pipeline_platform_tests.integration.letters import refuse
from pipeline_platform_tests.integration.test_cli.kit import run
from pipeline_platform_tests.integration.test_gateway.kit import GOOD, Client, Pipeline, until
from pipeline_platform_tests.security import keys_kit
from pipeline_platform_tests.security.route_table import GATEWAY, declared

template_database = keys_kit.template_database
engine = keys_kit.engine
login_url = keys_kit.login_url
redis_client = keys_kit.redis_client
store = keys_kit.store
settings = keys_kit.settings
pipeline = keys_kit.pipeline
base = keys_kit.base
connected = keys_kit.connected

Connected = Callable[..., Client]
API = Path(__file__).resolve().parents[2] / "docs" / "api.md"
ORDER = {"country": "DE", "product": "tea", "amount": 4.5, "quantity": 1}


def _ask(client: Client, method: str, path: str) -> requests.Response:
    return client.http.request(method, client.base + path, json={} if method == "POST" else None, timeout=30)


def test_the_table_of_scopes_is_what_the_document_and_the_tests_say() -> None:
    """Who may use which route is tested in test_every_route.py."""
    tested = {
        route: row.may
        for route, row in GATEWAY.items()
        if route in declared(GATEWAY) - {("GET", "/docs/assets/{path}")}
    }
    good_for = {scope: {scope, *IMPLIED.get(scope, ())} for scope in SCOPES}
    said = {route: {each for each in SCOPES if good_for[each] & set(row.scopes)} for route, row in ROUTES.items()}
    assert said | {route: tested[route] for route in LOGIN} == tested
    page = API.read_text(encoding="utf-8")
    described: dict[tuple[str, str], tuple[str, ...]] = {}
    for cells, scopes in re.findall(r"^\| ((?:`[A-Z]+ /[^|]*)) \| ([^|]*) \|", page, re.MULTILINE):
        for method, path in re.findall(r"`([A-Z]+) (/[^`]*)`", cells):
            described[method, path] = tuple(re.findall(r"`(\w+)`", scopes))
    assert described == {route: access.scopes for route, access in ROUTES.items()} | dict.fromkeys(LOGIN, ())


def test_each_route_holds_a_key_for_named_streams_to_them(
    connected: Connected, pipeline: Pipeline, engine: sa.Engine
) -> None:
    everybody = connected("admin")
    receipts = {}
    for stream, event in (("telemetry", GOOD), ("orders", ORDER)):
        receipts[stream] = everybody.post([event, {"x": 1}], stream=stream).json()["receipt"]
        pipeline.run(stream)
    theirs = dict(rows(engine, "select stream, max(id) from assets group by stream"))
    client = connected("ingest", "operate", streams=("telemetry",))
    seen = set()
    for (method, path), access in ROUTES.items():
        if not access.scopes or access.scopes == ("admin",):
            continue
        own, other = (
            _ask(client, method, path.format(stream=stream, receipt=receipts[stream], id=theirs[stream]))
            for stream in ("telemetry", "orders")
        )
        seen.add(access.narrow)
        match access.narrow:
            case "stream":
                assert (own.status_code == 403, other.status_code) == (False, 403), path
                assert "is for telemetry only" in other.json()["detail"]
            case "refused":
                assert own.status_code == other.status_code == 403, path
            case "own" if "{" in path:
                assert (own.status_code == 404, other.status_code) == (False, 404), path
            case _:
                assert "orders" not in own.text, path
    assert seen == {"stream", "own", "refused"}
    assert [each["name"] for each in client.get("/v1/streams").json()["streams"]] == ["telemetry"]
    assert {each["stream"] for each in client.get("/v1/assets").json()["data"]} == {"telemetry"}
    assert client.get("/v1/assets?stream=orders").status_code == 403
    assert client.get("/v1/assets?stream=telemetry&stream=orders").status_code == 403
    assert client.post([ORDER], stream="orders").status_code == 403
    assert client.post([GOOD]).status_code == 202
    assert client.post([GOOD], stream="nope").status_code == 403


def test_a_key_whose_record_names_no_stream_at_all_sees_none(
    connected: Connected, pipeline: Pipeline, redis_client: redis.Redis
) -> None:
    connected("admin").post()
    pipeline.run()
    client = connected("ingest", "operate", streams=("telemetry",))
    key_id = client.token.split("_")[1]
    assert client.get("/v1/assets").json()["data"]
    record = orjson.loads(redis_client.hget(KEYS, key_id) or b"")
    redis_client.hset(KEYS, key_id, orjson.dumps({**record, "streams": []}))
    until(lambda: client.post().status_code == 403, 5)
    assert client.get("/v1/assets").status_code == 403
    assert client.get("/v1/streams").json() == {"streams": []}


def test_an_operator_replays_within_its_streams_and_sees_no_payload(
    connected: Connected, pipeline: Pipeline, engine: sa.Engine
) -> None:
    for stream in ("telemetry", "orders"):
        connected("admin").post([{"secret": f"{stream}-payload"}] * 3, stream=stream)
        pipeline.run(stream)
    everywhere, narrow = connected("operate"), connected("operate", streams=("telemetry",))

    def replay(client: Client, **body: Any) -> requests.Response:
        return client.http.post(f"{client.base}/v1/dead-letters/replay", json=body, timeout=30)

    dry = replay(everywhere, filter={"states": ["open"]}, dry_run=True)
    assert dry.json()["matched"] == 6
    assert dry.json()["preview"]["examples"]
    assert "payload" not in dry.text.replace("payloads", "")
    assert "orders-payload" in replay(connected("admin"), filter={"states": ["open"]}, dry_run=True).text
    for client in (everywhere, narrow):
        assert replay(client, filter={"text": "payload"}, dry_run=True).status_code == 403
    assert replay(narrow, filter={"states": ["open"]}, dry_run=True).json()["matched"] == 3
    assert replay(narrow, filter={"streams": ["orders"]}, dry_run=True).status_code == 403
    every = [row[0] for row in rows(engine, "select id from dead_letters")]
    assert replay(narrow, ids=every, dry_run=True).json()["matched"] == 3
    assert replay(narrow, ids=every, dry_run=False).json()["matched"] == 3
    assert dict(rows(engine, "select stream, state from dead_letters group by 1, 2")) == {
        "telemetry": "replaying",
        "orders": "open",
    }


def test_an_expired_key_is_refused_at_once_with_its_own_words(base: str, store: KeyStore) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=3)
    _, token = store.create("short", ["ingest"], expires_at=soon)
    client = Client(base, token)
    assert client.post().status_code == 202
    until(lambda: datetime.now(UTC) > soon, 10)
    answer = client.post()
    assert answer.status_code == 401
    assert f"expired on {soon:%Y-%m-%d}" in answer.json()["detail"]
    assert "invalid_token" in answer.headers["WWW-Authenticate"]
    # Only who has the token hears that it was good once.
    stranger = Client(base, token[:-1] + ("A" if token[-1] != "A" else "B"))
    assert "not known" in stranger.post().json()["detail"]
    stranger.close()
    client.close()


def test_a_key_is_over_when_its_time_is_also_without_asking_anybody() -> None:
    at = datetime.now(UTC)
    key = Key("00000000", "x", frozenset({"read"}), b"", at, expires_at=at)
    assert key.expired()
    assert not key.expired(at - timedelta(microseconds=1))
    assert not key.matches("x")


@pytest.mark.parametrize(
    ("scopes", "options"),
    [
        (["admin"], {"streams": ["telemetry"]}),
        (["read"], {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}),
        (["read"], {"streams": [f"s{number}" for number in range(101)]}),
    ],
)
def test_keys_that_make_no_sense_are_refused(store: KeyStore, scopes: list[str], options: dict[str, Any]) -> None:
    with pytest.raises(PermanentError):
        store.create("x", scopes, **options)
    assert store.list() == []


def test_a_key_is_kept_with_all_it_has_and_old_records_still_load(store: KeyStore, redis_client: redis.Redis) -> None:
    end = datetime.now(UTC) + timedelta(days=90)
    key, token = store.create("new", ["ingest"], streams=["telemetry"], expires_at=end, created_by="alice")
    assert store.list() == [key]
    assert (key.streams, key.expires_at, key.created_by) == (frozenset({"telemetry"}), end, "alice")
    record = orjson.loads(redis_client.hget(KEYS, key.id) or b"")
    for name in ("streams", "expires_at", "created_by"):
        del record[name]
    redis_client.hset(KEYS, key.id, orjson.dumps(record))
    [old] = store.list()
    assert (old.streams, old.expires_at, old.created_by, old.last_used_at) == (None, None, "", None)
    assert old.matches(token)
    assert old.sees("orders")


def test_the_last_use_is_kept_to_the_minute_and_not_written_for_each_request(
    connected: Connected, store: KeyStore, redis_client: redis.Redis
) -> None:
    before = datetime.now(UTC).replace(second=0, microsecond=0)
    used, refused, _unused = connected("ingest"), connected("ingest"), connected("read")
    for _ in range(50):
        assert used.post().status_code == 202
        assert refused.get("/v1/stats").status_code == 403
    until(lambda: redis_client.hlen(KEY_USED), 15)
    used_id = used.token.split("_")[1]
    last = {key.id: key.last_used_at for key in store.list()}
    found = last[used_id]
    assert found is not None
    assert before <= found <= datetime.now(UTC)
    assert found.second == 0
    assert [id for id, at in last.items() if at is not None] == [used_id]


def test_a_use_is_written_once_a_minute_and_survives_an_outage(redis_client: redis.Redis) -> None:
    now = [1_800_000_030.0]
    uses = KeyUses(redis_client, clock=lambda: now[0])
    for _ in range(1000):
        uses.note("0a0a0a0a")
    assert [uses.flush(), uses.flush()] == [1, 0]
    uses.note("0a0a0a0a")
    assert uses.flush() == 0
    now[0] += 60
    uses.note("0a0a0a0a")
    uses.note("0b0b0b0b")
    with connect_queue("redis://127.0.0.1:1/0", timeout=1.0) as away:
        uses._redis, back = away, uses._redis
        with pytest.raises(QueueUnavailableError):
            uses.flush()
    uses._redis = back
    assert uses.flush() == 2
    assert redis_client.hgetall(KEY_USED) == {b"0a0a0a0a": b"1800000060", b"0b0b0b0b": b"1800000060"}


def test_refusals_are_in_the_audit_once_with_the_key_if_it_was_one(
    connected: Connected, store: KeyStore, engine: sa.Engine
) -> None:
    refuse(engine, range(1))
    nobody, weak, over = connected(), connected("ingest"), connected("ingest")
    over_id = over.token.split("_")[1]
    store.revoke(over_id)
    until(lambda: over.post().status_code == 401, 5)
    for _ in range(20):
        assert nobody.get("/v1/stats").status_code == 401
        assert weak.get("/v1/dead-letters").status_code == 403
        assert over.post().status_code == 401
    admin = connected("admin")
    until(lambda: len(admin.get("/v1/audit").json()["data"]) >= 3, 10)
    found = {(row["event"], row["detail"]["reason"]): row for row in admin.get("/v1/audit").json()["data"]}
    assert set(found) == {("unauthorized", "no key"), ("forbidden", "needs admin"), ("unauthorized", "revoked key")}
    assert found["unauthorized", "revoked key"]["actor"] == f"key {over_id}"
    row = found["forbidden", "needs admin"]
    assert (row["actor"], row["actor_role"]) == (f"key {weak.token.split('_')[1]}", "ingest")
    assert (row["address"], row["outcome"], row["detail"]["count"]) == ("127.0.0.1", "refused", 1)
    assert row["detail"]["path"] == "/v1/dead-letters"


def test_an_operator_who_waits_for_a_replay_hears_where_to_look(
    base: str, connected: Connected, pipeline: Pipeline
) -> None:
    connected("admin").post([{"x": 1}])
    pipeline.run()
    operator = connected("operate")
    replay = ("dlq", "replay", 1, "--yes", "--wait", 5, "--url", base, "--key", operator.token)
    error = run(*replay).error
    assert "Replay 1 has begun." in error
    assert "assets list --replay 1" in error
    assert len(operator.get("/v1/assets?replay=1").json()["data"]) <= 1
