"""The ingest assets of a stream: queue -> events -> 1m, as one graph-backed multi-asset."""

from __future__ import annotations

from typing import Any

import dagster as dg
import sqlalchemy as sa

from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.orchestration.ingest.ops import (
    WORK,
    aggregate,
    drop_negatives,
    load_batch,
    read_batch_op,
    validate,
)
from pipeline_platform.orchestration.resources import CALM
from pipeline_platform.warehouse.stream_tables import sql_type, stream_tables
from pipeline_platform.warehouse.stream_views import View

OWNERS = ["team:data-platform"]


def queue_key(stream: str) -> dg.AssetKey:
    """The asset key of a stream's queue."""
    return dg.AssetKey(["queue", stream])


def events_key(stream: str) -> dg.AssetKey:
    """The asset key of a stream's facts."""
    return dg.AssetKey(["warehouse", f"{stream}_events"])


def minutes_key(stream: str) -> dg.AssetKey:
    """The asset key of a stream's one-minute aggregates."""
    return dg.AssetKey(["warehouse", f"{stream}_1m"])


def queue_asset(spec: StreamSpec) -> dg.AssetSpec:
    """The queue, which the gateway fills: an external asset, upstream of everything."""
    return dg.AssetSpec(
        queue_key(spec.name),
        description=f"Accepted requests of {spec.name}, durable in Redis until their batch is settled.",
        group_name=spec.name,
        kinds={"redis"},
        owners=OWNERS,
        metadata={"endpoint": f"POST /v1/streams/{spec.name}/events"},
    )


def ingest_assets(spec: StreamSpec) -> dg.AssetsDefinition:
    """The facts and minute aggregates of a stream, loaded together by one short run a batch."""
    read_batch = read_batch_op(spec).alias("read_batch")

    @dg.graph(
        name=f"ingest_{spec.name}_batch",
        ins={"queue": dg.GraphIn()},
        out={"events": dg.GraphOut(), "minutes": dg.GraphOut()},
        config=dg.ConfigMapping(
            config_schema=dict(WORK),
            config_fn=lambda config: {"read_batch": {"config": dict(config)}},
        ),
    )
    def ingest_batch(queue: Any) -> dict[str, Any]:
        loaded = load_batch(aggregate(drop_negatives(validate(read_batch(queue)))))
        return {"events": loaded.events, "minutes": loaded.minutes}

    tables = stream_tables(spec)
    assets = dg.AssetsDefinition.from_graph(
        ingest_batch,
        keys_by_input_name={"queue": queue_key(spec.name)},
        keys_by_output_name={"events": events_key(spec.name), "minutes": minutes_key(spec.name)},
        internal_asset_deps={"events": {queue_key(spec.name)}, "minutes": {events_key(spec.name)}},
        group_name=spec.name,
    )
    described = {
        events_key(spec.name): (
            f"{spec.description} One row an event; read it as the view `{spec.name}`.",
            {
                "dagster/table_name": f"warehouse.public.{spec.name}_events",
                "dagster/column_schema": _table_schema(tables.events),
            },
        ),
        minutes_key(spec.name): (
            f"One-minute aggregates of {spec.name}; late events correct them. Read it as the view `{spec.name}_1m`.",
            {
                "dagster/table_name": f"warehouse.public.{spec.name}_1m",
                "dagster/column_schema": _view_schema(tables.views[1]),
            },
        ),
    }

    def dress(asset: dg.AssetSpec) -> dg.AssetSpec:
        description, metadata = described[asset.key]
        return asset.replace_attributes(
            description=description, kinds={"postgres", "pandas"}, owners=OWNERS
        ).merge_attributes(metadata=metadata)

    return assets.map_asset_specs(dress)


def ingest_job(spec: StreamSpec, max_run_seconds: int) -> Any:
    """The job whose runs each load one batch. In process: what ops pass on never leaves memory."""
    return dg.define_asset_job(
        job_name(spec.name),
        selection=dg.AssetSelection.assets(events_key(spec.name), minutes_key(spec.name)).without_checks(),
        description=f"Loads one batch of {spec.name}. The ingest sensor requests a run for each planned batch.",
        executor_def=dg.in_process_executor,
        config=dict(CALM),
        tags={"pipeline/stream": spec.name, "dagster/max_runtime": str(max_run_seconds)},
        run_tags={
            "pipeline/stream": spec.name,
            "dagster/max_runtime": str(max_run_seconds),
            "dagster-celery/queue": "ingest",
        },
    )


def job_name(stream: str) -> str:
    """The name of a stream's ingest job."""
    return f"ingest_{stream}"


def _table_schema(table: sa.Table) -> dg.TableSchema:
    return dg.TableSchema(
        [dg.TableColumn(column.name, sql_type(column), description=column.comment) for column in table.columns]
    )


def _view_schema(view: View) -> dg.TableSchema:
    return dg.TableSchema(
        [dg.TableColumn(column.name, column.type, description=column.comment or None) for column in view.columns]
    )
