"""Closes failed rows of `assets` that nobody will try again: their partition, or its instrument, is no longer there.

Rows of batches are never closed like that: they stand for events that were accepted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from pipeline_platform.core.price_partitions import BETWEEN
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.etl_ledger import end_alert
from pipeline_platform.warehouse.schema import assets
from pipeline_platform.warehouse.text import storable


@dataclass(frozen=True, slots=True, order=True)
class FailedPartition:
    """A partition of an asset, or a job (`job/<name>`), of which a row is failed."""

    asset_key: str
    partition_key: str | None


def failed_partitions(engine: sa.Engine) -> list[FailedPartition]:
    """All that failed and is to be tried again some day."""
    query = sa.select(assets.c.asset_key, assets.c.partition_key).where(_FAILED).distinct()
    with warehouse_errors(), engine.connect() as connection:
        return [FailedPartition(*row) for row in connection.execute(query)]


def close_partitions(engine: sa.Engine, asset_key: str, partitions: Collection[str | None], why: str) -> int:
    """Makes the failed rows of these partitions obsolete, and ends the asset's alert unless others fail; how many."""
    keys = sa.literal([each or "" for each in partitions], ARRAY(sa.Text))
    return _close(
        engine,
        asset_key,
        sa.and_(_FAILED, sa.func.coalesce(assets.c.partition_key, "") == sa.any_(keys)),
        why,
    )


def close_instrument(engine: sa.Engine, asset_key: str, instrument: str, run_id: str, why: str) -> int:
    """The same of all partitions of an instrument (`binance:BTCUSDT`), those that the run has begun too."""
    begun = sa.and_(assets.c.kind == "etl", assets.c.state == "planned", assets.c.run_id == run_id)
    own = sa.func.split_part(assets.c.partition_key, BETWEEN, 2) == instrument
    return _close(engine, asset_key, sa.and_(own, sa.or_(_FAILED, begun)), why)


_FAILED = sa.and_(assets.c.kind == "etl", assets.c.state == "failed")


def _close(engine: sa.Engine, asset_key: str, which: sa.ColumnElement[bool], why: str) -> int:
    before = sa.func.coalesce(" Before: " + assets.c.error_message, "")
    statement = (
        sa.update(assets)
        .where(assets.c.asset_key == asset_key, which)
        .values(state="obsolete", not_before=None, error_message=sa.func.left(storable(why) + before, 2000))
    )
    with warehouse_errors(), engine.begin() as connection:
        closed = connection.execute(statement).rowcount
        if closed:
            end_alert(connection, asset_key, why)
    return closed
