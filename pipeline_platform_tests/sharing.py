"""Which test files run one after another in one process of pytest-xdist: those that share a running stack.

A stack costs twenty seconds of a processor to start. With its files spread over two processes it would be started in
each, and stopped and started again whenever a file of another folder came between.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

ACCEPTANCE = "the stack of acceptance/conftest.py"
FAULTS = "the stacks of faults/conftest.py"
SHARING = {
    "acceptance/test_every_event.py": ACCEPTANCE,
    "acceptance/test_late_data.py": ACCEPTANCE,
    "acceptance/test_readme.py": ACCEPTANCE,
    "acceptance/test_up.py": ACCEPTANCE,
}


def scope_of(nodeid: str) -> str:
    """What runs as a whole in one process: the files of a stack, else the test's file."""
    file = nodeid.partition("::")[0]
    within = file.partition("pipeline_platform_tests/")[2]
    if within.startswith("faults/"):
        return FAULTS
    return SHARING.get(within, file)


class SharedStackScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """`--dist loadfile`, but the files of a stack stay together."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)
