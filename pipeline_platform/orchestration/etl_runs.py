"""The ledger row of an ETL run: begun, then loaded with its counts, or failed with the reason."""

# No postponed annotations here: Dagster reads them at run time.

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import dagster as dg

from pipeline_platform.orchestration.ingest.attempts import recorded
from pipeline_platform.orchestration.resources import Warehouse
from pipeline_platform.warehouse.etl_ledger import EtlCounts, EtlLedger


@contextmanager
def booked(
    context: dg.AssetExecutionContext, warehouse: Warehouse, key: dg.AssetKey, partitions: Collection[str] = ()
) -> Iterator[list[EtlCounts]]:
    """Keeps the ledger's row of the block: begun, then loaded with the counts that it appends, or failed.

    `partitions` are the keys that the run is for. A transient failure makes the op try again after 2, 4 and 8 s, as in
    an ingest run.
    """
    ledger, counts = EtlLedger(warehouse.engine), list[EtlCounts]()
    row = None
    with recorded(context.op_execution_context, warehouse, None, book=ledger):
        partition = shorten(partitions) if partitions else None
        row = ledger.begin("/".join(key.path), partition, context.run.run_id, context.run.job_name)
    with recorded(context.op_execution_context, warehouse, row, book=ledger):
        yield counts
        ledger.finish(row, counts[-1] if counts else EtlCounts())


def shorten(keys: Iterable[str]) -> str:
    """Partition keys as one text, for a ledger row: the key itself, or the first and the last of them."""
    ordered = sorted(keys)
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]}...{ordered[-1]}"
