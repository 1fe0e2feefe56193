"""The oracle: what a client was told, against what the warehouse holds.

Every event has a number of its own, which it carries as its value: a positive one that is to be loaded, a negative one
that is to be dropped, and an invalid one whose payload must be in dead_letters. Then acknowledged = facts + negatives +
dead letters, as sets, disjoint; a refused event is nowhere; an unknown request is there once, as a whole, or not at
all; the aggregates equal a recomputation; the ledger's sums equal both. Sets are arrays, so a million events take a
second or two.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import psycopg
import requests

from pipeline_platform.core.streams import StreamSpec, load_specs
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.reconcile import minutes_equal_facts

Kind = Literal["good", "negative", "invalid"]
Numbers = npt.NDArray[np.int64]
NUMBERS = itertools.count(1)  # of every event that this process sends
_ALL_TIMES = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))


@dataclass
class Sent:
    """One request: its events' numbers by kind, and what the client was told. A `spoiled` one is to be refused."""

    good: Sequence[int] | Numbers = field(default_factory=list)
    negative: Sequence[int] | Numbers = field(default_factory=list)
    invalid: Sequence[int] | Numbers = field(default_factory=list)
    outcome: Literal["acknowledged", "refused", "unknown"] = "unknown"
    receipt: str = ""
    spoiled: bool = False

    @property
    def events(self) -> int:
        """How many events the request has."""
        return len(self.good) + len(self.negative) + len(self.invalid)


class Producer:
    """A client that repeats a request with the same Idempotency-Key until it knows. `answers` counts statuses."""

    def __init__(self, gateway_url: str, api_key: str, rng: random.Random, stream: str = "telemetry") -> None:
        self._url = f"{gateway_url}/v1/streams/{stream}/events"
        self._key, self.rng = api_key, rng
        self._run = f"{random.SystemRandom().getrandbits(32):x}"  # another run with the same seed is another client
        self.requests: list[Sent] = []
        self.answers: Counter[int] = Counter()

    def make(self, events: int) -> tuple[Sent, bytes]:
        """A request of `events` events: about 4 % negative and 2 % invalid."""
        good: list[int] = []
        negative: list[int] = []
        invalid: list[int] = []
        lines = []
        for _ in range(events):
            number, dice = next(NUMBERS), self.rng.random()
            event: dict[str, Any] = {"source": f"s{number % 7}", "metric": "m", "value": number}
            if dice < 0.04:
                negative.append(number)
                event["value"] = -number
            elif dice < 0.06:
                invalid.append(number)
                event["colour"] = "red"
            else:
                good.append(number)
            lines.append(json.dumps(event))
        return Sent(good, negative, invalid), "\n".join(lines).encode()

    def send(self, events: int, *, patience: float = 90.0) -> Sent:
        """Sends one request; gives up, with the outcome unknown, when nobody answers for `patience` seconds."""
        sent, body = self.make(events)
        self.requests.append(sent)
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/x-ndjson",
            "Idempotency-Key": f"test-{self._run}-{self.rng.getrandbits(64):x}",
        }
        until = time.monotonic() + patience
        while time.monotonic() < until:
            try:
                answer = requests.post(self._url, data=body, headers=headers, timeout=10)
            except requests.RequestException:
                time.sleep(0.2)
                continue
            self.answers[answer.status_code] += 1
            if answer.status_code in (200, 202):
                sent.outcome, sent.receipt = "acknowledged", answer.json()["receipt"]
                return sent
            if answer.status_code != 429 and answer.status_code < 500:
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


@dataclass(frozen=True)
class Verdict:
    """How many events are lost and how many are there twice, and every difference as a sentence."""

    lost: int
    doubled: int
    differences: tuple[str, ...]


def differences(
    warehouse_url: str, requests_sent: Iterable[Sent], stream: str = "telemetry", spec: StreamSpec | None = None
) -> list[str]:
    """Where the warehouse and what the clients were told do not agree; empty when every event is where it belongs."""
    return list(judge(warehouse_url, requests_sent, stream, spec).differences)


def judge(
    warehouse_url: str, requests_sent: Iterable[Sent], stream: str = "telemetry", spec: StreamSpec | None = None
) -> Verdict:
    """Compares everything that was ever sent to the stream with everything that the warehouse holds of it."""
    sent = list(requests_sent)
    sure = [request for request in sent if request.outcome == "acknowledged"]
    maybe = [request for request in sent if request.outcome == "unknown"]
    with psycopg.connect(warehouse_url) as connection:
        connection.execute("set transaction isolation level repeatable read, read only")
        facts = _fetched(connection, f"select value::bigint from {stream}_events")
        # The number is looked for in the text: a payload need not be JSON, or have a number as its value.
        pattern = '"value": ?"?([0-9]+)'
        dead = _fetched(
            connection,
            f"select coalesce(substring(payload from '{pattern}')::bigint, 0) from dead_letters "
            f"where stream = '{stream}'",
        )
        ledger = connection.execute(
            "select sum(events_read), sum(events_loaded), sum(events_negative), sum(events_rejected) "
            "from assets where stream = %s and state in ('loaded', 'dead')",
            [stream],
        ).fetchone()
    assert ledger is not None
    read, loaded, negative, rejected = (int(value or 0) for value in ledger)
    found: list[str] = []
    lost = doubled = 0
    places: list[tuple[str, Numbers, Kind]] = [("facts", facts, "good"), ("dead letters", dead, "invalid")]
    for name, there, kind in places:
        once, times = np.unique(there, return_counts=True)
        wanted = numbers_of(sure, kind)
        if len(missing := np.setdiff1d(wanted, once)):
            lost += len(missing)
            found.append(f"{len(missing)} acknowledged {kind} events are not in the {name}, such as {missing[0]}")
        if len(extra := np.setdiff1d(np.setdiff1d(once, wanted), numbers_of(maybe, kind))):
            found.append(f"{len(extra)} {name} were never acknowledged, such as {extra[0]}")
        if len(twice := once[times > 1]):
            doubled += int((times - 1).sum())
            found.append(f"{len(twice)} {name} are there more than once, such as {twice[0]}")
    surely_negative = len(numbers_of(sure, "negative"))
    lost += max(0, surely_negative - negative)
    if not surely_negative <= negative <= surely_negative + len(numbers_of(maybe, "negative")):
        found.append(f"{negative} negatives were counted, {surely_negative} were acknowledged")
    if loaded != len(facts) or rejected != len(dead) or read != loaded + negative + rejected:
        found.append(
            f"the ledger says {read} = {loaded} + {negative} + {rejected}; "
            f"there are {len(facts)} facts and {len(dead)} dead letters"
        )
    facts, dead = np.sort(facts), np.sort(dead)
    for request in maybe:
        parts = np.concatenate([_among(request.good, facts), _among(request.invalid, dead)])
        if parts.any() and not parts.all():
            found.append(f"{int(parts.sum())} of {len(parts)} events of a request without an answer are there")
    found += _wrong_answers(sent)
    found += _wrong_minutes(warehouse_url, spec or load_specs()[stream])
    return Verdict(lost, doubled, tuple(found))


def numbers_of(requests_sent: Iterable[Sent], kind: Kind) -> Numbers:
    """The numbers of all events of that kind."""
    parts = [np.asarray(getattr(request, kind), np.int64) for request in requests_sent]
    return np.concatenate([np.empty(0, np.int64), *parts])


def _among(numbers: Sequence[int] | Numbers, ordered: Numbers) -> npt.NDArray[np.bool_]:
    """Which of the numbers are in an ordered array; thousands of requests look into one of millions."""
    wanted = np.asarray(numbers, np.int64)
    if not len(ordered):
        return np.zeros(len(wanted), np.bool_)
    places = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.asarray(ordered[places] == wanted, np.bool_)


def _fetched(connection: psycopg.Connection[Any], query: str) -> Numbers:
    with connection.cursor() as cursor, cursor.copy(f"copy ({query}) to stdout".encode()) as copy:
        return np.array(b"".join(bytes(part) for part in copy).split(), dtype=np.int64)


def _wrong_answers(sent: Iterable[Sent]) -> list[str]:
    """Refusals of what is in order, and the reverse."""
    refused = sum(request.outcome == "refused" and not request.spoiled for request in sent)
    taken = sum(request.outcome == "acknowledged" and request.spoiled for request in sent)
    found = [f"{refused} requests were refused that are in order"] if refused else []
    return [*found, f"{taken} requests were accepted that should be refused"] if taken else found


def _wrong_minutes(warehouse_url: str, spec: StreamSpec) -> list[str]:
    """Where the aggregates, over all windows, are not what the facts add up to."""
    engine = connect(warehouse_url)
    try:
        return [f"aggregates: {each}" for each in minutes_equal_facts(engine, spec, *_ALL_TIMES).differences]
    finally:
        engine.dispose()
