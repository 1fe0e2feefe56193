"""One running platform for the acceptance tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline_platform_tests.acceptance.stacks import Up


@pytest.fixture(scope="package")
def up() -> Iterator[Up]:
    """A platform that is up, stopped after the last of these tests: idle it would still cost an eighth of a core."""
    stack = Up(env={"KEY_OF_A_SOURCE": "sesame-street"})  # for test_services.py
    try:
        yield stack.start()
    finally:
        stack.remove()
