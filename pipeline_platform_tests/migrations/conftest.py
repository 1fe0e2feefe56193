"""Engines on empty databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from pipeline_platform.warehouse.engine import connect


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """The owner's engine of an empty database."""
    engine = connect(database_url)
    yield engine
    engine.dispose()
