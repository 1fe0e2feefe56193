"""/v1/dead-letters: found, exported, tried in a dry run, replayed and discarded, by admins only and on record."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import requests
import sqlalchemy as sa

from pipeline_platform.gateway.dead_letters import SHOWN
from pipeline_platform.warehouse.schema import dead_letters, streams
from pipeline_platform_tests.integration.letters import Replays
from pipeline_platform_tests.integration.test_gateway.kit import GOOD, Client, Pipeline

SPOILT = {**GOOD, "colour": "red"}
LONG = {**GOOD, "colour": "r" * 2000}


def act(client: Client, action: str, body: Any, **options: Any) -> requests.Response:
    """POST to /v1/dead-letters/replay or /discard."""
    return client.http.post(f"{client.base}/v1/dead-letters/{action}", json=body, timeout=60, **options)


def states(client: Client) -> dict[str, int]:
    """How many letters there are in each state."""
    found: dict[str, int] = {}
    for letter in client.get("/v1/dead-letters?limit=1000").json()["data"]:
        found[letter["state"]] = found.get(letter["state"], 0) + 1
    return found


@pytest.fixture
def receipt(client: Client, pipeline: Pipeline) -> str:
    """A request with five refused events: three spoilt by a field, one without its value, one long one."""
    lines = [SPOILT, SPOILT, SPOILT, {"source": "a", "metric": "m"}, LONG, GOOD]
    receipt = client.post(lines).json()["receipt"]
    pipeline.run()
    return str(receipt)


def test_letters_are_found_by_everything_that_is_known_of_them(client: Client, receipt: str) -> None:
    for query, count in {
        "": 5,
        "stream=telemetry": 5,
        "stream=orders": 0,
        "reason=unknown_field": 4,
        "reason=unknown_field&reason=missing_field": 5,
        "field=colour": 4,
        "state=open": 5,
        "state=replayed&state=discarded": 0,
        f"receipt={receipt}": 5,
        "receipt=telemetry.1-1": 0,
        "batch=1": 5,
        "batch=2": 0,
        "text=RED": 3,
        "text=%25": 0,
        "since=2026-01-01T00:00:00Z": 5,
        "until=2026-01-01T00:00:00Z": 0,
    }.items():
        answer = client.get(f"/v1/dead-letters?{query}")
        assert (answer.status_code, len(answer.json()["data"])) == (200, count), query


def test_pages_and_payloads_are_bounded(client: Client, receipt: str) -> None:
    seen, cursor = [], ""
    while True:
        page = client.get(f"/v1/dead-letters?limit=2{cursor}").json()
        seen += page["data"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert [letter["id"] for letter in seen] == sorted((letter["id"] for letter in seen), reverse=True)
    (long,) = [letter for letter in seen if letter["truncated"]]
    assert len(seen) == 5
    assert len(long["payload"]) == SHOWN
    whole = client.get(f"/v1/dead-letters/{long['id']}").json()
    assert (orjson.loads(whole["payload"]), whole["truncated"]) == (LONG, False)
    assert whole["links"]["batch"] == "/v1/assets/1"
    assert whole["links"]["run"] == "http://dagster.test:3000/runs/run-1"
    assert whole["links"]["receipt"] == f"/v1/receipts/{receipt.rpartition('.')[0]}"
    assert client.get("/v1/dead-letters/999").json()["type"].endswith("unknown-row")


def test_an_export_has_every_letter_in_full(client: Client, pipeline: Pipeline) -> None:
    for _ in range(4):
        client.post([{**LONG, "value": n} for n in range(500)])
    pipeline.run()
    with client.get("/v1/dead-letters/export?reason=unknown_field", stream=True) as answer:
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        lines = [orjson.loads(line) for line in answer.iter_lines()]
    assert len(lines) == 2000
    assert [line["id"] for line in lines] == sorted(line["id"] for line in lines)
    assert sorted(orjson.loads(line["payload"])["value"] for line in lines) == sorted([*range(500)] * 4)
    assert client.get("/v1/dead-letters/export?reason=malformed").content == b""


def test_exports_are_few_at_a_time_and_give_their_places_back(client: Client, pipeline: Pipeline) -> None:
    # More than the sockets between us hold: whoever does not read keeps his place.
    for _ in range(12):
        client.post([{**LONG, "value": n} for n in range(1500)])
    pipeline.run()
    for _ in range(5):
        asked = client.http.head(f"{client.base}/v1/dead-letters/export", timeout=30)
        assert (asked.status_code, asked.headers["Content-Type"]) == (200, "application/x-ndjson")
    slow = [client.get("/v1/dead-letters/export", stream=True) for _ in range(2)]
    refused = client.get("/v1/dead-letters/export")
    assert (refused.status_code, refused.json()["type"].rsplit(":", 1)[1]) == (429, "rate-limited")
    assert refused.headers["Retry-After"]
    assert client.get("/v1/dead-letters?limit=1").status_code == 200
    for answer in slow:
        answer.close()
    gone = threading.Event()
    for _ in range(100):
        if client.get("/v1/dead-letters/export?reason=malformed").status_code == 200:
            break
        gone.wait(0.1)
    else:
        pytest.fail("the places of the readers that went away were not given back")


@pytest.mark.usefixtures("receipt")
def test_more_than_one_letter_is_a_dry_run_unless_it_is_said_otherwise(client: Client, pipeline: Pipeline) -> None:
    body = {"filter": {"reasons": ["unknown_field"]}, "edit": {"merge": {"colour": None}}}
    tried = act(client, "replay", body)
    assert tried.status_code == 200
    document = tried.json()
    assert (document["dry_run"], document["matched"], document["replay"]) == (True, 4, None)
    assert document["preview"]["would_pass"] == document["preview"]["tried"] == 4
    assert "4 open dead letters match; 4 would pass now" in document["message"]
    assert all("colour" in each["before"] and "colour" not in each["after"] for each in document["preview"]["examples"])
    unedited = act(client, "replay", {"filter": {"streams": ["telemetry"]}}).json()["preview"]
    assert (unedited["would_pass"], unedited["would_fail"]) == (0, {"unknown_field": 4, "missing_field": 1})
    assert states(client) == {"open": 5}
    assert client.get("/v1/replays").json() == {"data": [], "next_cursor": None}

    begun = act(client, "replay", body | {"dry_run": False, "note": "the field is gone"})
    assert (begun.status_code, begun.json()["matched"]) == (202, 4)
    where = begun.headers["Location"]
    again = act(client, "replay", body | {"dry_run": False})
    assert (again.status_code, again.json()["matched"]) == (200, 0)
    running = client.get(where).json()
    assert (running["state"], running["note"], running["edit"]) == ("running", "the field is gone", body["edit"])
    assert running["requested_by"] == "key " + client.token.split("_")[1]
    batches = client.get(running["links"]["batches"]).json()["data"]
    assert [(row["kind"], row["counts"]["planned"]) for row in batches] == [("replay", 4)]

    world = Replays(pipeline.engine)
    for request in world.tick():
        world.load(world.read(request))
    done = client.get(where).json()
    assert (done["state"], done["passed"], done["failed"]) == ("done", 4, 0)
    assert states(client) == {"open": 1, "replayed": 4}
    # The row of the replay is found by the request that the letters came in.
    receipt = client.get("/v1/dead-letters?state=open").json()["data"][0]["receipt"]
    assert [row["kind"] for row in client.get(f"/v1/assets?receipt={receipt}").json()["data"]] == ["replay", "ingest"]


@pytest.mark.usefixtures("receipt")
def test_a_repeat_of_an_event_id_is_replayed_only_when_it_is_named(client: Client, engine: sa.Engine) -> None:
    one = client.get("/v1/dead-letters?reason=missing_field").json()["data"][0]["id"]
    with engine.begin() as connection:
        statement = "update dead_letters set reason = 'duplicate_event_id', field = 'only' where id = :id"
        connection.execute(sa.text(statement), {"id": one})
    unnamed = act(client, "replay", {"filter": {"fields": ["only"]}})
    assert (unnamed.status_code, unnamed.json()["dry_run"], unnamed.json()["preview"]["would_pass"]) == (200, True, 0)
    assert act(client, "replay", {"filter": {"fields": ["only"]}, "dry_run": False}).json()["matched"] == 0
    named = act(client, "replay", {"filter": {"fields": ["only"], "reasons": ["duplicate_event_id"]}})
    assert (named.status_code, named.json()["matched"]) == (202, 1)


@pytest.mark.usefixtures("receipt")
def test_one_letter_is_replayed_or_discarded_at_once(client: Client) -> None:
    first = client.get("/v1/dead-letters?reason=missing_field").json()["data"][0]["id"]
    looked = act(client, "discard", {"ids": [first], "dry_run": True}).json()
    assert (looked["dry_run"], looked["matched"]) == (True, 1)
    gone = act(client, "discard", {"filter": {"reasons": ["missing_field"]}, "note": "no value, no event"})
    assert (gone.status_code, gone.json()["dry_run"], gone.json()["matched"]) == (200, False, 1)
    assert gone.json()["replay"]["filter"] == {"ids": [first]}
    assert act(client, "discard", {"ids": [first]}).json()["matched"] == 0
    many = act(client, "discard", {"filter": {"states": ["open"]}}).json()
    assert (many["dry_run"], many["matched"]) == (True, 4)
    other = client.get("/v1/dead-letters?state=open").json()["data"][0]["id"]
    assert act(client, "replay", {"ids": [other]}).status_code == 202
    assert states(client) == {"open": 3, "replaying": 1, "discarded": 1}
    audit = client.get("/v1/replays?limit=1").json()
    assert audit["data"][0]["action"] == "replay"
    assert client.get(f"/v1/replays?limit=9&cursor={audit['next_cursor']}").json()["data"][-1]["action"] == "discard"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "either a filter or ids"),
        ({"filter": {}}, "An empty filter would take everything"),
        ({"filter": {"streams": []}}, "An empty filter would take everything"),
        ({"ids": []}, "ids"),
        ({"ids": [1], "filter": {"streams": ["telemetry"]}}, "either a filter or ids"),
        ({"ids": [0]}, "ids"),
        ({"ids": [2**63]}, "ids"),
        ({"filter": {"stream": "telemetry"}}, "filter.stream: no such field; see /docs"),
        ({"filter": {"reasons": ["x"]}}, "reasons"),
        ({"filter": {"states": ["replayed"]}}, "Only open dead letters"),
        ({"filter": {"since": "yesterday"}}, "RFC 3339"),
        ({"ids": [1], "edit": {}}, "An edit is an object such as"),
        ({"ids": [1], "edit": {"set": {"value": "__import__('os')"}}}, "edit"),
        ({"ids": [1], "edit": {"sets": {}}}, "edit.sets"),
        ({"ids": [1], "dryrun": False}, "dryrun"),
        ([1], ""),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_with_a_reason(shared: Any, body: Any, says: str) -> None:
    answer = act(shared.client, "replay", body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"ids": [1], "edit": {"merge": {"value": NaN}}}', 400),
        (b'{"ids": [1], "note": "\\ud800"}', 400),
        (b'{"filter": {"text": "\\u0000"}}', 400),
        (b"not json", 400),
        (b"[" * 2000, 400),
        (b'{"note": "' + b"x" * 600_000 + b'"}', 413),
        (b"", 422),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bodies_that_no_reader_agrees_on_are_refused(shared: Any, body: bytes, status: int) -> None:
    client = shared.client
    headers = {"Content-Type": "application/json"}
    for action in ("replay", "discard"):
        url = f"{client.base}/v1/dead-letters/{action}"
        answer = client.http.post(url, data=body, headers=headers, timeout=30)
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), answer.text


def test_payloads_are_for_admins(base: str, connected: Callable[..., Client]) -> None:
    reader = connected(base, "read", "ingest")
    for path in ("dead-letters", "dead-letters/1", "dead-letters/export", "replays", "replays/1"):
        assert reader.get(f"/v1/{path}").status_code == 403, path
        assert connected(base).get(f"/v1/{path}").status_code == 401, path
    for action in ("replay", "discard"):
        assert act(reader, action, {"ids": [1]}).status_code == 403


def test_requests_that_race_take_a_letter_once(client: Client, pipeline: Pipeline) -> None:
    client.post([SPOILT] * 50)
    pipeline.run()
    taken: list[int] = []
    everything = {"filter": {"states": ["open"]}, "dry_run": False}

    def press(action: str) -> None:
        taken.append(act(client, action, everything).json()["matched"])

    threads = [threading.Thread(target=press, args=(action,)) for action in ("replay", "discard") * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 50
    with pipeline.engine.connect() as connection:
        assert connection.scalar(sa.text("select sum(matched) from replays")) == 50


ELSEWHERE = ("/v1/dead-letters", "/v1/dead-letters/export", "/v1/assets", "/v1/alerts")


@pytest.mark.parametrize("stream", ["nope", "Telemetry", "telemetry ", "'; --", "n" * 200])
def test_a_stream_that_never_was_is_named_wherever_one_is_asked_for(client: Client, stream: str) -> None:
    answers = [client.get(f"{path}?stream={quote(stream)}") for path in ELSEWHERE]
    answers += [act(client, action, {"filter": {"streams": ["telemetry", stream]}}) for action in ("replay", "discard")]
    answers.append(client.http.post(f"{client.base}/v1/streams/{quote(stream)}/resume", timeout=60))
    for answer in answers:
        assert answer.status_code == 404, answer.text
        assert f"There is no stream {stream[:40]!r}" in answer.json()["detail"]
        assert "there are orders, telemetry" in answer.json()["detail"]


def test_a_stream_that_was_removed_is_asked_for_without_complaint(client: Client, engine: sa.Engine) -> None:
    document = {"name": "gone", "dimensions": ["a"], "measures": ["b"]}
    with engine.begin() as connection:
        connection.execute(sa.insert(streams).values(name="gone", spec=document))
        reject = {"stream": "gone", "reason": "malformed", "message": "x", "payload": "x"}
        connection.execute(sa.insert(dead_letters).values(reject))
    assert [each["stream"] for each in client.get("/v1/dead-letters?stream=gone").json()["data"]] == ["gone"]
    assert all(client.get(f"{path}?stream=gone&since=2020-01-01T00:00:00Z").ok for path in ELSEWHERE[:3])
    assert client.get("/v1/alerts?stream=gone").json()["data"] == []
    assert act(client, "discard", {"filter": {"streams": ["gone"]}}).json()["matched"] == 1
