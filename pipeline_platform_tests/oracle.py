"""The oracle: what a client was told, against what the warehouse holds.

Every event has a number of its own, which it carries as its value: a positive one that is to be loaded, a negative one
that is to be dropped, and an invalid one (an unknown field) whose payload must be in dead_letters. Then
acknowledged = facts + negatives + dead letters, as sets, disjoint; a refused event is nowhere; an unknown one is there
once or not at all.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg
import requests

Kind = Literal["good", "negative", "invalid"]
_numbers = itertools.count(1)


@dataclass
class Sent:
    """One request: its events' numbers by kind, and what the client was told."""

    good: list[int] = field(default_factory=list)
    negative: list[int] = field(default_factory=list)
    invalid: list[int] = field(default_factory=list)
    outcome: Literal["acknowledged", "refused", "unknown"] = "unknown"
    receipt: str = ""

    @property
    def events(self) -> int:
        """How many events the request has."""
        return len(self.good) + len(self.negative) + len(self.invalid)


class Producer:
    """A client that repeats a request with the same Idempotency-Key until it knows."""

    def __init__(self, gateway_url: str, api_key: str, rng: random.Random, stream: str = "telemetry") -> None:
        self._url = f"{gateway_url}/v1/streams/{stream}/events"
        self._key, self._rng = api_key, rng
        self.requests: list[Sent] = []

    def make(self, events: int) -> tuple[Sent, bytes]:
        """A request of `events` events: about 4 % negative and 2 % invalid."""
        sent, lines = Sent(), []
        for _ in range(events):
            number, dice = next(_numbers), self._rng.random()
            event: dict[str, Any] = {"source": f"s{number % 7}", "metric": "m", "value": number}
            if dice < 0.04:
                sent.negative.append(number)
                event["value"] = -number
            elif dice < 0.06:
                sent.invalid.append(number)
                event["colour"] = "red"
            else:
                sent.good.append(number)
            lines.append(json.dumps(event))
        return sent, "\n".join(lines).encode()

    def send(self, events: int, *, patience: float = 90.0) -> Sent:
        """Sends one request; gives up, with the outcome unknown, when nobody answers for `patience` seconds."""
        sent, body = self.make(events)
        self.requests.append(sent)
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/x-ndjson",
            "Idempotency-Key": f"test-{self._rng.getrandbits(64):x}",
        }
        until = time.monotonic() + patience
        while time.monotonic() < until:
            try:
                answer = requests.post(self._url, data=body, headers=headers, timeout=10)
            except requests.RequestException:
                time.sleep(0.2)
                continue
            if answer.status_code in (200, 202):
                sent.outcome, sent.receipt = "acknowledged", answer.json()["receipt"]
                return sent
            if answer.status_code not in (429, 503):
                sent.outcome = "refused"
                return sent
            time.sleep(0.2)
        return sent


class Load:
    """A producer in a thread, a request every `pause` seconds until it is stopped."""

    def __init__(self, producer: Producer, *, events: int = 50, pause: float = 0.05) -> None:
        self.producer = producer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(events, pause))

    def _run(self, events: int, pause: float) -> None:
        while not self._stop.wait(pause):
            self.producer.send(events)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def wait_for(what: str, true: Callable[[], bool], seconds: float) -> float:
    """Waits until it is true; returns how long it took."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        if true():
            return time.monotonic() - began
        time.sleep(0.25)
    raise AssertionError(f"not within {seconds} s: {what}")


def settled(warehouse_url: str, events: int, stream: str = "telemetry") -> bool:
    """Whether the ledger has settled that many events or more and nothing is under way."""
    try:
        with psycopg.connect(warehouse_url, connect_timeout=3) as connection:
            row = connection.execute(
                "select coalesce(sum(events_read), 0), count(*) filter (where state in ('planned', 'failed')) "
                "from assets where stream = %s",
                [stream],
            ).fetchone()
    except psycopg.Error:
        return False
    return row is not None and row[0] >= events and row[1] == 0


def differences(warehouse_url: str, requests_sent: Iterable[Sent], stream: str = "telemetry") -> list[str]:
    """Where the warehouse and what the clients were told do not agree; empty when every event is where it belongs."""
    sent = list(requests_sent)
    with psycopg.connect(warehouse_url) as connection:
        facts = Counter(int(row[0]) for row in connection.execute(f"select value from {stream}_events"))
        dead = Counter(
            int(json.loads(row[0])["value"])
            for row in connection.execute("select payload from dead_letters where stream = %s", [stream])
        )
        ledger = connection.execute(
            "select sum(events_read), sum(events_loaded), sum(events_negative), sum(events_rejected) "
            "from assets where stream = %s and state = 'loaded'",
            [stream],
        ).fetchone()
        minutes = connection.execute(f"select coalesce(sum(events), 0) from {stream}_minutes").fetchone()
    assert ledger is not None
    assert minutes is not None
    read, loaded, negative, rejected = (int(value or 0) for value in ledger)
    sure = [request for request in sent if request.outcome == "acknowledged"]
    maybe = [request for request in sent if request.outcome == "unknown"]
    good, bad = _numbers_of(sure, "good"), _numbers_of(sure, "invalid")
    found = []
    if lost := good - set(facts):
        found.append(f"{len(lost)} acknowledged events are not in the facts, such as {min(lost)}")
    if lost := bad - set(dead):
        found.append(f"{len(lost)} acknowledged invalid events are not in dead_letters, such as {min(lost)}")
    if extra := set(facts) - good - _numbers_of(maybe, "good"):
        found.append(f"{len(extra)} facts were never acknowledged, such as {min(extra)}")
    if extra := set(dead) - bad - _numbers_of(maybe, "invalid"):
        found.append(f"{len(extra)} dead letters were never acknowledged, such as {min(extra)}")
    for name, counter in (("facts", facts), ("dead letters", dead)):
        if doubled := [number for number, times in counter.items() if times > 1]:
            found.append(f"{len(doubled)} {name} are there more than once, such as {doubled[0]}")
    surely_negative = len(_numbers_of(sure, "negative"))
    if not surely_negative <= negative <= surely_negative + len(_numbers_of(maybe, "negative")):
        found.append(f"{negative} negatives were counted, {surely_negative} were acknowledged")
    if loaded != sum(facts.values()) or rejected != sum(dead.values()) or read != loaded + negative + rejected:
        found.append(
            f"the ledger says {read} = {loaded} + {negative} + {rejected}; "
            f"there are {sum(facts.values())} facts and {sum(dead.values())} dead letters"
        )
    if minutes[0] != sum(facts.values()):
        found.append(f"the minutes hold {minutes[0]} events, the facts {sum(facts.values())}")
    return found


def _numbers_of(requests_sent: Iterable[Sent], kind: Kind) -> set[int]:
    return {number for request in requests_sent for number in getattr(request, kind)}
