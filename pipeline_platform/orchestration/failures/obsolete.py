"""Which failed rows of `assets` are of nothing that still exists, and the sensor that closes them."""

# No postponed annotations here: Dagster reads them at run time.

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

import dagster as dg
import sqlalchemy as sa

from pipeline_platform.core.prices import Instrument
from pipeline_platform.errors import TransientError
from pipeline_platform.orchestration.partition_ranges import corners
from pipeline_platform.orchestration.resources import Warehouse
from pipeline_platform.warehouse.failed_runs import OF_JOB
from pipeline_platform.warehouse.obsolete import FailedPartition, close_partitions, failed_partitions
from pipeline_platform.warehouse.refusals import forget_others

INTERVAL = 30
BY_HAND = "__"  # Dagster's own job for what a person materializes has a name like __ASSET_JOB


def obsolete_sensor(planned: Collection[Instrument], idle: Mapping[str, str]) -> dg.SensorDefinition:
    """On from the start; requests no runs.

    `planned`: the instruments of the enabled sources of prices. `idle`: assets that nothing runs any more, and why.
    """

    @dg.sensor(
        name="obsolete_rows_sensor",
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Closes failed rows of assets whose asset, partition or instrument no longer exists, with alerts.",
    )
    def obsolete_rows(context: dg.SensorEvaluationContext, warehouse: Warehouse) -> dg.SkipReason:
        if context.repository_def is None:
            return dg.SkipReason("Without the definitions nobody knows what still exists.")
        try:
            forget_others(warehouse.engine, planned)
            closed = close_gone(warehouse.engine, context.repository_def, idle)
        except TransientError as error:
            return dg.SkipReason(f"{error} The next tick looks again.")
        return dg.SkipReason(f"Closed {closed} failed rows as obsolete.")

    return obsolete_rows


def close_gone(engine: sa.Engine, repository: dg.RepositoryDefinition, idle: Mapping[str, str]) -> int:
    """Closes what failed and will never be tried again; how many rows."""
    why: dict[tuple[str, str], list[str | None]] = defaultdict(list)
    for each in failed_partitions(engine):
        if words := idle.get(each.asset_key) or why_gone(repository, each):
            why[each.asset_key, words].append(each.partition_key)
    return sum(close_partitions(engine, key, partitions, words) for (key, words), partitions in sorted(why.items()))


def why_gone(repository: dg.RepositoryDefinition, failed: FailedPartition) -> str:
    """Why it will never be tried again, in a sentence; empty where it may be. A day in the future may come."""
    name = failed.asset_key.removeprefix(OF_JOB)
    if name != failed.asset_key:
        if name.startswith(BY_HAND):
            return ""
        if not repository.has_job(name):
            return f"There is no job {name} any more."
        partitions = repository.get_job(name).partitions_def
    else:
        key = dg.AssetKey.from_user_string(name)
        if not repository.asset_graph.has(key):
            return f"There is no asset {name} any more."
        partitions = repository.asset_graph.get(key).partitions_def
    if failed.partition_key is None:
        return ""
    if partitions is None:
        return f"{name} has no partitions any more."
    return next((words for key in corners(failed.partition_key) for words in _gone(partitions, key)), "")


def _gone(partitions: dg.PartitionsDefinition, key: str) -> Iterator[str]:
    """What is wrong with a partition's key, by dimension."""
    if isinstance(partitions, dg.MultiPartitionsDefinition):
        for dimension, part in zip(partitions.partitions_defs, key.split("|"), strict=False):
            yield from _gone(dimension.partitions_def, part)
    elif isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        try:
            begins = partitions.start_time_for_partition_key(key)
        except ValueError:
            yield f"{key} is no partition any more."
            return
        if begins < partitions.start:
            yield f"{key} is before the first partition, {partitions.start:%Y-%m-%d}."
    elif not partitions.has_partition_key(key):
        yield f"{key} is not among the enabled instruments of prices.yaml any more."
