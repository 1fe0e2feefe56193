"""Parameters of URLs: one rule for all routes, which names what it refuses in words of ours."""

from __future__ import annotations

import pytest

from pipeline_platform.gateway.parameters import parameters_of
from pipeline_platform.gateway.problems import ProblemError
from pipeline_platform_tests.integration.test_gateway.kit import Shared

GETS = [
    "/v1/streams", "/v1/streams/telemetry", "/v1/streams/telemetry/aggregates", "/v1/assets", "/v1/assets/1",
    "/v1/dead-letters", "/v1/dead-letters/1", "/v1/dead-letters/export", "/v1/replays", "/v1/replays/1", "/v1/alerts",
    "/v1/audit", "/v1/stats", "/v1/receipts/telemetry.1763712000000-0",
]  # fmt: skip
POSTS = [
    "/v1/streams/telemetry/events", "/v1/streams/telemetry/resume", "/v1/assets/1/replay", "/v1/dead-letters/replay",
    "/v1/dead-letters/discard",
]  # fmt: skip
LISTS = ["assets", "dead-letters", "replays", "audit", "alerts", "streams/telemetry/aggregates"]
LIMITS = [(f"/v1/{path}?", "limit", f"limit={value}") for path in LISTS for value in ("1_000", "%D9%A1", "0x10", "1.5")]


def refused(shared: Shared, method: str, url: str) -> dict[str, str]:
    """The problem document of a 422, in our words."""
    answer = shared.client.http.request(method, shared.client.base + url, timeout=30)
    assert answer.status_code == 422, (url, answer.text)
    document: dict[str, str] = answer.json()
    assert document["type"].endswith(":bad-parameter")
    for foreign in ("Input", "String", "List", "nteger", "valid "):
        assert foreign not in document["detail"].replace("not valid UTF-8", ""), document
    return document


@pytest.mark.parametrize(("method", "path"), [*(("GET", each) for each in GETS), *(("POST", each) for each in POSTS)])
def test_an_unknown_parameter_is_refused_by_every_route(shared: Shared, method: str, path: str) -> None:
    for query in ("x=1", "x", "x=1&x=2", "LIMIT=1", "%ff=1", "limit%00=1"):
        assert refused(shared, method, f"{path}?{query}")["detail"].startswith("There is no parameter '")


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("POST", "streams/telemetry/events", "wait=5&wait=6"),
        ("POST", "streams/telemetry/events", "strict=true&wait=1&strict=true"),
        ("GET", "streams/telemetry/aggregates", "window=1m&window=1m"),
        ("GET", "streams/telemetry/aggregates", "from=0&from=1"),
        ("GET", "assets", "partition=a&partition=b"),
        ("GET", "dead-letters", "limit=5&limit=6"),
        ("GET", "dead-letters/export", "text=a&text="),
        ("GET", "replays", "cursor=a&cursor=a"),
        ("GET", "alerts", "state=all&state=open"),
        ("GET", "audit", "actor=a&actor=b"),
    ],
)
def test_a_parameter_that_counts_once_is_given_once(shared: Shared, method: str, path: str, query: str) -> None:
    name = query.split("=")[0]
    document = refused(shared, method, f"/v1/{path}?{query}")
    assert (document["detail"], document["parameter"]) == (f"{name} may be given once.", name)


@pytest.mark.parametrize(
    "url",
    [
        "/v1/assets?kind=etl&kind=replay&state=dead&state=planned&stream=orders&stream=telemetry",
        "/v1/dead-letters?field=a&field=b&reason=poison&reason=malformed",
        "/v1/audit?event=login&event=logout",
        "/v1/streams/telemetry/aggregates?where.source=a&where.source=%C3%BC",
        "/v1/assets?limit=1e2",
        "/v1/alerts?limit=5.0",
        "/v1/streams/telemetry/aggregates?format=csv&spreadsheet=1",
    ],
)
def test_others_may_be_given_several_times(shared: Shared, url: str) -> None:
    answer = shared.client.get(url)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("streams/telemetry/aggregates", "where.source=%ff"),
        ("streams/telemetry/aggregates", "where.metric=a&where.source=%ED%A0%80"),
        ("assets", "text=%C3"),
        ("dead-letters", "field=%80"),
        ("alerts", "cursor=%ff"),
        ("audit", "actor=a%ffb"),
    ],
)
def test_a_text_that_is_no_utf_8_is_refused(shared: Shared, path: str, query: str) -> None:
    name = query.rpartition("&")[2].split("=")[0]
    assert refused(shared, "GET", f"/v1/{path}?{query}")["detail"] == f"{name} is not valid UTF-8."


@pytest.mark.parametrize(
    ("url", "name", "query"),
    [
        *LIMITS,
        ("/v1/assets?", "replay", "replay=1_0"),
        ("/v1/dead-letters?", "batch", "batch=+1_0"),
        ("/v1/assets/1_0", "id", ""),
        ("/v1/dead-letters/%D9%A1", "id", ""),
        ("/v1/replays/one", "id", ""),
    ],
)
def test_whole_numbers_have_one_reader(shared: Shared, url: str, name: str, query: str) -> None:
    document = refused(shared, "GET", url + query)
    assert (document["detail"], document["parameter"]) == (f"{name}: should be a whole number.", name)


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("/v1/assets?limit=0", "limit: should be at least 1."),
        ("/v1/assets?limit=1001", "limit: should be at most 1000."),
        ("/v1/assets?limit=1e400", "limit: should be a whole number."),
        ("/v1/assets?kind=etc", "kind.0: should be 'ingest', 'replay' or 'etl'."),
        ("/v1/assets?job=", "job: should have at least 1 characters."),
        ("/v1/assets?job=%00", "job: holds a NUL character."),
        (f"/v1/assets?job={'x' * 201}", "job: should have at most 200 characters."),
        ("/v1/assets?state=dead" + "&state=dead" * 7, "state: should have at most 7 of them."),
        ("/v1/assets?since=now", "since: should be an RFC 3339 time with an offset since 1970, or epoch milliseconds."),
        ("/v1/alerts?kind=A", "kind: should be of the pattern ^[a-z0-9_]+$."),
        ("/v1/streams/telemetry/aggregates?window=1h", "window: should be '1m'."),
        ("/v1/streams/telemetry/aggregates?spreadsheet=yes", "spreadsheet: should be true or false."),
        ("/v1/streams/telemetry/aggregates?to=now", "to: should be an RFC 3339 time with an offset since 1970, or "
         "epoch milliseconds."),
        ("/v1/stats?x=1", "There is no parameter 'x' here, nor any other."),
        ("/v1/replays?x=1", "There is no parameter 'x' here; there are limit, cursor."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_of_the_parameter(shared: Shared, url: str, detail: str) -> None:
    assert refused(shared, "GET", url)["detail"] == detail


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"ids": ["1_0"]}, "ids.0: should be a whole number."),
        ({"ids": [True]}, "ids.0: should be a whole number."),
        ({"ids": [0]}, "ids.0: should be at least 1."),
        ({"ids": []}, "ids: should have at least 1 of them."),
        ({"ids": {}}, "ids: should be a list."),
        ({"ids": [1], "dry_run": "yes"}, "dry_run: should be true or false."),
        ({"ids": [1], "note": 1}, "note: should be text."),
        ({"ids": [1], "notes": ""}, "notes: no such field; see /docs for the fields there are."),
        ({"filter": []}, "filter: should be a mapping of names to values."),
        ({"filter": {}}, 'An empty filter would take everything; say {"states": ["open"]} if that is meant.'),
        ({}, "Give either a filter or ids."),
        ([], "The body: should be a mapping of names to values."),
        (None, "The body: is missing."),
    ],
)
def test_and_of_the_member_of_a_body(shared: Shared, body: object, detail: str) -> None:
    url = shared.client.base + "/v1/dead-letters/discard"
    answer = shared.client.http.post(url, timeout=30, json=body)
    assert (answer.status_code, answer.json()["detail"]) == (422, detail)


@pytest.mark.parametrize("query", [b"where.source=\xc3\xbc", b"where.source=\xff", b"\xc3\xbc=1"])
def test_bytes_beyond_ascii_are_not_guessed_at(query: bytes) -> None:
    with pytest.raises(ProblemError, match="write each as % and two digits"):
        parameters_of(query, ["where.source"])
