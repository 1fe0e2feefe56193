"""The ops of an ingest run: read_batch -> validate -> drop_negatives -> aggregate -> load.

Each is one call into the core or the warehouse, with metadata that says what it did. What they pass on stays in memory.
"""

# No postponed annotations here: Dagster reads them at run time.

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from pipeline_platform.core import transforms
from pipeline_platform.core.entries import Entry, Receipt
from pipeline_platform.core.event_ids import EventIds
from pipeline_platform.core.failures import NextStep
from pipeline_platform.core.letters import Rebuilt
from pipeline_platform.core.rejections import Int32s, Rejections
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.transforms import Aggregates
from pipeline_platform.core.validation import Columns
from pipeline_platform.errors import MissingEntriesError, PermanentError, PlatformError
from pipeline_platform.orchestration.ingest.attempts import recorded
from pipeline_platform.orchestration.ingest.careful import validated
from pipeline_platform.orchestration.resources import IngestQueue, Warehouse
from pipeline_platform.warehouse.ledger_rows import LedgerRow
from pipeline_platform.warehouse.load import Loaded, ReadyBatch

LEDGER_URL = "pipeline-platform assets show {id}"

# The config of an ingest run: what it is for.
WORK = {
    "batch_id": dg.Field(int, default_value=0, description="assets.id; 0 takes the oldest one waiting."),
    "attempt": dg.Field(int, default_value=0, description="The attempt that this run is for; 0 is the latest."),
    "mode": dg.Field(
        dg.Enum("Mode", [dg.EnumValue(step.value) for step in NextStep]),
        default_value=NextStep.PLAIN.value,
        description="plain; careful: find and park the lines that cannot be processed; bury: park them all.",
    ),
}


@dataclass(frozen=True)
class RawBatch:
    """A batch as read. `row` is None when there is nothing to do: no batch waits, or it is settled already."""

    spec: StreamSpec
    row: LedgerRow | None
    entries: Sequence[Entry]
    began: float
    mode: NextStep = NextStep.PLAIN
    letters: Rebuilt | None = None  # of a replay: which dead letter each line is


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
    negative_ids: EventIds | None = None


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
        config_schema=dict(WORK),
    )
    def read_batch(context: dg.OpExecutionContext, warehouse: Warehouse, ingest_queue: IngestQueue) -> RawBatch:
        began = time.perf_counter()
        mode = NextStep(context.op_config["mode"])
        row = claim(context, warehouse, spec, mode)
        if row is None:
            return RawBatch(spec, None, (), began)
        with recorded(context, warehouse, row, mode):
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
                "mode": mode.value,
                "entries": len(entries),
                "events": row.events_planned,
                "bytes": sum(len(entry.data) for entry in entries),
                "first receipt": str(Receipt(spec.name, row.first_id)),
                "last receipt": str(Receipt(spec.name, row.last_id)),
                "milliseconds": since(began),
                **ledger_links(warehouse, row),  # here too, for a run that gets no further
            }
        )
        return RawBatch(spec, row, entries, began, mode)

    return read_batch


def claim(
    context: dg.OpExecutionContext, warehouse: Warehouse, spec: StreamSpec, mode: NextStep, kind: str = "ingest"
) -> LedgerRow | None:
    """The batch that the run is for, noted in the ledger as begun; None when there is nothing to do."""
    ledger = warehouse.ledger
    batch_id, attempt = int(context.op_config["batch_id"]), int(context.op_config["attempt"])
    with recorded(context, warehouse, None):
        if not batch_id:  # somebody pressed Materialize: take what the planner would have taken next
            batch_id = next((row.id for row in ledger.unsettled(spec.name, kind)), 0)
        known = ledger.get(batch_id) if batch_id else None
    if not batch_id:
        context.log.info("No batch of %s is waiting; nothing to do.", spec.name)
        return None
    if known is None or (known.stream, known.kind) != (spec.name, kind):
        raise PermanentError(f"There is no batch {batch_id} of {spec.name} in the ledger, of the kind {kind}.")
    attempt = attempt or known.attempt
    with recorded(context, warehouse, known, mode):
        row = ledger.start(batch_id, attempt, context.run_id)
    if row is None or row.settled or row.attempt > attempt:
        context.log.info("Batch %s is settled, or a later attempt has been requested; nothing to do.", batch_id)
        return None
    return row


@dg.op(description="Decodes the lines and checks them against the stream's spec; bad lines go on to dead letters.")
def validate(context: dg.OpExecutionContext, warehouse: Warehouse, raw: RawBatch) -> ValidBatch:
    """RawBatch -> ValidBatch."""
    began = time.perf_counter()
    with recorded(context, warehouse, raw.row, raw.mode):
        valid = validated(raw.spec, raw.row, raw.entries, raw.mode, warehouse.loader_url, _max_run_seconds(context))
    rejections = valid.rejections
    if raw.letters is not None and raw.mode is not NextStep.BURY:
        rejections = raw.letters.with_unedited(rejections)
    context.add_output_metadata(
        {
            "valid": len(valid.columns),
            "rejected": len(rejections),
            "late": valid.late,
            "series": len(valid.columns.series),
            "reasons": dg.MetadataValue.json(rejections.counts()),
            "milliseconds": since(began),
        }
    )
    # Which events repeat an event_id only the load finds out: until then any payload may be wanted.
    if not raw.spec.unique_event_id or raw.letters is not None:
        raw = replace(raw, entries=_without_payloads(raw.entries, rejections))
    return ValidBatch(raw, valid.columns, rejections, valid.late)


@dg.op(description="Drops the events with a negative measure where the stream says so, and counts them.")
def drop_negatives(context: dg.OpExecutionContext, warehouse: Warehouse, valid: ValidBatch) -> PositiveBatch:
    """ValidBatch -> PositiveBatch."""
    began = time.perf_counter()
    with recorded(context, warehouse, valid.raw.row, valid.raw.mode):
        left = transforms.drop_negatives(valid.columns, valid.raw.spec)
    context.add_output_metadata(
        {"kept": len(left.columns), "negative": len(left.dropped_entry), "milliseconds": since(began)}
    )
    return PositiveBatch(valid, left.columns, left.dropped_entry, left.dropped_ids)


@dg.op(description="Aggregates the events by series and minute.")
def aggregate(context: dg.OpExecutionContext, warehouse: Warehouse, positive: PositiveBatch) -> AggregatedBatch:
    """PositiveBatch -> AggregatedBatch."""
    began = time.perf_counter()
    with recorded(context, warehouse, positive.valid.raw.row, positive.valid.raw.mode):
        aggregates = transforms.aggregate(positive.columns)
    context.add_output_metadata({"windows": len(aggregates.frame), "milliseconds": since(began)})
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
    outcome = load_once(context, warehouse, batch, row)
    committed = datetime.now(UTC)
    whole = time.perf_counter() - raw.began
    shared: dict[str, Any] = {
        "batch": row.id,
        **ledger_links(warehouse, row),
        "fresh": outcome.fresh,
        "milliseconds": since(began),
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
            "repeats of an event_id": outcome.duplicate,
            "late": valid.late,
            "bytes": row.bytes_planned,
            "events per second": round(outcome.read / whole) if whole > 0 else 0,
            "first receipt": str(Receipt(raw.spec.name, row.first_id)),
            "last receipt": str(Receipt(raw.spec.name, row.last_id)),
            **shared,
        },
    )
    yield dg.Output(None, "minutes", metadata={"dagster/row_count": outcome.windows, **shared})


def ledger_links(warehouse: Warehouse, row: LedgerRow) -> dict[str, Any]:
    """From a run to its row of the ledger: where the gateway has it, and the command that shows it."""
    links: dict[str, Any] = {"ledger row": LEDGER_URL.format(id=row.id)}
    if warehouse.gateway_link:
        links["ledger row over HTTP"] = dg.MetadataValue.url(f"{warehouse.gateway_link}/v1/assets/{row.id}")
    return links


def load_once(context: dg.OpExecutionContext, warehouse: Warehouse, batch: AggregatedBatch, row: LedgerRow) -> Loaded:
    """Loads the batch, unless that was done before."""
    valid = batch.positive.valid
    raw = valid.raw
    ready = ReadyBatch(
        batch_id=row.id,
        run_id=context.run_id,
        entries=raw.entries,
        columns=batch.positive.columns,
        aggregates=batch.aggregates,
        rejections=valid.rejections,
        negative_entry=batch.positive.negative_entry,
        late=valid.late,
        buried=raw.mode is NextStep.BURY,
        letters=raw.letters,
        negative_ids=batch.positive.negative_ids,
    )
    with recorded(context, warehouse, row, raw.mode):
        return warehouse.load(raw.spec, ready, row.attempt, context.retry_number)


def _max_run_seconds(context: dg.OpExecutionContext) -> float:
    return float(context.run.tags.get("dagster/max_runtime", 900))


def _without_payloads(entries: Sequence[Entry], rejections: Rejections) -> tuple[Entry, ...]:
    """The entries, with their data only where a line of it goes on to dead letters."""
    wanted = set(rejections.entry.tolist())
    return tuple(entry if number in wanted else replace(entry, data=b"") for number, entry in enumerate(entries))


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


def since(began: float) -> float:
    """Milliseconds since `began`, for metadata."""
    return round((time.perf_counter() - began) * 1000, 1)
