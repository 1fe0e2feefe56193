"""One running platform for the acceptance tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline_platform_tests.acceptance.stacks import Up


@pytest.fixture(scope="session")
def up() -> Iterator[Up]:
    """A platform that is up, stopped at the end of the session."""
    stack = Up()
    try:
        yield stack.start()
    finally:
        stack.remove()
