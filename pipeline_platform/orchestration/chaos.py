"""Chaos as a feature: loads that fail with some probability, so that a newcomer can watch retries, assets and alerts.

`pipeline-platform up --chaos 0.5` alone turns it on. Off, this module is not even imported.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import PermanentError, TransientError
from pipeline_platform.orchestration.resources import Warehouse
from pipeline_platform.warehouse.load import Loaded, ReadyBatch


@dataclass(frozen=True, kw_only=True)
class ChaoticWarehouse(Warehouse):
    """A warehouse whose loads fail by `share`: before they begin, for good or for now, or after their commit.

    The same `seed`, batch and attempt fail in the same way.
    """

    share: float
    seed: int

    def load(self, spec: StreamSpec, batch: ReadyBatch, attempt: int, retry: int) -> Loaded:
        """Loads the batch, unless it fails."""
        dice = random.Random(f"{self.seed}/{batch.batch_id}/{attempt}/{retry}")
        if dice.random() >= self.share:
            return super().load(spec, batch, attempt, retry)
        kind = dice.choice(("transient", "transient", "permanent", "after the commit"))
        if kind == "permanent":
            raise PermanentError("Chaos: the load failed for good, or so it says. The planner requests it again.")
        if kind == "after the commit":
            super().load(spec, batch, attempt, retry)
            raise TransientError("Chaos: the connection was lost after the commit. Loading again changes nothing.")
        raise TransientError("Chaos: the connection was lost. The op tries again.")
