"""Chaos is out of reach of every deployment in earnest, and the same seed fails in the same way."""

from __future__ import annotations

import pytest

from pipeline_platform.errors import SettingError
from pipeline_platform.orchestration.chaos import ChaoticWarehouse
from pipeline_platform.orchestration.resources import Warehouse, build_resources
from pipeline_platform.settings import Settings

SERVERS = {"database_url": "postgresql://u@h/d", "redis_url": "redis://h/0"}


def test_it_is_refused_without_the_mark_that_up_sets() -> None:
    with pytest.raises(SettingError, match="nowhere else"):
        Settings.load(chaos=0.5, **SERVERS)


def test_off_it_is_not_there() -> None:
    assert type(build_resources(Settings.load(**SERVERS))["warehouse"]) is Warehouse
    chaotic = build_resources(Settings.load(chaos=0.5, embedded=True, **SERVERS))["warehouse"]
    assert isinstance(chaotic, ChaoticWarehouse)
