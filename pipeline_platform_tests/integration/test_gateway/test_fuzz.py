"""Mutated bodies and requests made from our own OpenAPI: whatever comes, no 5xx.

PIPELINE_FUZZ=10000 is the long form; the seed is printed.
"""

from __future__ import annotations

import gzip
import os
import random
import time
from collections import Counter
from typing import Any

import orjson
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as limits

from pipeline_platform_tests.integration.test_gateway.kit import GOOD, Client, Pipeline

BODIES = int(os.environ.get("PIPELINE_FUZZ", "500"))
SEED = int(os.environ.get("PIPELINE_FUZZ_SEED", str(time.time_ns() % 10**9)))
NASTY = [
    b"NaN", b"1e999", b"-0", b"1" * 30, b'"\\ud800"', b'"\\u0000"', b"\xff", b"\x00", b"[" * 300, b"{" * 300,
    b'{"a":' * 200, b"null", b"\\", b'"', b",", b"\n", b"\r\n", b"}{", b"\xe2\x80\xa8", b"true", b"1e-400", b"[]",
    b"{}",
]  # fmt: skip


def mutated(dice: random.Random) -> tuple[bytes, dict[str, str]]:
    """A good body with some bytes changed, cut, doubled or replaced by what hurts readers; and its headers."""
    events = [{**GOOD, "value": dice.random() * 100, "source": dice.choice(["a", "ü", "\U0001f600"])} for _ in range(3)]
    if dice.random() < 0.5:
        body, kind = orjson.dumps(events), "application/json"
    else:
        body, kind = b"\n".join(map(orjson.dumps, events)), "application/x-ndjson"
    data = bytearray(body)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(5):
            case 0:
                data[at:at] = dice.choice(NASTY)
            case 1:
                del data[at : at + dice.randint(1, 20)]
            case 2:
                data[at : at + 1] = dice.randbytes(1)
            case 3:
                data[at:at] = data[max(0, at - dice.randint(1, 60)) : at]
            case _:
                data[at : at + dice.randint(1, 10)] = dice.choice(NASTY)
    headers = {"Content-Type": kind}
    body = bytes(data)
    if dice.random() < 0.2:
        packed = bytearray(gzip.compress(body, 1))
        if dice.random() < 0.5:
            packed[dice.randrange(len(packed))] ^= 1 << dice.randrange(8)
        headers["Content-Encoding"], body = "gzip", bytes(packed)
    return body, headers


def test_mutated_bodies_never_give_a_5xx(client: Client, pipeline: Pipeline) -> None:
    print(f"PIPELINE_FUZZ_SEED={SEED}")
    dice = random.Random(SEED)
    statuses: Counter[int] = Counter()
    accepted = 0
    for number in range(BODIES):
        body, headers = mutated(dice)
        strict = "?strict=true" if number % 10 == 0 else ""
        answer = client.post(body, headers=headers, query=strict)
        statuses[answer.status_code] += 1
        assert answer.status_code in (202, 400, 413, 422), (answer.status_code, answer.text, body)
        accepted += answer.json()["accepted"] if answer.status_code == 202 else 0
    assert statuses[202]
    assert statuses[400]
    # What was accepted settles to the last event: nothing that got in can hurt the run.
    pipeline.run()
    totals = pipeline.ledger.totals("telemetry")
    assert accepted == totals.events_read == totals.events_loaded + totals.events_negative + totals.events_rejected


def test_requests_from_our_openapi_never_give_a_5xx(base: str, client: Client) -> None:
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json")
    statuses: Counter[int] = Counter()
    session: Any = requests.Session()
    session.headers["X-API-Key"] = client.token

    for result in schema.get_all_operations():
        operation = result.ok()
        strategy = operation.as_strategy()

        @limits(
            max_examples=max(10, BODIES // 50),
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def call(case: Any) -> None:
            if isinstance(case.query, dict):
                case.query.pop("wait", None)
            answer = case.call(session=session)
            statuses[answer.status_code] += 1
            assert answer.status_code < 500, (case.method, case.path, answer.status_code, answer.text)

        call()
    session.close()
    assert statuses
