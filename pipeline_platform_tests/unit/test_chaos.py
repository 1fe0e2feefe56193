"""Chaos is out of reach of every deployment in earnest, and the same seed fails in the same way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline_platform.core.streams import load_specs
from pipeline_platform.errors import PermanentError, SettingError, TransientError
from pipeline_platform.orchestration.chaos import ChaoticWarehouse
from pipeline_platform.orchestration.resources import Warehouse, build_resources
from pipeline_platform.settings import Settings

SERVERS = {"database_url": "postgresql://u@127.0.0.1/d", "redis_url": "redis://127.0.0.1/0"}


@pytest.mark.parametrize(
    "changes",
    [
        {"embedded": False},
        {"embedded": True, "database_url": "postgresql://u@db.example.org/d"},
        {"embedded": True, "redis_url": "redis://10.0.0.1/0"},
    ],
)
def test_it_is_refused_without_the_mark_that_up_sets_and_for_servers_elsewhere(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="nowhere else"):
        Settings.load(chaos=0.5, **{**SERVERS, **changes})


def test_off_it_is_not_there() -> None:
    assert type(build_resources(Settings.load(**SERVERS))["warehouse"]) is Warehouse
    chaotic = build_resources(Settings.load(chaos=0.5, embedded=True, **SERVERS))["warehouse"]
    assert isinstance(chaotic, ChaoticWarehouse)


def outcomes(seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], int]:
    """What 400 loads come to, and how many of them have loaded."""
    loaded = []
    monkeypatch.setattr(Warehouse, "load", lambda _, __, batch, *___: loaded.append(batch))
    chaotic = ChaoticWarehouse(loader_url="", owner_url="", gateway_link="", retry_jitter=0.0, share=0.5, seed=seed)
    said, spec = [], load_specs()["telemetry"]
    for number in range(400):
        batch: Any = SimpleNamespace(batch_id=number)
        try:
            chaotic.load(spec, batch, 1, 0)
        except (PermanentError, TransientError) as error:
            said.append(str(error))
        else:
            said.append("loaded")
    return said, len(loaded)


def test_half_of_the_loads_fail_in_every_way_there_is_and_the_same_ones_again(monkeypatch: pytest.MonkeyPatch) -> None:
    said, loaded = outcomes(1, monkeypatch)
    assert 150 < said.count("loaded") < 250
    assert len(set(said)) == 4
    after_commit = sum("after the commit" in each for each in said)
    assert loaded == said.count("loaded") + after_commit
    assert outcomes(1, monkeypatch) == (said, loaded)
    assert outcomes(2, monkeypatch)[0] != said
