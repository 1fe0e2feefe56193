"""The shipped definitions over the servers of the tests, with the local price server as the source demo."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from pipeline_platform.local.price_server.server import PriceServer
from pipeline_platform.orchestration import resources
from pipeline_platform.orchestration.definitions import definitions
from pipeline_platform.orchestration.partition_ranges import range_tags
from pipeline_platform.orchestration.prices import resources as price_resources
from pipeline_platform.warehouse.engine import connect


@contextmanager
def serving(server: PriceServer) -> Iterator[PriceServer]:
    """The server answers in a thread of its own while the block lasts."""
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


@dataclass
class PriceStack:
    """A warehouse, a price server and Dagster, all of this test."""

    definitions: dg.Definitions
    repository: dg.RepositoryDefinition
    instance: dg.DagsterInstance
    engine: sa.Engine
    server: PriceServer

    def run(self, job: str, first: str = "", last: str = "", **config: Any) -> dg.ExecuteInProcessResult:
        """Executes a job over the partitions from `first` to `last`, as a worker would."""
        return self.repository.get_job(job).execute_in_process(
            tags=range_tags(first, last or first) if first else None,
            run_config=config or None,
            instance=self.instance,
            raise_on_error=False,
        )

    def candles(self, first: date, last: date, *, symbol: str = "BTCUSDT", **config: Any) -> dg.ExecuteInProcessResult:
        """A run of prices/candles over days of one instrument."""
        wanted = {"ops": {"prices__candles": {"config": config}}} if config else {}
        return self.run("prices_candles", f"{first}|demo:{symbol}", f"{last}|demo:{symbol}", **wanted)

    def rows(self, query: str, **values: Any) -> list[Any]:
        """The rows of a query."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query), values)]


@contextmanager
def price_stack(
    warehouse_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, server: PriceServer
) -> Iterator[PriceStack]:
    """Everything, while the block lasts."""
    monkeypatch.setenv("DATABASE_URL", warehouse_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("PIPELINE_DEMO_PRICES_URL", server.url)
    shipped = definitions()
    engine = connect(warehouse_url)
    with serving(server), dg.DagsterInstance.ephemeral() as instance:
        yield PriceStack(shipped, shipped.get_repository_def(), instance, engine, server)
    engine.dispose()
    resources._engine(warehouse_url, os.getpid()).dispose()
    price_resources._client(redis_url, os.getpid()).close()
