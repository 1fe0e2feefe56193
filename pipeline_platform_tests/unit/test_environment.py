"""What `up` tells each service: the logins that it needs, and of our environment what is its business."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_platform.local.connections import Connections
from pipeline_platform.local.environment import LOGINS, NEEDS, child_environment
from pipeline_platform.settings import Settings

WHERE = Connections(
    gateway_url="http://127.0.0.1:8000",
    dagster_url="http://127.0.0.1:3000",
    warehouse_url="postgresql://pipeline:p-owner@h/warehouse",
    warehouse_loader_url="postgresql://loader:p-loader@h/warehouse",
    warehouse_readonly_url="postgresql://analyst:p-analyst@h/warehouse",
    dagster_database_url="postgresql://dagster:p-dagster@h/dagster",
    redis_url="redis://admin:p-admin@h/0",
    api_key="p-key",
    warehouse_reader_url="postgresql://reader:p-reader@h/warehouse",
    dagster_reader_url="postgresql://dagster_reader:p-gauges@h/dagster",
    redis_users={user: f"redis://{user}:p-{user}@h/0" for user in ("gateway", "workers", "daemon", "web")},
)
SECRETS = {
    "p-owner", "p-loader", "p-analyst", "p-dagster", "p-admin", "p-key", "p-reader", "p-gauges", "p-gateway",
    "p-workers", "p-daemon", "p-web", "mine", "sesame",
}  # fmt: skip
RUNS = {"p-owner", "p-loader", "p-dagster", "sesame"}
HOLDS = {
    "gateway": {"p-reader", "p-loader", "p-gauges", "p-gateway"},
    "code": RUNS | {"p-daemon"},
    "worker": RUNS | {"p-workers"},
    "etl": RUNS | {"p-workers"},
    "daemon": {"p-dagster", "p-daemon"},
    "dagster": {"p-dagster", "p-loader", "p-web"},
    "prices": set(),
    "demo": {"p-key"},
}


@pytest.fixture(autouse=True)
def _environ(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LOGINS:
        monkeypatch.setenv(name, "postgresql://me:mine@h/x")
    monkeypatch.setenv("KEY_OF_A_SOURCE", "sesame")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


def _told(service: str) -> dict[str, str]:
    return child_environment(service, Settings(broker_url=None), WHERE, Path("/state"))


def test_every_service_is_in_the_table() -> None:
    assert set(HOLDS) == set(NEEDS)


@pytest.mark.parametrize("service", sorted(HOLDS))
def test_a_service_is_told_the_logins_that_it_needs_and_no_more(service: str) -> None:
    text = " ".join(_told(service).values())
    assert {secret for secret in SECRETS if secret in text} == HOLDS[service]


@pytest.mark.parametrize("service", sorted(HOLDS))
def test_every_service_finds_its_way_about(service: str) -> None:
    told = _told(service)
    assert told["PATH"]
    assert told["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert told["LC_ALL"] == "C.UTF-8"
    assert told["PIPELINE_STATE_DIR"] == "/state"


def test_with_servers_of_ones_own_all_have_the_users_that_there_are() -> None:
    own = Connections(
        gateway_url="", dagster_url="", warehouse_url="postgresql://o@h/w", warehouse_loader_url="postgresql://o@h/w",
        warehouse_readonly_url="postgresql://r@h/w", dagster_database_url="postgresql://o@h/d", redis_url="redis://h/0",
    )  # fmt: skip
    told = child_environment("gateway", Settings(), own, Path("/state"))
    assert told["REDIS_URL"] == "redis://h/0"
    assert told["PIPELINE_READONLY_DATABASE_URL"] == "postgresql://r@h/w"
    assert told["PIPELINE_DAGSTER_DATABASE_URL"] == "postgresql://o@h/d"
    assert (
        child_environment("worker", Settings(broker_url=None), own, Path("/state"))["PIPELINE_BROKER_URL"]
        == "redis://h/1"
    )
