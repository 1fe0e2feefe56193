"""Lines of every bad kind, also those that crash or kill the process that decodes them."""

from __future__ import annotations

import pytest

from pipeline_platform_tests.faults.form import FORM
from pipeline_platform_tests.faults.own_servers import ProxiedStand
from pipeline_platform_tests.faults.trial import trial

EVENTS = 2_000 if FORM.long else 400


@pytest.mark.timeout(1800)
def test_poison_costs_its_own_lines_only(proxied: ProxiedStand) -> None:
    """Given 1 % each of lines that raise and that kill, I expect them in dead_letters, and all others loaded."""
    # Each line that kills costs a process, so that many of them take longer than an outage may.
    with trial(
        proxied,
        "poison",
        "1 % poison of each kind",
        events=EVENTS,
        poison=0.01,
        rate=300,
        size=20,
        drained_within=EVENTS * 0.3,
    ) as under:
        under.wait_for_events(EVENTS)
        under.times = sum(len(request.invalid) for request in under.crowd.requests)
    with proxied.database() as connection:
        query = b"select reason, payload like '%poison: %', count(*) from dead_letters group by 1, 2"
        found = {(reason, lethal): count for reason, lethal, count in connection.execute(query)}
    assert ("poison", True) in found
    assert all((reason == "poison") == lethal for reason, lethal in found), found
