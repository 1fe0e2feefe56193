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
        counts = "select count(*) filter (where {0}), count(*) filter (where {1}) from dead_letters where {0} or {1}"
        query = counts.format("reason = 'poison'", "payload like '%poison: %'")
        parked, lethal = connection.execute(query.encode()).fetchone() or (0, 0)
    assert parked == lethal
    assert lethal
