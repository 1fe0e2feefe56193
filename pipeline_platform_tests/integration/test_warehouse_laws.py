"""Laws: however events are cut into batches, and in whatever order those land, the aggregates are the facts'."""

from __future__ import annotations

import random
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline_platform.warehouse.load import load
from pipeline_platform_tests.integration.batches import (
    NOW_MS,
    WIDE,
    entry,
    execute,
    ledger_agrees,
    minutes_agree,
    plan,
    ready,
    rows,
    wide,
)

VALUES = st.one_of(
    st.none(),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e100, -1e100, 1e-100, -1e-100, 5e-324, 0.1, 1e16]),
    st.floats(-1e6, 1e6),
    st.floats(-1e100, 1e100),
)
TIMES = st.sampled_from([0, 1, 59_999, 60_000, 61_000, 2 * 86_400_000])
EVENTS = st.lists(st.tuples(st.sampled_from("xyz"), TIMES, VALUES, VALUES), min_size=1, max_size=40)


@given(events=EVENTS, seed=st.integers(0, 2**32), cuts=st.integers(1, 6))
@settings(max_examples=40, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_minutes_equal_a_recomputation_however_the_events_are_cut(
    engine: sa.Engine, events: list[tuple[str, int, float | None, float | None]], seed: int, cuts: int
) -> None:
    execute(engine, "truncate assets, batch_receipts, dead_letters, wide_events, wide_minutes, wide_series")
    dice = random.Random(seed)
    entries: list[list[bytes]] = [[] for _ in range(cuts)]
    for site, later, a, b in events:
        fields: dict[str, Any] = {"site": site, "ts": NOW_MS + later, "a": a, "b": b}
        dice.choice(entries).append(wide(**{name: value for name, value in fields.items() if value is not None}))
    requests = [entry(number, *lines) for number, lines in enumerate(entries) if lines]
    planned = [(plan(engine, WIDE, request), request) for request in requests]
    dice.shuffle(planned)
    for row, request in planned:
        load(engine, WIDE, ready(WIDE, row, (request,)))
    assert rows(engine, "select count(*) from wide") == [(len(events),)]
    assert minutes_agree(engine, WIDE).differences == ()
    assert ledger_agrees(engine, WIDE).differences == ()
