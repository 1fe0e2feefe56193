"""Content types and codings over HTTP: of events, and of the small bodies of changes."""

from __future__ import annotations

import gzip

import orjson
import pytest

from pipeline_platform_tests.integration.test_gateway.kit import GOOD, Shared

BODY = orjson.dumps(GOOD)
DRY = b'{"filter": {"states": ["open"]}, "dry_run": true}'


@pytest.mark.parametrize(
    ("kind", "coding", "status"),
    [
        ("application/json; charset=utf-8;", "", 202),
        ('application/x-ndjson ;CHARSET="UTF-8"; header=present', "", 202),
        ("APPLICATION/JSONL; ;", "identity", 202),
        ("application/json;version=1", "GZip,", 202),
        ("application/json", "identity, x-gzip", 202),
        ("application/json; charset", "", 415),
        ("application/json; version=1; charset=utf-16", "", 415),
        ("application/problem+json", "", 415),
        ("application/json", "gzip, gzip", 415),
        ("application/json", "br", 415),
    ],
)
def test_events_are_taken_by_what_their_headers_say(shared: Shared, kind: str, coding: str, status: int) -> None:
    body = gzip.compress(BODY) if "gzip" in coding.lower() else BODY
    answer = shared.client.post(body, headers={"Content-Type": kind, "Content-Encoding": coding or "identity"})
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("kind", "coding", "status"),
    [
        ("application/json; charset=utf-8;", "", 200),
        ('Application/JSON; charset="utf-8"', "identity", 200),
        ("application/problem+json", "", 200),
        ("application/cloudevents+json; charset=UTF-8", "", 200),
        ("application/vnd.example+json;version=2", "", 200),
        ("text/plain", "", 415),
        ("application/json; charset=latin-1", "", 415),
        ("application/json, text/plain", "", 415),
        ("application/json", "gzip", 415),
        (None, "", 415),
    ],
)
def test_a_change_is_taken_as_json_of_any_name(shared: Shared, kind: str | None, coding: str, status: int) -> None:
    client = shared.client
    headers = {"Content-Type": kind, "Content-Encoding": coding or None}
    for action in ("replay", "discard"):
        url = f"{client.base}/v1/dead-letters/{action}"
        answer = client.http.post(url, data=DRY, headers=headers, timeout=30)
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics-text; version=1.0.0"),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0"),
    ],
)
def test_metrics_come_in_the_format_that_is_asked_for(shared: Shared, accept: str | None, content_type: str) -> None:
    answer = shared.client.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith(content_type)
    assert answer.headers["Vary"] == "Accept"
    assert answer.text.endswith("# EOF\n") is content_type.startswith("application/openmetrics-text")
