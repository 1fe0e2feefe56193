"""When a batch became visible: the commit's time where the server keeps it, and nothing where it does not or cannot."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from pipeline_platform.core.streams import load_specs
from pipeline_platform.local import postgres
from pipeline_platform.local.accounts import server_account
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.ledger_rows import LedgerRow
from pipeline_platform.warehouse.migrate import migrate
from pipeline_platform.warehouse.stats import minute_stages
from pipeline_platform_tests.conftest import make_state_dir, running
from pipeline_platform_tests.integration.batches import TELEMETRY, entry, event, execute, load_entries


def row(engine: sa.Engine) -> LedgerRow:
    found = Ledger(engine).get(1)
    assert found is not None
    assert Ledger(engine).holding("telemetry", found.first_id) == found
    return found


def test_it_is_between_the_load_and_its_return(engine: sa.Engine) -> None:
    load_entries(engine, TELEMETRY, entry(0, event()))
    returned = datetime.now(UTC)
    found = row(engine)
    assert found.loaded_at is not None
    assert found.visible_at is not None
    assert found.loaded_at <= found.visible_at <= returned < found.loaded_at + timedelta(minutes=1)


def test_it_is_not_known_before_the_load(engine: sa.Engine) -> None:
    load_entries(engine, TELEMETRY, entry(0, event()))
    execute(engine, "update assets set state = 'failed', loaded_at = null")
    assert row(engine).visible_at is None


def test_a_row_that_was_written_again_later_is_left_out(engine: sa.Engine) -> None:
    load_entries(engine, TELEMETRY, entry(0, event()))
    execute(engine, "update assets set loaded_at = loaded_at - interval '1 hour'")
    assert row(engine).visible_at is None


def test_a_server_that_does_not_keep_it_answers_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(postgres.SETTINGS, "track_commit_timestamp", "off")
    folder = make_state_dir()
    server = PostgresServer.prepare(folder, server_account(), durable=False)
    for _ in running(server.service(), folder):
        engine = connect(server.url())
        migrate(engine, load_specs().values())
        load_entries(engine, TELEMETRY, entry(0, event()))
        assert row(engine).state == "loaded"
        assert row(engine).visible_at is None
        seconds = minute_stages(engine)["telemetry"].seconds
        assert "receive_to_plan" in seconds
        assert "load_to_visible" not in seconds
        engine.dispose()
    shutil.rmtree(folder.parent)
