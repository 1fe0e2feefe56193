"""GET /v1/alerts and the gauge of open alerts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from pipeline_platform.warehouse.alerts import Alert, raise_alert, resolve_alert
from pipeline_platform_tests.integration.test_gateway.kit import Client, until


@pytest.fixture
def alerts(engine: sa.Engine) -> None:
    """Five alerts, one of them over and one told."""
    with engine.begin() as connection:
        for number in range(5):
            severity, stream = ("critical", "orders") if number % 2 else ("warning", "telemetry")
            alert = Alert(f"k{number}", "breaker_open", severity, f"t{number}", "b", stream, [{"payload": "{}"}])  # type: ignore[arg-type]
            raise_alert(connection, alert)
        assert resolve_alert(connection, "k4")
        connection.execute(
            sa.text("insert into alert_deliveries (alert_id, phase, route, state) values (4, 'raised', 'team', 'sent')")
        )


def test_pages_of_alerts(client: Client, alerts: None) -> None:
    first = client.get("/v1/alerts?limit=3").json()
    assert [alert["key"] for alert in first["data"]] == ["k3", "k2", "k1"]
    assert first["open"] == {"info": 0, "warning": 2, "critical": 2}
    told = first["data"][0]
    assert told["deliveries"][0]["route"] == "team"
    assert (len(told["sample"]), told["times"], told["resolved_at"]) == (1, 1, None)
    rest = client.get(f"/v1/alerts?limit=3&cursor={first['next_cursor']}").json()
    assert [alert["key"] for alert in rest["data"]] == ["k0"]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ("state=all", ["k4", "k3", "k2", "k1", "k0"]),
        ("stream=orders", ["k3", "k1"]),
        ("severity=warning&state=all", ["k4", "k2", "k0"]),
        ("kind=other", []),
    ],
)
def test_filters(client: Client, alerts: None, query: str, keys: list[str]) -> None:
    assert [alert["key"] for alert in client.get(f"/v1/alerts?{query}").json()["data"]] == keys


@pytest.mark.parametrize(
    ("query", "status"),
    [
        *(
            ("stream=nope", 404),
            ("stream=%00", 404),
            ("stream=a%FF", 422),
            ("severity=bad", 422),
            ("state=bad", 422),
            ("kind=A%20B", 422),
            ("limit=0", 422),
        ),
        *(("cursor=x", 400), ("cursor=-1", 400), ("cursor=" + "9" * 19, 400), ("cursor=%C2%B2", 400)),
    ],
)
def test_what_cannot_be_asked(client: Client, query: str, status: int) -> None:
    assert client.get(f"/v1/alerts?{query}").status_code == status


def test_it_takes_the_scope_read(base: str, connected: Callable[..., Client]) -> None:
    assert [connected(base, scope).get("/v1/alerts").status_code for scope in ("ingest", "read")] == [403, 200]


def test_payloads_are_for_admins(base: str, connected: Callable[..., Client], alerts: None) -> None:
    samples = [
        connected(base, scope).get("/v1/alerts?limit=1").json()["data"][0]["sample"] for scope in ("read", "admin")
    ]
    assert samples == [[{}], [{"payload": "{}"}]]


def test_the_gauge_counts_open_alerts(client: Client, alerts: None) -> None:
    until(lambda: 'pipeline_alerts_open{severity="critical"} 2.0' in client.get("/metrics").text, 10, 0.5)
