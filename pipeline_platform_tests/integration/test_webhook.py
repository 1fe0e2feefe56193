"""Messages to a real HTTP server that answers as Discord does, and as nobody should."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline_platform.alerts.deliver import deliver, trial
from pipeline_platform.alerts.routes import Route
from pipeline_platform.alerts.targets import resolve
from pipeline_platform.alerts.webhook import Patience, Webhook, confirmed
from pipeline_platform.core.alerts import Later, Outcome, Refused, Sent
from pipeline_platform_tests.integration.receiver import Receiver, Reply, receiving

QUICK = Patience(connect=0.5, read=0.3, whole=1.0)
OPEN = Webhook(allow_private=True, patience=QUICK)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver of the test's own."""
    with receiving() as receiver:
        yield receiver


def send(receiver: Receiver, reply: Reply, webhook: Webhook = OPEN) -> Outcome:
    """One message and what became of it."""
    receiver.reply = reply
    return webhook.send(receiver.url, {"content": "x"})


@pytest.mark.parametrize("reply", [Reply(204), Reply(200, b'{"id": "1"}'), Reply(200, b"ok")])
def test_what_is_taken_is_sent(receiver: Receiver, reply: Reply) -> None:
    outcome = send(receiver, reply)
    assert isinstance(outcome, Sent)
    assert str(reply.status) in outcome.said
    assert receiver.got == [{"content": "x"}]


def test_discord_is_asked_to_confirm_and_the_address_may_be_in_the_environment(receiver: Receiver) -> None:
    route = Route(name="team", url_env="HOOK", format="discord")
    now = datetime.now(UTC)
    assert isinstance(deliver(route, [trial(now)], OPEN, {"HOOK": receiver.url}, now), Sent)
    assert receiver.paths == ["/api/webhooks/1/secret-token?wait=true"]
    assert receiver.got[0]["content"].startswith("🔵 **A test")
    missing = deliver(route, [trial(now)], OPEN, {}, now)
    assert missing == Refused("The environment variable HOOK of the route 'team' is not set.")
    assert confirmed("https://d.test/x?thread_id=1") == "https://d.test/x?thread_id=1&wait=true"


DISCORD_429 = {"message": "You are being rate limited.", "retry_after": 64.57, "global": False}


@pytest.mark.parametrize(
    ("body", "headers", "seconds", "everyone"),
    [
        (DISCORD_429, {}, 64.57, False),
        (DISCORD_429, {"Retry-After": "65"}, 65.0, False),
        ({}, {"Retry-After": "3"}, 3.0, False),
        ({"retry_after": 1.5, "global": True}, {}, 1.5, True),
        ({"retry_after": 1.5}, {"X-RateLimit-Global": "true"}, 1.5, True),
        ({"retry_after": "soon"}, {"Retry-After": "-4"}, 0.0, False),
        ({"retry_after": True}, {"Retry-After": "nan"}, 0.0, False),
        ({"retry_after": 1e999}, {"Retry-After": "Nonsday"}, 0.0, False),
    ],
)
def test_429_is_later_for_as_long_as_is_asked(
    receiver: Receiver, body: dict[str, Any], headers: dict[str, str], seconds: float, everyone: bool
) -> None:
    outcome = send(receiver, Reply(429, json.dumps(body).encode(), headers))
    assert isinstance(outcome, Later)
    assert (outcome.seconds, outcome.everyone) == (seconds, everyone)
    assert "429" in outcome.why


def test_429_with_a_date(receiver: Receiver) -> None:
    until = datetime.now(UTC) + timedelta(seconds=90)
    outcome = send(receiver, Reply(429, b"<html>", {"Retry-After": format_datetime(until, usegmt=True)}))
    assert isinstance(outcome, Later)
    assert 85 < outcome.seconds <= 90


@pytest.mark.parametrize("status", [500, 502, 503, 408])
def test_an_outage_is_later(receiver: Receiver, status: int) -> None:
    outcome = send(receiver, Reply(status, b"no", {"Retry-After": "7"}))
    assert outcome == Later(7.0, f"127.0.0.1 answered {status}: no")


@pytest.mark.parametrize(("status", "drop"), [(400, True), (401, False), (403, False), (404, False), (413, True)])
def test_a_refusal_says_why_without_the_secret_in_the_url(receiver: Receiver, status: int, drop: bool) -> None:
    said = json.dumps({"message": f"Unknown Webhook {receiver.url} pp_0123abcd_hush " + "x" * 5000, "code": 0})
    outcome = send(receiver, Reply(status, said.encode()))
    assert isinstance(outcome, Refused)
    assert outcome.drop is drop
    assert f"answered {status}: Unknown Webhook" in outcome.why
    assert "secret-token" not in outcome.why
    assert "hush" not in outcome.why
    assert len(outcome.why) < 300


@pytest.mark.parametrize(
    ("status", "code", "drop"),
    [
        (400, 220001, False),  # a forum wants a thread
        (400, 10003, False),  # no such channel
        (400, 50027, False),  # no such webhook any more
        (403, 50013, False),
        (400, 160005, False),
        (400, 50035, True),  # the message itself
        (400, 50006, True),
        (400, "50027", True),
        (400, [50027], True),
        (400, None, True),
    ],
)
def test_a_code_of_discord_says_whether_the_address_or_the_message_is_to_blame(
    receiver: Receiver, status: int, code: object, drop: bool
) -> None:
    outcome = send(receiver, Reply(status, json.dumps({"message": "No", "code": code}).encode()))
    assert outcome == Refused(f"127.0.0.1 answered {status}: No", drop=drop)


@pytest.mark.parametrize("code", [40004, 130000, 20016])
def test_a_code_of_discord_that_asks_for_patience(receiver: Receiver, code: int) -> None:
    outcome = send(receiver, Reply(400, json.dumps({"message": "Later", "code": code, "retry_after": 3}).encode()))
    assert outcome == Later(3.0, "127.0.0.1 answered 400: Later")


def test_a_redirect_is_refused_and_not_followed(receiver: Receiver) -> None:
    with receiving() as private:
        outcome = send(receiver, Reply(302, b"", {"Location": private.url}))
        assert isinstance(outcome, Refused)
        assert "redirects are not followed" in outcome.why
        assert "secret-token" not in outcome.why
        assert private.got == []


def test_silence_is_later_within_the_patience(receiver: Receiver) -> None:
    silence = threading.Event()
    began = time.monotonic()
    outcome = send(receiver, Reply(204, before=lambda: silence.wait(5)))
    silence.set()
    assert outcome == Later(0.0, "127.0.0.1 did not answer in time.")
    assert time.monotonic() - began < 2


def test_an_answer_that_drips_does_not_hold_us(receiver: Receiver) -> None:
    patient = Webhook(allow_private=True, patience=Patience(0.5, 5.0, 0.5))
    silence = threading.Event()
    began = time.monotonic()
    outcome = send(receiver, Reply(204, before=lambda: silence.wait(3)), patient)
    assert outcome == Later(0.0, "127.0.0.1 did not answer within 0.5 s.")
    assert time.monotonic() - began < 2
    silence.set()


def test_a_large_answer_is_read_in_part_and_nothing_is_inflated(receiver: Receiver) -> None:
    outcome = send(receiver, Reply(503, b"x" * 20_000_000, {"Content-Encoding": "gzip"}))
    assert isinstance(outcome, Later)
    assert len(outcome.why) < 300


def test_nobody_there_is_later(receiver: Receiver) -> None:
    assert isinstance(OPEN.send("http://127.0.0.1:1/x", {}), Later)
    nowhere = Webhook(allow_private=True, patience=QUICK, resolve=_fails)
    assert nowhere.send("http://hooks.test/x", {}) == Later(0.0, "The name hooks.test cannot be resolved.")


def _fails(host: str, port: int) -> list[str]:
    raise OSError("no such name")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_private_addresses_are_refused_by_default_however_they_are_written(receiver: Receiver, host: str) -> None:
    outcome = Webhook(patience=QUICK).send(f"http://{host}:{receiver.port}/x", {})
    assert isinstance(outcome, Refused)
    assert "PIPELINE_ALERTS_ALLOW_PRIVATE" in outcome.why
    assert receiver.got == []


def test_a_name_is_resolved_once_so_that_it_cannot_change_between_check_and_use(receiver: Receiver) -> None:
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    webhook = Webhook(allow_private=True, patience=QUICK, resolve=rebinding)
    assert isinstance(webhook.send(f"http://hooks.test:{receiver.port}/x", {}), Sent)
    assert asked == ["hooks.test"]
    assert receiver.hosts == [f"hooks.test:{receiver.port}"]


@pytest.mark.parametrize("dead", [["127.0.0.2"], ["::1"], ["127.0.0.2", "127.0.0.3", "127.0.0.4"], ["192.0.2.1"]])
def test_a_dead_address_of_a_name_leaves_the_others(receiver: Receiver, dead: list[str]) -> None:
    patience = Patience(connect=0.5, read=0.5, whole=5.0)
    webhook = Webhook(allow_private=True, patience=patience, resolve=lambda *_: [*dead, "127.0.0.1"])
    assert isinstance(webhook.send(f"http://hooks.test:{receiver.port}/x", {}), Sent)
    assert len(receiver.got) == 1


def test_an_address_that_may_have_heard_the_message_is_the_last(receiver: Receiver) -> None:
    silence = threading.Event()
    receiver.reply = Reply(204, before=lambda: silence.wait(3))
    twice = Webhook(allow_private=True, patience=QUICK, resolve=lambda *_: ["127.0.0.1", "127.0.0.1"])
    assert twice.send(f"http://hooks.test:{receiver.port}/x", {}) == Later(0.0, "hooks.test did not answer in time.")
    silence.set()
    assert len(receiver.got) == 1


def test_with_tls_the_server_has_to_be_the_name_and_not_the_address(tmp_path: Path) -> None:
    certificate = tmp_path / "hooks.pem"
    with receiving(certificate) as receiver:
        names = {"hooks.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]}
        webhook = Webhook(True, QUICK, lambda host, _: names[host], str(certificate))
        assert isinstance(webhook.send(f"https://hooks.test:{receiver.port}/x", {}), Sent)
        wrong = webhook.send(f"https://other.test:{receiver.port}/x", {})
        assert wrong == Refused("other.test does not prove with a valid certificate that it is other.test.")
        unknown = Webhook(True, QUICK, lambda host, _: names[host]).send(f"https://hooks.test:{receiver.port}/x", {})
        assert isinstance(unknown, Refused)
        assert len(receiver.got) == 1


def test_a_proxy_of_the_environment_is_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert isinstance(send(receiver, Reply()), Sent)
    assert resolve("localhost", 80)
