"""The replay job of a stream: dead letters -> events and minutes, one short run a batch."""

from __future__ import annotations

import dagster as dg

from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.orchestration.ingest.ops import aggregate, drop_negatives, validate
from pipeline_platform.orchestration.replay.ops import load_letters, read_dead_letters_op
from pipeline_platform.orchestration.resources import CALM
from pipeline_platform.warehouse.replays import replay_job


def replay_job_of(spec: StreamSpec, max_run_seconds: int) -> dg.JobDefinition:
    """The job whose runs each replay one batch, behind the ingest runs where workers are scarce."""
    read_dead_letters = read_dead_letters_op(spec).alias("read_dead_letters")
    load = load_letters.alias("load")

    @dg.graph(name=replay_job(spec.name))
    def replay() -> None:
        load(aggregate(drop_negatives(validate(read_dead_letters()))))

    tags = {"pipeline/stream": spec.name, "dagster/max_runtime": str(max_run_seconds)}
    return replay.to_job(
        description=f"Replays one batch of dead letters of {spec.name}. The replay sensor requests the runs.",
        executor_def=dg.in_process_executor,
        config=dict(CALM),
        tags=tags,
        run_tags=tags | {"dagster-celery/queue": "etl"},
    )
