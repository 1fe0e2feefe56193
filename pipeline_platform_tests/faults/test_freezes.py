"""SIGSTOP of each part, under load: for 1 to 30 s in the long form."""

from __future__ import annotations

import pytest

from pipeline_platform_tests.faults.form import FORM
from pipeline_platform_tests.faults.freezes import FREEZES
from pipeline_platform_tests.faults.stand import Stand
from pipeline_platform_tests.faults.trial import trial

ALL = "every part"
PARTS = list(FREEZES) if FORM.long else [ALL]
LONGEST = 30.0 if FORM.long else 2.0


@pytest.mark.timeout(10_800)
@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_lost_while_it_stands_still(stand: Stand, part: str) -> None:
    with trial(stand, "SIGSTOP", f"SIGSTOP of {part}, 1-{LONGEST:.0f} s") as under:
        chosen = [part] * FORM.rounds if part != ALL else under.rng.sample(list(FREEZES), len(FREEZES))
        for each in chosen:
            FREEZES[each](stand, under.rng.uniform(1, LONGEST))
            under.times += 1
            under.pause(0.2, 0.5)
