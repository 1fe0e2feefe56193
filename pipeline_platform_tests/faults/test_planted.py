"""Bugs planted into the platform: the oracle must find each, and nothing where there is none."""

from __future__ import annotations

import random
import time

import psycopg
import pytest

from pipeline_platform_tests.faults.crowd import MixedProducer
from pipeline_platform_tests.faults.form import FORM
from pipeline_platform_tests.faults.own_servers import ProxiedStand
from pipeline_platform_tests.faults.rows import Row, keep
from pipeline_platform_tests.oracle import Verdict, judge, wait_for
from pipeline_platform_tests.planted.bugs import BUGS

STREAMS = ("control", *BUGS)
QUIET = "select count(*) from assets where stream = %s and state in ('planned', 'failed')"


@pytest.fixture(scope="module")
def verdicts(proxied_for_bugs: ProxiedStand) -> dict[str, Verdict]:
    """What the oracle says of each planted stream: events went to all of them alike."""
    stand = proxied_for_bugs
    where = stand.where
    producers = {}
    for name in STREAMS:
        rng = random.Random(f"{FORM.seed}/{name}")
        producers[name] = MixedProducer(where.gateway_url, where.api_key, rng, f"planted_{name}")
    for _ in range(12):
        for producer in producers.values():
            producer.send(20)
    time.sleep(2)
    with psycopg.connect(where.warehouse_url, autocommit=True) as connection:
        for name in STREAMS:
            if name == "trim_early":  # its batches can never be loaded
                continue
            stream = f"planted_{name}"

            def quiet(stream: str = stream) -> bool:
                return connection.execute(QUIET, [stream]).fetchone() == (0,)

            wait_for(f"{stream} is settled", quiet, 60)
    found = {}
    for name, producer in producers.items():
        stream, sent = f"planted_{name}", producer.requests
        found[name] = judge(where.warehouse_url, sent, stream, stand.spec(stream))
        events = sum(request.events for request in sent if request.outcome == "acknowledged")
        seen = found[name]
        what = f"planted: {name.replace('_', ' ')}"
        keep(Row("planted", what, 1, events, seen.lost, seen.doubled, seen.differences, 0.0, 0.0, FORM.seed))
    return found


@pytest.mark.timeout(300)
def test_the_control_stream_is_in_order_though_every_load_is_repeated(verdicts: dict[str, Verdict]) -> None:
    assert verdicts["control"] == Verdict(0, 0, ())


def test_a_queue_that_is_trimmed_early_is_caught(verdicts: dict[str, Verdict]) -> None:
    assert verdicts["trim_early"].lost > 0


def test_an_answer_before_the_append_is_caught(verdicts: dict[str, Verdict]) -> None:
    assert verdicts["ack_before_append"].lost > 0
    assert verdicts["ack_before_append"].doubled == 0


def test_a_load_without_the_ledgers_check_is_caught(verdicts: dict[str, Verdict]) -> None:
    assert verdicts["no_ledger_check"].doubled > 0
    assert verdicts["no_ledger_check"].lost == 0


def test_aggregates_that_count_twice_are_caught(verdicts: dict[str, Verdict]) -> None:
    found = verdicts["aggregate_twice"]
    assert (found.lost, found.doubled) == (0, 0)
    assert any(each.startswith("aggregates") for each in found.differences)
