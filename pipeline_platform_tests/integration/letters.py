"""Dead letters to replay, and what a replay's runs do, without Dagster."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from pipeline_platform.core.events import decode
from pipeline_platform.core.failures import Failure, FailureKind, NextStep
from pipeline_platform.core.letters import rebuild
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.transforms import aggregate, drop_negatives
from pipeline_platform.core.validation import validate
from pipeline_platform.orchestration.ingest.planner import Request, RunState
from pipeline_platform.orchestration.replay.sensors import replay_tick
from pipeline_platform.warehouse.dead_letters import LetterFilter
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.ledger_rows import LedgerRow
from pipeline_platform.warehouse.load import Loaded, ReadyBatch
from pipeline_platform.warehouse.load_replay import load_replay
from pipeline_platform.warehouse.replay_batches import edit_of, read_letters
from pipeline_platform.warehouse.replays import Replay, get_replay
from pipeline_platform_tests.integration.batches import TELEMETRY, entry, event, load_entries, rows
from pipeline_platform_tests.integration.planning import LIMITS

ALL = LetterFilter()
JOBS = ("replay_telemetry", "replay_wide", "replay_payments")


@dataclass
class Replays:
    """Runs of replays over one warehouse: what the sensor asks for, and what a run does."""

    engine: sa.Engine
    specs: dict[str, StreamSpec] = field(default_factory=lambda: {"telemetry": TELEMETRY})
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    runs: dict[tuple[int, int], RunState] = field(default_factory=dict)

    def tick(self) -> tuple[Request, ...]:
        """The attempts that the sensor requests."""
        return replay_tick(self.engine, JOBS, LIMITS, self.state_of, self.now)

    def state_of(self, row: LedgerRow) -> RunState:
        """What became of the run of the row's attempt."""
        return self.runs.get((row.id, row.attempt), RunState.ABSENT)

    def read(self, request: Request) -> ReadyBatch:
        """What the ops of a run make of the batch before the load."""
        row = Ledger(self.engine).start(request.row.id, request.attempt, f"run-{request.row.id}-{request.attempt}")
        assert row is not None
        assert row.replay_id is not None
        spec = self.specs[row.stream]
        rebuilt = rebuild(read_letters(self.engine, row.id), edit_of(self.engine, row.replay_id))
        valid = validate(decode(rebuilt.entries, spec), rebuilt.entries, spec)
        left = drop_negatives(valid.columns, spec)
        return ReadyBatch(
            batch_id=row.id,
            run_id=row.run_id or "",
            entries=rebuilt.entries,
            columns=left.columns,
            aggregates=aggregate(left.columns),
            rejections=rebuilt.with_unedited(valid.rejections),
            negative_entry=left.dropped_entry,
            late=valid.late,
            letters=rebuilt,
            negative_ids=left.dropped_ids,
        )

    def load(self, batch: ReadyBatch, stream: str = "telemetry") -> Loaded:
        """The last op."""
        return load_replay(self.engine, self.specs[stream], batch)

    def finish(self, replay: Replay) -> Replay:
        """Runs what is asked for until nothing is; the replay's row then."""
        for _ in range(50):
            for request in self.tick():
                self.load(self.read(request), request.row.stream)
            if not Ledger(self.engine).unsettled(None, "replay"):
                break
            self.now += timedelta(seconds=60)
        found = get_replay(self.engine, replay.id)
        assert found is not None
        return found


def failure(row: LedgerRow, kind: FailureKind, mode: NextStep = NextStep.PLAIN) -> Failure:
    """A failure of the row's attempt."""
    return Failure(kind, "Planted", "as planned", attempt=row.attempt, mode=mode)


def refuse(engine: sa.Engine, numbers: range, spoil: Callable[[int], bytes] | None = None, first: int = 0) -> None:
    """Loads events that are refused for an unknown field, ten a request; their values are the numbers."""
    spoil = spoil or (lambda number: event(value=number, colour="red"))
    parts = [numbers[start : start + 10] for start in range(0, len(numbers), 10)]
    load_entries(engine, TELEMETRY, *(entry(first + n, *map(spoil, part)) for n, part in enumerate(parts)))


def whereabouts(engine: sa.Engine) -> dict[str, Counter[int]]:
    """The numbers that are in the facts, and in letters by state; and the sum of negatives by the ledger."""
    found = {"facts": Counter(int(row[0]) for row in rows(engine, "select value from telemetry_events"))}
    for state, payload in rows(engine, "select state, payload from dead_letters"):
        found.setdefault(state, Counter())[int(json.loads(payload)["value"])] += 1
    return found
