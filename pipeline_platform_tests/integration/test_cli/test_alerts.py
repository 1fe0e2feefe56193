"""`alerts`: list, resolve, and a test message through the real way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_platform.warehouse.alerts import Alert, raise_alert
from pipeline_platform_tests.integration.receiver import Receiver, Reply, receiving
from pipeline_platform_tests.integration.test_cli.conftest import Stack
from pipeline_platform_tests.integration.test_cli.kit import run

FILE = """\
routes:
  - {name: team, url_env: TEAM_WEBHOOK, format: discord}
  - {name: pager, url_env: PAGER_WEBHOOK, format: json}
"""


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver that both routes lead to."""
    file = tmp_path / "alerts.yaml"
    file.write_text(FILE)
    monkeypatch.setenv("PIPELINE_ALERTS_FILE", str(file))
    monkeypatch.setenv("PIPELINE_ALERTS_ALLOW_PRIVATE", "true")
    with receiving() as receiver:
        monkeypatch.setenv("TEAM_WEBHOOK", receiver.url)
        monkeypatch.setenv("PAGER_WEBHOOK", receiver.url)
        yield receiver


def test_a_test_message_goes_to_every_route(receiver: Receiver) -> None:
    receiver.reply = Reply(200, b"{}")
    done = run("alerts", "test")
    assert (done.code, done.out) == (0, "team: sent. 127.0.0.1 answered 200\npager: sent. 127.0.0.1 answered 200\n")
    assert receiver.got[0]["content"].startswith("🔵 **A test")
    assert receiver.got[1]["alerts"][0]["kind"] == "test"
    assert run("alerts", "test", "--route", "pager", "--json").document == [
        {"route": "pager", "format": "json", "outcome": "sent", "said": "127.0.0.1 answered 200"}
    ]
    assert len(receiver.got) == 3


def test_what_the_receiver_says_is_shown_and_the_secret_is_not(receiver: Receiver) -> None:
    receiver.reply = Reply(404, b'{"message": "Unknown Webhook", "code": 10015}')
    done = run("alerts", "test", "--route", "team")
    assert (done.code, done.out) == (1, "team: refused. 127.0.0.1 answered 404: Unknown Webhook\n")


def test_private_addresses_and_missing_variables(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIPELINE_ALERTS_ALLOW_PRIVATE")
    monkeypatch.delenv("PAGER_WEBHOOK")
    done = run("alerts", "test")
    assert done.code == 1
    assert "team: refused. 127.0.0.1 is 127.0.0.1, which is not a public address" in done.out
    assert "pager: refused. The environment variable PAGER_WEBHOOK" in done.out
    assert receiver.got == []


def test_mistakes_are_one_sentence(receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "has no such route; there are: team, pager" in run("alerts", "test", "--route", "nope").error
    bad = tmp_path / "bad.yaml"
    bad.write_text("routes:\n  - name: x\n")
    assert f"{bad}, line 2, field routes.1.format: is missing" in run("alerts", "test", "--file", bad).error
    monkeypatch.delenv("PIPELINE_ALERTS_FILE")
    assert "set PIPELINE_ALERTS_FILE" in run("alerts", "test").error


def test_list_resolve_and_status(servers: Stack) -> None:
    place = ("--state-dir", servers.folder)
    assert run("alerts", "list", *place).out == "No open alerts.\n"
    with servers.pipeline.engine.begin() as connection:
        raise_alert(connection, Alert("dead/orders", "batch_dead", "critical", "orders: given up", "See.", "orders"))
    (alert,) = run("alerts", "list", *place, "--json").document
    assert (alert["id"], alert["kind"], alert["deliveries"]) == (1, "batch_dead", [])
    assert "given up" in run("alerts", "list", *place).out
    status = run("status", *place)
    assert "critical: orders: given up" in status.out
    assert run("status", *place, "--json").document["alerts"]["open"] == {"info": 0, "warning": 0, "critical": 1}
    assert run("alerts", "resolve", 1, *place).out == "The alert 1 is closed.\n"
    assert "no open alert 1" in run("alerts", "resolve", 1, *place).error
    assert run("alerts", "list", *place).out == "No open alerts.\n"
    assert len(run("alerts", "list", "--all", *place, "--json").document) == 1
