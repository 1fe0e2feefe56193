"""Fixtures of the attacks: one running platform, and the gateway's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.integration.test_gateway.conftest import (  # noqa: F401
    base,
    client,
    connected,
    engine,
    pipeline,
    redis_client,
    settings,
    template_database,
    token_for,
)


@pytest.fixture(scope="package")
def up() -> Iterator[Up]:
    """A platform that is up, with the demo's load, so that there are runs to look into."""
    stack = Up("--demo")
    try:
        yield stack.start()
    finally:
        stack.remove()
