"""The load: a whole batch once, whoever asks and whatever dies."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from pipeline_platform.core.failures import Failure, FailureKind
from pipeline_platform.errors import PermanentError, TransientError, WarehouseUnavailableError
from pipeline_platform.warehouse import load as load_module
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.load import Loaded, load
from pipeline_platform_tests.integration.batches import (
    NOW_MS,
    TELEMETRY,
    batch_of,
    entry,
    event,
    ledger_agrees,
    load_entries,
    minutes_agree,
    plan,
    ready,
    rows,
)

MIXED = (
    entry(0, event(), event(value=-1), b"not json", event(value=3.0)),
    entry(1, event(source="s2", value=5.0), event(colour="red")),
)


def test_a_batch_lands_as_facts_minutes_dead_letters_receipts_and_ledger_counts(engine: sa.Engine) -> None:
    outcome = load_entries(engine, TELEMETRY, *MIXED)
    assert (outcome.fresh, outcome.read, outcome.loaded, outcome.negative, outcome.rejected) == (True, 6, 3, 1, 2)
    assert rows(engine, "select source, metric, value, batch_id from telemetry order by value") == [
        ("s1", "m1", 1.0, 1),
        ("s1", "m1", 3.0, 1),
        ("s2", "m1", 5.0, 1),
    ]
    assert rows(
        engine, "select source, value_count, value_sum, value_avg, value_var, events from telemetry_1m order by 1"
    ) == [("s1", 2, 4.0, 2.0, 1.0, 2), ("s2", 1, 5.0, 5.0, 0.0, 1)]
    assert rows(engine, "select reason, field, line, receipt, batch_id, run_id from dead_letters order by id") == [
        ("malformed", None, 2, f"telemetry.{NOW_MS}-0", 1, "run-1"),
        ("unknown_field", "colour", 1, f"telemetry.{NOW_MS + 1}-0", 1, "run-1"),
    ]
    assert rows(engine, "select entry_ms, entry_seq, received, negative, rejected from batch_receipts") == [
        ([NOW_MS, NOW_MS + 1], [0, 0], [4, 2], [1, 0], [1, 1])
    ]
    (row,) = rows(
        engine,
        "select state, run_id, events_read, events_loaded, events_negative, events_rejected, events_late, "
        "loaded_at is not null from assets",
    )
    assert row == ("loaded", "run-1", 6, 3, 1, 2, 0, True)
    assert ledger_agrees(engine, TELEMETRY).holds
    assert minutes_agree(engine, TELEMETRY).holds


def test_a_second_load_of_a_batch_does_nothing(engine: sa.Engine) -> None:
    row = plan(engine, TELEMETRY, *MIXED)
    assert load(engine, TELEMETRY, ready(TELEMETRY, row, MIXED)).fresh
    before = _everything(engine)
    again = load(engine, TELEMETRY, ready(TELEMETRY, row, MIXED, run_id="run-2"))
    assert not again.fresh
    assert (again.read, again.loaded) == (6, 3)
    assert _everything(engine) == before


@pytest.mark.parametrize("state", ["dead", "replayed"])
def test_a_batch_that_was_settled_otherwise_is_left_alone(engine: sa.Engine, state: str) -> None:
    row = plan(engine, TELEMETRY, *MIXED)
    with engine.begin() as connection:
        connection.execute(sa.text("update assets set state = :state"), {"state": state})
    assert not load(engine, TELEMETRY, ready(TELEMETRY, row, MIXED)).fresh
    assert rows(engine, "select count(*) from telemetry") == [(0,)]


def test_a_batch_that_nobody_planned_is_refused(engine: sa.Engine) -> None:
    row = plan(engine, TELEMETRY, *MIXED)
    with engine.begin() as connection:
        connection.execute(sa.text("delete from assets"))
    with pytest.raises(PermanentError, match="not in the ledger"):
        load(engine, TELEMETRY, ready(TELEMETRY, row, MIXED))


def test_two_runs_that_race_for_a_batch_load_it_once(engine: sa.Engine) -> None:
    row = plan(engine, TELEMETRY, *MIXED)
    start = threading.Barrier(4)

    def run(number: int) -> Loaded:
        start.wait()
        return load(engine, TELEMETRY, ready(TELEMETRY, row, MIXED, run_id=f"run-{number}"))

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(run, range(4)))
    assert sum(outcome.fresh for outcome in outcomes) == 1
    assert ledger_agrees(engine, TELEMETRY).holds
    assert minutes_agree(engine, TELEMETRY).holds


def test_a_zombie_of_an_older_attempt_and_its_successor_load_once(engine: sa.Engine, ledger: Ledger) -> None:
    row = plan(engine, TELEMETRY, *MIXED)
    ledger.request(row.id, 1)
    zombie = ready(TELEMETRY, row, MIXED, run_id="zombie")
    ledger.request(row.id, 2)
    assert load(engine, TELEMETRY, ready(TELEMETRY, row, MIXED, run_id="successor")).fresh
    assert not load(engine, TELEMETRY, zombie).fresh
    assert rows(engine, "select run_id, attempt from assets") == [("successor", 2)]


def test_a_batch_that_was_halved_is_not_loaded_by_a_ghost_of_the_whole(engine: sa.Engine, ledger: Ledger) -> None:
    parts = [entry(number, event(), event(value=number)) for number in range(4)]
    row = plan(engine, TELEMETRY, *parts)
    ledger.request(row.id, 1)
    ghost = ready(TELEMETRY, row, parts, run_id="ghost")
    later = datetime.now(UTC)
    ledger.fail(row.id, Failure(FailureKind.LOST, "E", "m", attempt=1), not_before=later)
    failing = ledger.get(row.id)
    assert failing is not None
    assert ledger.split(failing, batch_of(TELEMETRY, parts[:2]), batch_of(TELEMETRY, parts[2:]))
    with pytest.raises(TransientError, match="was halved after this run had read it"):
        load(engine, TELEMETRY, ghost)
    halves = ledger.unsettled("telemetry")
    for half, entries in zip(halves, (parts[:2], parts[2:]), strict=True):
        assert load(engine, TELEMETRY, ready(TELEMETRY, half, entries)).fresh
    assert not load(engine, TELEMETRY, ghost).fresh
    assert rows(engine, "select count(*) from telemetry") == [(8,)]
    assert ledger_agrees(engine, TELEMETRY).holds
    assert minutes_agree(engine, TELEMETRY).holds


@pytest.mark.parametrize("step", ["merge_minutes", "_park", "_receipts"])
def test_a_backend_that_is_killed_between_copy_and_commit_leaves_nothing(
    engine: sa.Engine, ledger: Ledger, warehouse_url: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    row = plan(engine, TELEMETRY, *MIXED)
    real = getattr(load_module, step)

    def killed(*args: Any) -> Any:
        with psycopg.connect(warehouse_url, autocommit=True) as other:
            other.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid() and state like 'idle in transaction%'"
            )
        return real(*args)

    monkeypatch.setattr(load_module, step, killed)
    with pytest.raises(WarehouseUnavailableError):
        load(engine, TELEMETRY, ready(TELEMETRY, row, MIXED))
    assert _counts(engine) == (0, 0, 0, 0)
    assert rows(engine, "select state from assets") == [("planned",)]
    monkeypatch.undo()
    assert load(engine, TELEMETRY, ready(TELEMETRY, row, MIXED)).fresh
    assert ledger_agrees(engine, TELEMETRY).holds
    assert ledger.totals("telemetry").events_loaded == 3


def test_an_error_of_postgresql_is_permanent_and_leaves_nothing(own_engine: sa.Engine) -> None:
    with own_engine.begin() as connection:
        connection.execute(sa.text("alter table telemetry_minutes add constraint no check (value_sum < 0)"))
    row = plan(own_engine, TELEMETRY, *MIXED)
    with pytest.raises(PermanentError, match="23514"):
        load(own_engine, TELEMETRY, ready(TELEMETRY, row, MIXED))
    assert _counts(own_engine) == (0, 0, 0, 0)


def test_waiting_too_long_for_a_lock_is_transient(engine: sa.Engine) -> None:
    row = plan(engine, TELEMETRY, *MIXED)
    batch = ready(TELEMETRY, row, MIXED)
    with engine.begin() as holder:
        holder.execute(sa.text("select 1 from assets for update"))
        impatient = sa.create_engine(
            engine.url, connect_args={"options": "-c lock_timeout=100"}, poolclass=sa.pool.NullPool
        )
        with pytest.raises(TransientError, match="55P03"):
            load(impatient, TELEMETRY, batch)


def test_loads_of_different_batches_with_the_same_new_series_and_windows_all_land(engine: sa.Engine) -> None:
    workers, entries = 6, 4
    batches = []
    for worker in range(workers):
        mine = tuple(
            entry(
                worker * entries + number,
                *(
                    event(source=f"s{(n * 7 + worker) % 20}", ts=NOW_MS - (n + worker) % 5 * 60_000, value=float(n))
                    for n in range(60)
                ),
            )
            for number in range(entries)
        )
        batches.append((plan(engine, TELEMETRY, *mine), mine))
    start = threading.Barrier(workers)

    def run(number: int) -> Loaded:
        row, mine = batches[number]
        batch = ready(TELEMETRY, row, mine)
        start.wait()
        return load(engine, TELEMETRY, batch)

    with ThreadPoolExecutor(workers) as pool:
        outcomes = list(pool.map(run, range(workers)))
    assert sum(outcome.loaded for outcome in outcomes) == workers * entries * 60
    assert rows(engine, "select count(*), sum(value) from telemetry") == [
        (workers * entries * 60, workers * entries * 1770.0)
    ]
    assert rows(engine, "select count(*), count(distinct (source, metric)) from telemetry_series") == [(20, 20)]
    assert minutes_agree(engine, TELEMETRY).holds
    assert ledger_agrees(engine, TELEMETRY).holds


def _everything(engine: sa.Engine) -> list[list[tuple[Any, ...]]]:
    tables = ("assets", "telemetry_events", "telemetry_minutes", "dead_letters", "batch_receipts")
    return [rows(engine, f"select * from {table} order by 1, 2") for table in tables]


def _counts(engine: sa.Engine) -> tuple[Any, ...]:
    return rows(
        engine,
        "select (select count(*) from telemetry_events), (select count(*) from telemetry_minutes), "
        "(select count(*) from dead_letters), (select count(*) from batch_receipts)",
    )[0]
