"""Unique event ids through real runs: ingest, and the maintenance that purges."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import orjson
import pytest

from pipeline_platform.core.streams import SHIPPED, load_specs
from pipeline_platform.orchestration import resources
from pipeline_platform.orchestration.definitions import definitions
from pipeline_platform.queue.protocol import NewEntry
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.migrate import migrate
from pipeline_platform_tests.integration.batches import execute, ledger_agrees, minutes_agree, rows

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]


def test_repeats_go_to_dead_letters_with_their_payload_and_the_maintenance_purges(
    own_warehouse_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = (SHIPPED / "telemetry.yaml").read_text(encoding="utf-8")
    (tmp_path / "telemetry.yaml").write_text(f"{shipped}\nunique_event_id: true\n", encoding="utf-8")
    spec = load_specs(tmp_path)["telemetry"]
    for name, value in (("DATABASE_URL", own_warehouse_url), ("REDIS_URL", redis_url)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIPELINE_STREAMS_DIR", str(tmp_path))
    engine = connect(own_warehouse_url)
    migrate(engine, [spec])
    queue = resources._queue(redis_url, os.getpid())
    ids = ["a", "b", "a", "n", "n"]
    lines = [
        orjson.dumps({"source": "s", "metric": "m", "value": -1.0 if name == "n" else at, "event_id": name})
        for at, name in enumerate(ids)
    ]
    queue.append([NewEntry("telemetry", len(lines), b"".join(line + b"\n" for line in lines), "k1")])
    repository = definitions().get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:
        sensor = repository.get_sensor_def("ingest_telemetry_sensor")
        with dg.build_sensor_context(instance, resources=definitions().resources) as context:
            (request,) = sensor.evaluate_tick(context).run_requests or []
        job = repository.get_job("ingest_telemetry")
        assert job.execute_in_process(run_config=request.run_config, tags=dict(request.tags), instance=instance).success
        assert rows(engine, "select value from telemetry order by 1") == [(0.0,), (1.0,)]
        assert rows(engine, "select reason, payload from dead_letters order by line") == [
            ("duplicate_event_id", lines[2].decode()),
            ("duplicate_event_id", lines[4].decode()),
        ]
        counts = "select events_read, events_loaded, events_negative, events_rejected, events_duplicate from assets"
        assert rows(engine, counts) == [(5, 2, 1, 2, 2)]
        assert ledger_agrees(engine, spec).holds
        assert minutes_agree(engine, spec).holds
        assert repository.get_job("maintain_warehouse").execute_in_process(instance=instance).success
        assert rows(engine, "select count(*) from telemetry_event_ids") == [(3,)]
        week_ms = 7 * 86_400_000
        execute(engine, f"update assets set first_ms = first_ms - {week_ms} - 1, last_ms = last_ms - {week_ms} - 1")
        execute(engine, "update telemetry_event_ids set received_at = received_at - interval '7 days 1 millisecond'")
        execute(
            engine,
            "insert into assets (asset_key, stream, state, first_ms, first_seq, last_ms, last_seq) "
            f"select asset_key, stream, 'loaded', first_ms + {week_ms} + 1, 0, last_ms + {week_ms} + 1, 0 from assets",
        )
        assert repository.get_job("maintain_warehouse").execute_in_process(instance=instance).success
        assert rows(engine, "select count(*) from telemetry_event_ids") == [(0,)]
    engine.dispose()
    resources._engine(own_warehouse_url, os.getpid()).dispose()
