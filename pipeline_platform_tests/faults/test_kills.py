"""kill -9 of each part, again and again, under load. Short: 30 kills over all parts; long: so many of each."""

from __future__ import annotations

import random

import pytest

from pipeline_platform_tests.faults.form import FORM
from pipeline_platform_tests.faults.kills import KILLS
from pipeline_platform_tests.faults.stand import Stand
from pipeline_platform_tests.faults.trial import trial

ALL = "every part"
PARTS = list(KILLS) if FORM.long else [ALL]
PAUSE = (0.5, 3.0) if FORM.long else (0.2, 1.5)  # seconds to work in between two kills
EVENTS = FORM.events // len(PARTS) + 1
RATE = 1500.0 if FORM.long else FORM.events / 45


def _schedule(part: str) -> list[str]:
    """Whom to kill, in this order. Of every part: what holds a run's or a request's fate comes twice as often."""
    if part != ALL:
        return [part] * FORM.kills
    rng = random.Random(FORM.seed)
    parts = [*KILLS, "a worker's child", "a PostgreSQL backend", "Valkey", "the gateway"]
    rounds = [rng.sample(parts, len(parts)) for _ in range(FORM.kills // len(parts) + 1)]
    return [each for turn in rounds for each in turn][: FORM.kills]


@pytest.mark.timeout(10_800)
@pytest.mark.parametrize("part", PARTS)
def test_everything_survives_kills_of(stand: Stand, part: str) -> None:
    with trial(stand, "kill -9", f"kill -9 of {part}", events=EVENTS, rate=RATE) as under:
        for victim in _schedule(part):
            under.pause(*PAUSE)
            KILLS[victim](stand)
            under.times += 1
