"""One running platform for the attacks that need a whole one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline_platform_tests.acceptance.stacks import Up


@pytest.fixture(scope="package")
def up() -> Iterator[Up]:
    """A platform that is up, with the demo's load, so that there are runs to look into."""
    stack = Up("--demo")
    try:
        yield stack.start()
    finally:
        stack.remove()
