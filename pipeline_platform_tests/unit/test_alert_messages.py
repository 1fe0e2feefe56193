"""Digests and messages: counts, bounds, no secrets."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_platform.alerts.digest import SAMPLE_CHARACTERS, cut, digest
from pipeline_platform.alerts.messages import as_discord, as_json
from pipeline_platform.alerts.secrets import without_secrets
from pipeline_platform.core.alerts import ASKED_LONGEST, Notice, Phase, pause

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ALERT = Notice(
    7, Phase.RAISED, "breaker_open", "critical", "orders", "orders: its breaker is open", "Do something.", 3, NOW, NOW
)


def test_one_alert_is_told_as_it_is() -> None:
    message = as_json(digest([replace(ALERT, sample=({"reason": "type", "field": None, "payload": "{}"},))]), NOW)
    assert message == {
        "version": 1,
        "source": "pipeline-platform",
        "sent_at": "2026-01-02T03:04:05.000Z",
        "headline": "orders: its breaker is open",
        "severity": "critical",
        "raised": 1,
        "recovered": 0,
        "by_severity": {"critical": 1},
        "by_kind": {"breaker_open": 1},
        "more": 0,
        "alerts": [
            {
                "id": 7,
                "state": "open",
                "kind": "breaker_open",
                "severity": "critical",
                "stream": "orders",
                "title": "orders: its breaker is open",
                "body": "Do something.",
                "times": 3,
                "raised_at": "2026-01-02T03:04:05.000Z",
                "last_raised_at": "2026-01-02T03:04:05.000Z",
                "resolved_at": None,
                "samples": ["reason=type payload={}"],
            }
        ],
    }


def test_five_hundred_are_one_message_with_the_worst_first() -> None:
    many = [replace(ALERT, alert_id=n, severity="warning", kind="batch_failing") for n in range(499)]
    message = as_discord(digest([*many, replace(ALERT, alert_id=499)]))
    assert "500 alerts (1 critical, 499 warning)" in message["content"]
    assert "495 more" in message["content"]
    assert "499 batch_failing" in message["content"]
    assert len(message["embeds"]) == 5
    assert message["embeds"][0]["fields"][0]["value"] == "critical"


def test_recoveries_and_what_was_over_before_it_was_told() -> None:
    over = replace(ALERT, resolved_at=NOW + timedelta(minutes=1))
    recovered = replace(over, phase=Phase.RESOLVED)
    assert digest([recovered]).headline == "Recovered: orders: its breaker is open"
    assert digest([over]).headline == "Over already: orders: its breaker is open"
    both = digest([recovered, replace(ALERT, alert_id=8)])
    assert both.headline == "1 alert (1 critical), 1 recovered"
    assert [item.state for item in both.items] == ["open", "recovered"]
    assert as_discord(digest([recovered]))["content"].startswith("🟢")
    with pytest.raises(ValueError, match="about something"):
        digest([])


TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("🔴`[]()@\\"), max_size=300)
SAMPLES = st.recursive(st.none() | st.integers() | st.floats() | TEXTS, lambda inner: st.dictionaries(TEXTS, inner))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, st.lists(SAMPLES, max_size=5)), min_size=1, max_size=12), st.integers(1, 40))
def test_discord_never_gets_more_than_it_takes(parts: list[tuple[str, str, list[Any]]], longer: int) -> None:
    notices = [
        replace(ALERT, alert_id=number, title=title * longer, body=body * longer, sample=tuple(sample))
        for number, (title, body, sample) in enumerate(parts)
    ]
    message = as_discord(digest(notices, shown=20))
    json.dumps(message)
    assert 0 < units(message["content"]) <= 2000
    assert len(message["embeds"]) <= 10
    total = 0
    for embed in message["embeds"]:
        assert len(embed["fields"]) <= 25
        sizes = [units(embed["title"]), units(embed.get("description", ""))]
        assert sizes[0] <= 256
        assert sizes[1] <= 4096
        for entry in embed["fields"]:
            assert 0 < units(entry["name"]) <= 256
            assert 0 < units(entry["value"]) <= 1024
            sizes += [units(entry["name"]), units(entry["value"])]
        total += sum(sizes)
    assert total <= 6000
    assert message["allowed_mentions"] == {"parse": []}


def units(text: str) -> int:
    """The length as JavaScript counts it."""
    return len(text.encode("utf-16-le")) // 2


def test_samples_are_few_short_and_cannot_leave_their_fence() -> None:
    long = {"payload": "```" + "x" * 10_000}
    item = digest([replace(ALERT, sample=(long,) * 10)]).items[0]
    assert len(item.samples) == 3
    assert all(len(sample) <= SAMPLE_CHARACTERS for sample in item.samples)
    values = [entry["value"] for entry in as_discord(digest([replace(ALERT, sample=(long,))]))["embeds"][0]["fields"]]
    assert values[-1].count("```") == 2


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://loader:hush@db:5432/x",
        "redis://:hush@127.0.0.1",
        "https://discord.com/api/webhooks/123/hush-hush",
        "https://discord.com/api/v10/webhooks/123/hush",
        "https://hooks.slack.com/services/T0/B0/hush",
        "key pp_0123abcd_hush",
        "Authorization: Bearer hush.hush.hush",
        '{"user": "a", "password": "hush", "n": 1}',
        '{"user": "a", "db_Password": "hu\\"hush',
        '{"api_key":"hush"}',
        '{"token": 99hush}',
        "password=hush&x=1",
        "PGPASSWORD = hush",
        "-----BEGIN EC PRIVATE KEY-----\nhush\n-----END EC PRIVATE KEY-----",
        "eyJhbGciOiJI.hush.hush",
    ],
)
def test_secrets_are_hidden(text: str) -> None:
    for shown in (without_secrets(text), digest([replace(ALERT, sample=(text,), title=text, body=text)])):
        assert "hush" not in str(shown)
    assert "***" in without_secrets(text)


def test_what_is_no_secret_stays() -> None:
    text = "orders: 5 of 9 events rejected; see `pipeline-platform dlq list --stream orders`, https://x.test/a?b=c"
    assert without_secrets(text) == text
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "ab…"
    assert cut("🔴🔴🔴", 4) == "🔴…"


def test_pauses_grow_and_keep_to_what_is_asked() -> None:
    assert [pause(tries) for tries in range(1, 9)] == [5, 10, 20, 40, 80, 160, 300, 300]
    assert pause(1, 64.5) == 64.5
    assert pause(1, 1e12) == ASKED_LONGEST
    assert pause(1_000_000) == 300


def test_the_messages_in_the_documents_are_like_these() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "alerts.md").read_text(encoding="utf-8")
    discord, ours = map(json.loads, re.findall(r"^```json\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))
    sample = {"reason": "unknown_field", "field": "colour", "payload": '{"colour":"red"}'}
    alert = replace(
        ALERT,
        alert_id=12,
        title="orders: its breaker is open, nothing is loaded",
        body="120 of the last 200 events were rejected.",
        times=1,
        sample=(sample,),
    )
    assert as_discord(digest([alert])) == discord
    assert as_json(digest([alert]), NOW + timedelta(seconds=10)) == ours
