"""`up --demo`: within two minutes both halves of the platform are alive, without the internet."""

from __future__ import annotations

import time

import psycopg

from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.oracle import wait_for

WITHIN = 120.0  # seconds from the command to everything
ALIVE = """
select (select count(*) from telemetry) > 0, (select count(*) from orders_1m) > 0,
    (select count(*) from dead_letters) > 0, (select count(*) from prices_quotes) > 0,
    (select count(distinct open_time::date) from prices_candles where interval = '1d') >= 90,
    (select count(*) from prices_daily) > 0, (select count(amount_usd) from orders_usd_1d) > 0
"""


def test_streams_prices_a_backfill_and_the_mart_are_alive_within_two_minutes() -> None:
    up, began = Up("--demo"), time.monotonic()
    try:
        status = up.start().status()

        def alive() -> bool:
            with psycopg.connect(status["warehouse_url"]) as connection:
                return set(connection.execute(ALIVE).fetchone() or ()) == {True}

        def backfilled() -> bool:
            return [each["status"] for each in up.backfills()] == ["COMPLETED_SUCCESS"]

        left = began + WITHIN - time.monotonic()
        wait_for("everything is alive", alive, left)
        wait_for("the backfill has ended well", backfilled, began + WITHIN - time.monotonic())
        with psycopg.connect(status["warehouse_url"]) as connection:
            sources = connection.execute("select distinct source from prices_candles").fetchall()
            unpriced = connection.execute("select count(*) from orders_usd_1d where amount_usd is null").fetchone()
        assert sources == [("demo",)]
        assert unpriced == (0,)
    finally:
        up.remove()
