"""Which test files run one after another in one process of pytest-xdist: those that share a running stack.

A stack costs twenty seconds of a processor to start. With its files spread over two processes it would be started in
each, and stopped and started again whenever a file of another folder came between.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

DAGSTER = ("doors", "roles", "bounds", "mutated", "browser")
SECURITY = {
    *(f"security/test_{name}.py" for name in ("no_secret_in_dagster", "every_route")),
    *(f"security/test_dagster_{name}.py" for name in DAGSTER),
}
ACCEPTANCE = {f"acceptance/test_{name}.py" for name in ("every_event", "late_data", "readme", "services", "up")}


def scope_of(nodeid: str) -> str:
    """What runs as a whole in one process: the files of a stack, else the test's file."""
    file = nodeid.partition("::")[0]
    within = file.partition("pipeline_platform_tests/")[2]
    if within.startswith("faults/"):
        return "the stacks of faults/conftest.py"
    if within in SECURITY:
        return "the stack of security/conftest.py"
    return "the stack of acceptance/conftest.py" if within in ACCEPTANCE else file


class SharedStackScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """`--dist loadfile`, but the files of a stack stay together."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)
