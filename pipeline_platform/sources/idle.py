"""Sources that are not asked anything: what they know of their own limits, without a key and without a budget."""

from __future__ import annotations

from pipeline_platform.core.budgets import Failing, Priority
from pipeline_platform.errors import PermanentError
from pipeline_platform.sources.catalog import open_source
from pipeline_platform.sources.plan import SourcePlan
from pipeline_platform.sources.protocol import Source


class _NoBudget:
    """Nobody asks."""

    def take(self, weight: float, priority: Priority) -> None:  # noqa: ARG002
        """Refuses."""
        raise PermanentError("This source was opened for its facts, not to be asked; use open_source.")

    def pause(self, seconds: float) -> None:
        """Has nothing to pause."""

    def failing(self, *names: str) -> list[Failing | None]:
        """Nothing has failed."""
        return [None for _ in names]

    def failed(self, *names: str) -> list[Failing]:
        """Nothing is asked."""
        return [Failing(1) for _ in names]

    def answered(self, *names: str) -> None:
        """Nothing is asked."""


def idle_source(options: SourcePlan) -> Source:
    """The source, for its calendar, reach, grace and page size."""
    return open_source(options, _NoBudget(), Priority.BACKFILL, environ={options.api_key_env or "": "not used"})
