"""The ops of a replay's run: read_dead_letters -> validate -> drop_negatives -> aggregate -> load.

The three in the middle are those of an ingest run: what is replayed is judged as what comes in.
"""

# No postponed annotations here: Dagster reads them at run time.

import time

import dagster as dg

from pipeline_platform.core.failures import NextStep
from pipeline_platform.core.letters import rebuild
from pipeline_platform.core.rejections import Reason
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.orchestration.ingest.attempts import recorded
from pipeline_platform.orchestration.ingest.ops import (
    WORK,
    AggregatedBatch,
    RawBatch,
    claim,
    ledger_links,
    load_once,
    since,
)
from pipeline_platform.orchestration.resources import Warehouse
from pipeline_platform.warehouse.replay_batches import edit_of, read_letters


def read_dead_letters_op(spec: StreamSpec) -> dg.OpDefinition:
    """An op that reads one batch of a replay of `spec` and applies the replay's edit."""

    @dg.op(
        name=f"read_dead_letters_{spec.name}",
        description="Reads the batch's dead letters, edits them, and rebuilds the requests that they came in.",
        out=dg.Out(io_manager_key="io_manager"),
        config_schema=dict(WORK),
    )
    def read_dead_letters(context: dg.OpExecutionContext, warehouse: Warehouse) -> RawBatch:
        began = time.perf_counter()
        mode = NextStep(context.op_config["mode"])
        row = claim(context, warehouse, spec, mode, "replay")
        if row is None:
            return RawBatch(spec, None, (), began)
        with recorded(context, warehouse, row, mode):
            letters = read_letters(warehouse.engine, row.id)
            edit = edit_of(warehouse.engine, row.replay_id) if row.replay_id is not None else None
            rebuilt = rebuild(letters, edit)
        if mode is NextStep.PLAIN and any(letter.reason == Reason.POISON for letter in letters):
            mode = NextStep.CAREFUL  # it was too much for a process once: no run need die to find out
        context.add_output_metadata(
            {
                "batch": row.id,
                "replay": row.replay_id or 0,
                "attempt": row.attempt,
                "mode": mode.value,
                "letters": len(letters),
                "requests": len(rebuilt.entries),
                "edited": len(letters) - len(rebuilt.unedited) if edit is not None else 0,
                "edit does not apply to": len(rebuilt.unedited),
                "milliseconds": since(began),
            }
        )
        return RawBatch(spec, row, rebuilt.entries, began, mode, rebuilt)

    return read_dead_letters


@dg.op(
    name="load_replay",
    description="Loads facts and aggregates, settles the dead letters and the ledger row, in one transaction.",
    out=dg.Out(dg.Nothing),
)
def load_letters(context: dg.OpExecutionContext, warehouse: Warehouse, batch: AggregatedBatch) -> None:
    """AggregatedBatch -> the warehouse."""
    began = time.perf_counter()
    raw = batch.positive.valid.raw
    row = raw.row
    if row is None:
        return
    outcome = load_once(context, warehouse, batch, row)
    whole = time.perf_counter() - raw.began
    context.add_output_metadata(
        {
            "batch": row.id,
            **ledger_links(warehouse, row),
            "fresh": outcome.fresh,
            "read": outcome.read,
            "loaded": outcome.loaded,
            "negative": outcome.negative,
            "refused again": outcome.rejected,
            "windows": outcome.windows,
            "letters per second": round(outcome.read / whole) if whole > 0 else 0,
            "milliseconds": since(began),
        }
    )
