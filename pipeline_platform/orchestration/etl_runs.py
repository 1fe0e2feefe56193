"""The ledger rows of an ETL run: begun, then loaded with their counts, or failed with the reason."""

# No postponed annotations here: Dagster reads them at run time.

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import dagster as dg

from pipeline_platform.orchestration.ingest.attempts import recorded, tried_again
from pipeline_platform.orchestration.resources import Warehouse
from pipeline_platform.warehouse.etl_ledger import EtlCounts, EtlLedger


@dataclass
class Booking:
    """What a run tells of its partitions: counts by key, and those that are loaded though others may fail."""

    counts: dict[str | None, EtlCounts] = field(default_factory=dict)
    good: set[str] = field(default_factory=set)


@contextmanager
def booked(
    context: dg.AssetExecutionContext, warehouse: Warehouse, key: dg.AssetKey, partitions: Collection[str] = ()
) -> Iterator[Booking]:
    """Keeps the ledger's rows of the block: begun, then loaded with their counts, or failed.

    `partitions` are the keys that the run is for; each has a row of its own. An asset without has one row, of the key
    None. A transient failure makes the op try again after 2, 4 and 8 s, as in an ingest run.
    """
    op = context.op_execution_context
    ledger, booking = EtlLedger(warehouse.engine), Booking()
    row = None
    with recorded(op, warehouse, None, book=ledger):
        row = ledger.begin("/".join(key.path), partitions, context.run.run_id, context.run.job_name)
    with recorded(op, warehouse, row, book=ledger):
        try:
            yield booking
        except Exception as error:
            if booking.good and not tried_again(op, error):
                ledger.finish(row, booking.counts, only=booking.good)
            raise
        ledger.finish(row, booking.counts)
