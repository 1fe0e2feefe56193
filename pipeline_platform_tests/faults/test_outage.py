"""PostgreSQL is away for an hour, with Dagster's database on it: everything waits, and then everything is loaded.

In the long form only: the short one's kills and stops last seconds.
"""

from __future__ import annotations

import time

import pytest

from pipeline_platform_tests.faults.form import FORM
from pipeline_platform_tests.faults.own_servers import ProxiedStand
from pipeline_platform_tests.faults.trial import trial

RATE = 100.0  # events a second: the backlog's limit is reached on the way, and said

if FORM.long:

    @pytest.mark.timeout(10_800)
    def test_an_hour_without_postgresql_ends_with_everything_loaded(proxied: ProxiedStand) -> None:
        seconds = FORM.outage_seconds
        with trial(proxied, "outage", f"PostgreSQL away for {seconds:.0f} s", rate=RATE) as under:
            under.pause(5, 10)
            with proxied.without_postgres():
                time.sleep(seconds)
            under.times = 1
            under.pause(5, 10)
        with proxied.database() as connection:
            query = b"select count(*) from dead_letters where reason = 'poison'"
            assert connection.execute(query).fetchone() == (0,), "an outage is no fault of the data"
