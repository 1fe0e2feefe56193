"""Producers in threads, with a mixture of events in which about one in a hundred is bad in each of many ways."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from pipeline_platform.local.connections import Connections
from pipeline_platform_tests.oracle import NUMBERS, Producer, Sent

SPOILED = ("{no json", '{"source":"s","metric":"m","value":NaN}', '{"source":"s","metric":"m","value":1e400}')


class MixedProducer(Producer):
    """4 % negatives, 2 % late, 1 % each of unknown field, wrong type and time out of range.

    Of the requests 1 % each (5 % where there is poison) have a line that is no JSON, NaN or beyond a float. `poison`:
    the share of lines that crash, and of those that kill, the process that decodes them (`PYTHONPLANTED=decode`).
    """

    poison: float = 0.0

    def make(self, events: int) -> tuple[Sent, bytes]:
        """See Producer.make."""
        good: list[int] = []
        negative: list[int] = []
        invalid: list[int] = []
        lines = []
        now = datetime.now(UTC)
        late = f',"ts":"{(now - timedelta(hours=2)).isoformat()}"'
        old = ',"ts":"1999-12-31T23:59:59Z"'
        for dice in [self.rng.random() for _ in range(events)]:
            number = next(NUMBERS)
            head = f'{{"source":"s{number % 20}","metric":"m",'
            if dice < 0.04:
                negative.append(number)
                lines.append(f'{head}"value":-{number}}}')
            elif dice < 0.06:
                good.append(number)
                lines.append(f'{head}"value":{number}{late}}}')
            elif dice < 0.09:
                invalid.append(number)
                value = f'"{number}"' if dice < 0.07 else f"{number}{old if dice < 0.08 else ''}"
                more = ',"colour":"red"' if dice >= 0.08 else ""
                lines.append(f'{head}"value":{value}{more}}}')
            elif dice > 1 - 2 * self.poison:
                invalid.append(number)
                what = "kill" if dice > 1 - self.poison else "raise"
                lines.append(f'{{"source":"s","metric":"poison: {what}","value":{number}}}')
            else:
                good.append(number)
                lines.append(f'{head}"value":{number}}}')
        sent = Sent(good, negative, invalid)
        if self.rng.random() < (0.15 if self.poison else 0.03):
            sent.spoiled = True
            lines[self.rng.randrange(len(lines))] = self.rng.choice(SPOILED)
        return sent, "\n".join(lines).encode()


class Crowd:
    """Producers that together send about `rate` events a second, `size` a request, until they are stopped."""

    def __init__(
        self,
        where: Connections,
        seed: str,
        *,
        stream: str = "telemetry",
        producers: int = 4,
        size: int = 250,
        rate: float = 1500.0,
        poison: float = 0.0,
    ) -> None:
        self._pause, self._size = producers * size / rate, size
        self._producers = []
        for number in range(producers):
            producer = MixedProducer(where.gateway_url, where.api_key, random.Random(f"{seed}/{number}"), stream)
            producer.poison = poison
            self._producers.append(producer)
        self._stop = threading.Event()

    @property
    def requests(self) -> list[Sent]:
        """Everything sent so far."""
        return [request for producer in self._producers for request in producer.requests]

    @property
    def answers(self) -> Counter[int]:
        """How often each status was answered."""
        return sum((producer.answers for producer in self._producers), Counter())

    @property
    def acknowledged(self) -> int:
        """The events that were acknowledged so far."""
        return sum(request.events for request in self.requests if request.outcome == "acknowledged")

    @contextmanager
    def sending(self) -> Iterator[None]:
        """They send while the block runs; a request that is under way is seen to its end."""
        threads = [threading.Thread(target=self._run, args=(producer,)) for producer in self._producers]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _run(self, producer: MixedProducer) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            producer.send(self._size, patience=60.0)
            due += self._pause  # after an outage they catch up
