"""When a breaker opens, and for how long."""

from __future__ import annotations

import pytest

from pipeline_platform.core.breaker import BreakerLimits, Counts, fails, pause, recent, trips

LIMITS = BreakerLimits(share=0.2, window=1000, minimum=10, pause=60, longest_pause=900)


@pytest.mark.parametrize(
    ("events", "rejected", "expected"),
    [
        (9, 9, False),
        (10, 10, True),
        (50, 10, False),
        (49, 10, True),
        (1000, 200, False),
        (1000, 201, True),
        (0, 0, False),
    ],
)
def test_it_takes_the_share_and_the_minimum(events: int, rejected: int, expected: bool) -> None:
    assert trips(Counts(events, rejected), LIMITS) is expected


def test_a_probe_needs_no_minimum() -> None:
    assert fails(Counts(1, 1), LIMITS)
    assert not fails(Counts(5, 1), LIMITS)
    assert not fails(Counts(0, 0), LIMITS)


def test_only_the_newest_events_count() -> None:
    batches = [Counts(600, 1), Counts(600, 2), Counts(5000, 5000)]
    assert recent(batches, LIMITS) == Counts(1200, 3)
    assert recent([], LIMITS) == Counts(0, 0)


def test_the_pause_doubles_up_to_its_limit() -> None:
    assert [pause(openings, LIMITS) for openings in (1, 2, 3, 4, 5, 6, 999)] == [60, 120, 240, 480, 900, 900, 900]
