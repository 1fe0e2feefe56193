"""The sources of the plan, opened with the budget that all workers share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import redis
from dagster._core.definitions.resource_annotation import TreatAsResourceParam

from pipeline_platform.core.budgets import Priority
from pipeline_platform.queue.budgets import RedisBudget
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.sources.catalog import allowance_of, load_plan, open_source
from pipeline_platform.sources.plan import PricePlan
from pipeline_platform.sources.protocol import Source


@lru_cache
def _plan(path: str, demo_url: str) -> PricePlan:
    return load_plan(Path(path) if path else None, demo_url or None)


@lru_cache
def _client(url: str, pid: int) -> redis.Redis:  # noqa: ARG001  the pid keeps a forked child from sharing sockets
    return connect_queue(url, timeout=10.0, connections=4)


@dataclass(frozen=True)
class PriceSources(TreatAsResourceParam):
    """The plan of prices.yaml, and its sources. `demo_url`: the local server of made-up prices, and nothing else."""

    redis_url: str = field(repr=False)
    path: str = ""
    demo_url: str = ""

    @property
    def plan(self) -> PricePlan:
        """The plan; read once a process."""
        return _plan(self.path, self.demo_url)

    @contextmanager
    def open(self, name: str, priority: Priority) -> Iterator[Source]:
        """A source for one run. Backfills leave the budget's reserve to live work."""
        chosen = self.plan.enabled[name]
        budget = RedisBudget(_client(self.redis_url, os.getpid()), name, allowance_of(chosen))
        source = open_source(chosen, budget, priority, environ=os.environ)
        try:
            yield source
        finally:
            source.close()
