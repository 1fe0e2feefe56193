"""The ops of an ingest run: read_batch -> validate -> drop_negatives -> aggregate -> load.

Each is one call into the core or the warehouse, with metadata that says what it did. What they pass on stays in memory.
"""

# No postponed annotations here: Dagster reads them at run time.

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from pipeline_platform.core import transforms, validation
from pipeline_platform.core.batches import retry_pause
from pipeline_platform.core.entries import Entry, Receipt
from pipeline_platform.core.events import decode
from pipeline_platform.core.rejections import Int32s, Rejections
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.transforms import Aggregates
from pipeline_platform.core.validation import Columns
from pipeline_platform.errors import MissingEntriesError, PermanentError, PlatformError
from pipeline_platform.orchestration.resources import IngestQueue, Warehouse
from pipeline_platform.warehouse.ledger import LedgerRow
from pipeline_platform.warehouse.load import ReadyBatch, load

LEDGER_URL = 'pipeline-platform sql "select * from assets where id = {id}"'


@dataclass(frozen=True)
class RawBatch:
    """A batch as read. `row` is None when there is nothing to do: no batch waits, or it is settled already."""

    spec: StreamSpec
    row: LedgerRow | None
    entries: Sequence[Entry]
    began: float


@dataclass(frozen=True)
class ValidBatch:
    """A batch whose events keep the contract."""

    raw: RawBatch
    columns: Columns
    rejections: Rejections
    late: int


@dataclass(frozen=True)
class PositiveBatch:
    """A batch without its dropped negatives."""

    valid: ValidBatch
    columns: Columns
    negative_entry: Int32s


@dataclass(frozen=True)
class AggregatedBatch:
    """A batch with its window aggregates, ready to load."""

    positive: PositiveBatch
    aggregates: Aggregates


def read_batch_op(spec: StreamSpec) -> dg.OpDefinition:
    """An op that reads one planned batch of `spec` from the queue."""

    @dg.op(
        name=f"read_batch_{spec.name}",
        description="Reads the batch's exact range of queue entries.",
        ins={"queue": dg.In(dg.Nothing)},
        out=dg.Out(io_manager_key="io_manager"),
        config_schema={
            "batch_id": dg.Field(int, default_value=0, description="assets.id; 0 takes the oldest one waiting."),
            "attempt": dg.Field(int, default_value=0, description="The attempt that this run is for; 0 is the latest."),
        },
    )
    def read_batch(context: dg.OpExecutionContext, warehouse: Warehouse, ingest_queue: IngestQueue) -> RawBatch:
        began = time.perf_counter()
        ledger = warehouse.ledger
        batch_id, attempt = int(context.op_config["batch_id"]), int(context.op_config["attempt"])
        if not batch_id:  # somebody pressed Materialize: take what the planner would have taken next
            waiting = ledger.unsettled(spec.name)
            if not waiting:
                context.log.info("No batch of %s is waiting; nothing to do.", spec.name)
                return RawBatch(spec, None, (), began)
            batch_id = waiting[0].id
        known = ledger.get(batch_id)
        attempt = attempt or (known.attempt if known is not None else 0)
        row = ledger.start(batch_id, attempt, context.run_id)
        if row is None or row.stream != spec.name:
            raise PermanentError(f"There is no batch {batch_id} of {spec.name} in the ledger.")
        if row.settled or row.attempt > attempt:
            context.log.info("Batch %s is settled, or a later attempt has been requested; nothing to do.", batch_id)
            return RawBatch(spec, None, (), began)
        with _recorded(context, warehouse, row):
            entries = tuple(ingest_queue.queue.read(spec.name, row.first_id, row.last_id))
            if len(entries) != row.entries:
                raise MissingEntriesError(
                    f"Batch {row.id} has {row.entries} entries, but the queue holds {len(entries)} of them. "
                    "Was it restored from an older copy? See docs/operations.md."
                )
        context.add_output_metadata(
            {
                "batch": row.id,
                "attempt": row.attempt,
                "entries": len(entries),
                "events": row.events_planned,
                "bytes": sum(len(entry.data) for entry in entries),
                "first receipt": str(Receipt(spec.name, row.first_id)),
                "last receipt": str(Receipt(spec.name, row.last_id)),
                "milliseconds": _since(began),
            }
        )
        return RawBatch(spec, row, entries, began)

    return read_batch


@dg.op(description="Decodes the lines and checks them against the stream's spec; bad lines go on to dead letters.")
def validate(context: dg.OpExecutionContext, warehouse: Warehouse, raw: RawBatch) -> ValidBatch:
    """RawBatch -> ValidBatch."""
    began = time.perf_counter()
    with _recorded(context, warehouse, raw.row):
        valid = validation.validate(decode(raw.entries, raw.spec), raw.entries, raw.spec)
    context.add_output_metadata(
        {
            "valid": len(valid.columns),
            "rejected": len(valid.rejections),
            "late": valid.late,
            "series": len(valid.columns.series),
            "reasons": dg.MetadataValue.json(valid.rejections.counts()),
            "milliseconds": _since(began),
        }
    )
    slim = RawBatch(raw.spec, raw.row, _without_payloads(raw.entries, valid.rejections), raw.began)
    return ValidBatch(slim, valid.columns, valid.rejections, valid.late)


@dg.op(description="Drops the events with a negative measure where the stream says so, and counts them.")
def drop_negatives(context: dg.OpExecutionContext, warehouse: Warehouse, valid: ValidBatch) -> PositiveBatch:
    """ValidBatch -> PositiveBatch."""
    began = time.perf_counter()
    with _recorded(context, warehouse, valid.raw.row):
        left = transforms.drop_negatives(valid.columns, valid.raw.spec)
    context.add_output_metadata(
        {"kept": len(left.columns), "negative": len(left.dropped_entry), "milliseconds": _since(began)}
    )
    return PositiveBatch(valid, left.columns, left.dropped_entry)


@dg.op(description="Aggregates the events by series and minute.")
def aggregate(context: dg.OpExecutionContext, warehouse: Warehouse, positive: PositiveBatch) -> AggregatedBatch:
    """PositiveBatch -> AggregatedBatch."""
    began = time.perf_counter()
    with _recorded(context, warehouse, positive.valid.raw.row):
        aggregates = transforms.aggregate(positive.columns)
    context.add_output_metadata({"windows": len(aggregates.frame), "milliseconds": _since(began)})
    return AggregatedBatch(positive, aggregates)


@dg.op(
    name="load",
    description="Loads facts, aggregates, dead letters and the ledger row in one transaction.",
    out={"events": dg.Out(dg.Nothing), "minutes": dg.Out(dg.Nothing)},
)
def load_batch(
    context: dg.OpExecutionContext, warehouse: Warehouse, batch: AggregatedBatch
) -> Iterator[dg.Output[None]]:
    """AggregatedBatch -> the warehouse."""
    began = time.perf_counter()
    valid = batch.positive.valid
    raw, row = valid.raw, valid.raw.row
    if row is None:
        yield dg.Output(None, "events", metadata={"loaded": 0})
        yield dg.Output(None, "minutes", metadata={"windows": 0})
        return
    ready = ReadyBatch(
        batch_id=row.id,
        run_id=context.run_id,
        entries=raw.entries,
        columns=batch.positive.columns,
        aggregates=batch.aggregates,
        rejections=valid.rejections,
        negative_entry=batch.positive.negative_entry,
        late=valid.late,
    )
    with _recorded(context, warehouse, row):
        outcome = load(warehouse.engine, raw.spec, ready)
    committed = datetime.now(UTC)
    whole = time.perf_counter() - raw.began
    shared: dict[str, Any] = {
        "batch": row.id,
        "ledger row": LEDGER_URL.format(id=row.id),
        "fresh": outcome.fresh,
        "milliseconds": _since(began),
    }
    shared["where the time goes"] = dg.MetadataValue.md(_stages(_settled(warehouse, row), committed))
    if outcome.first_ts is not None and outcome.last_ts is not None:
        shared |= {"first ts": outcome.first_ts.isoformat(), "last ts": outcome.last_ts.isoformat()}
    yield dg.Output(
        None,
        "events",
        metadata={
            "dagster/row_count": outcome.loaded if outcome.fresh else 0,
            "read": outcome.read,
            "negative": outcome.negative,
            "rejected": outcome.rejected,
            "late": valid.late,
            "bytes": row.bytes_planned,
            "events per second": round(outcome.read / whole) if whole > 0 else 0,
            "first receipt": str(Receipt(raw.spec.name, row.first_id)),
            "last receipt": str(Receipt(raw.spec.name, row.last_id)),
            **shared,
        },
    )
    yield dg.Output(None, "minutes", metadata={"dagster/row_count": outcome.windows, **shared})


def _without_payloads(entries: Sequence[Entry], rejections: Rejections) -> tuple[Entry, ...]:
    """The entries, with their data only where a line of it goes on to dead letters."""
    wanted = set(rejections.entry.tolist())
    return tuple(entry if number in wanted else replace(entry, data=b"") for number, entry in enumerate(entries))


class _recorded:
    """Writes a failure of the block to the ledger row before the run fails, so that `assets` tells of it.

    The row stays the planner's to retry. Where the warehouse itself is away, the planner finds the ended run later.
    """

    def __init__(self, context: dg.OpExecutionContext, warehouse: Warehouse, row: LedgerRow | None) -> None:
        self._context, self._warehouse, self._row = context, warehouse, row

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or self._row is None or not isinstance(error, Exception):
            return
        try:
            self._warehouse.ledger.fail(
                self._row.id,
                self._row.attempt,
                run_id=self._context.run_id,
                error_class=type(error).__name__,
                message=f"{self._context.op.name}: {error}",
                not_before=datetime.now(UTC) + timedelta(seconds=retry_pause(self._row.attempt)),
            )
        except PlatformError as second:
            self._context.log.warning("The failure could not be written to the ledger: %s", second)


def _settled(warehouse: Warehouse, row: LedgerRow) -> LedgerRow:
    """The row with the times of the load. Not being able to read them is no reason to fail a run that has loaded."""
    with contextlib.suppress(PlatformError):
        return warehouse.ledger.get(row.id) or row
    return row


def _stages(row: LedgerRow, committed: datetime) -> str:
    """A Markdown table of how long the batch's last entry spent in each stage, in milliseconds.

    `committed`: when the commit came back, for a server that does not keep the time of commits.
    """
    visible = row.visible_at or committed
    received = datetime.fromtimestamp(row.last_id.ms / 1000, UTC)
    marks = [("received", received), ("planned", row.planned_at), ("requested", row.requested_at)]
    marks += [("started", row.started_at), ("loaded", row.loaded_at), ("visible", visible)]
    known = [(name, moment) for name, moment in marks if moment is not None]
    lines = ["| stage | milliseconds |", "|---|---|"]
    for (before, began), (after, ended) in itertools.pairwise(known):
        lines.append(f"| {before} -> {after} | {(ended - began).total_seconds() * 1000:.0f} |")
    return "\n".join([*lines, f"| all | {(visible - received).total_seconds() * 1000:.0f} |"])


def _since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 1)
