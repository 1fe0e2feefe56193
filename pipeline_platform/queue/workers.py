"""Which workers live, and how busy they are: each says so every few seconds, and who is silent is forgotten.

Said to the queue's server, which every worker talks to anyway, rather than asked of the workers: whoever wants to know
needs no Celery and waits for nobody, and a worker that is killed, hangs or is cut off says nothing by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from pipeline_platform.queue.connection import queue_errors

SILENCE_SECONDS = 8  # four beats of the worker's
WORKERS_KEY = "pp:workers"

# KEYS: workers   ARGV: name, slots, busy slots, seconds of silence
# The server's clock counts. Every beat forgets the silent; when all are silent, the key's expiry does.
BEAT = """
local now = tonumber(redis.call('TIME')[1])
redis.call('HSET', KEYS[1], ARGV[1], now .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
    if now - tonumber(string.match(all[i + 1], '^%d+')) > tonumber(ARGV[4]) then redis.call('HDEL', KEYS[1], all[i]) end
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
"""


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers that live, those that execute a run, and the same of their slots: processes for one run each."""

    alive: int
    busy: int
    slots: int
    slots_busy: int


class WorkerBoard:
    """Where workers sign in. Who has been silent for `silence` seconds is forgotten."""

    def __init__(self, client: redis.Redis, silence: int = SILENCE_SECONDS) -> None:
        self._client, self._silence = client, silence
        self._beat = client.register_script(BEAT)

    def beat(self, name: str, slots: int, busy: int) -> None:
        """Says that the worker lives, has `slots` processes, and that `busy` of them execute a run."""
        with queue_errors():
            self._beat(keys=[WORKERS_KEY], args=[name, slots, busy, self._silence])

    def read(self) -> Workers:
        """The workers that beat lately. Raises QueueUnavailableError."""
        with queue_errors():
            beats: Any = self._client.hvals(WORKERS_KEY)
        counts = [[int(number) for number in beat.split()[1:]] for beat in beats]
        return Workers(
            alive=len(counts),
            busy=sum(busy > 0 for _, busy in counts),
            slots=sum(slots for slots, _ in counts),
            slots_busy=sum(busy for _, busy in counts),
        )
