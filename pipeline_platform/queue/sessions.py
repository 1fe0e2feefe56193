"""Sessions and one-time login codes in Redis: only hashes, so that whoever reads them cannot log in.

pp:session:<sha256 of the cookie>     the session, as JSON; its time to live is the idle limit
pp:login-code:<sha256 of the code>    the id of the API key that it logs in as; taken once
pp:login-tries:<whose>:<hash>         how many tries this minute
pp:oidc:<sha256 of the state>         a login with an identity provider that is under way; taken once
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import orjson
import redis

from pipeline_platform.queue.connection import queue_errors

CODE_SECONDS = 900
_SESSION, _CODE, _TRIES, _STATE = "pp:session:", "pp:login-code:", "pp:login-tries:", "pp:oidc:"
_MAX_SECRET = 200
# Counts a try under every key and gives the greatest excess over its limit's seconds; atomic, so that tries at the same
# time are all counted and no counter is left without an end.
_COUNT = """
local wait = 0
for i, key in ipairs(KEYS) do
    local tries = redis.call('INCR', key)
    if tries == 1 or redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, ARGV[1]) end
    if tries > tonumber(ARGV[i + 1]) then wait = math.max(wait, redis.call('PTTL', key)) end
end
return wait
"""


@dataclass(frozen=True, slots=True)
class Session:
    """What is kept of a login. `via` says how. A key's or a user's role is read anew each time; `role` is for others.

    `stamp` is what the user's row said of its sessions when this one began: another stamp there ends it.
    """

    via: str
    name: str = ""
    key_id: str = ""
    role: str = ""
    stamp: str = ""


_FIELDS = tuple(field.name for field in fields(Session))


class SessionStore:
    """Begins, reads and ends sessions. Every method raises QueueUnavailableError when Redis is away."""

    def __init__(
        self, client: redis.Redis, *, absolute: float, idle: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis = client
        self._absolute = absolute
        self._idle = idle
        self._clock = clock

    def begin(self, session: Session) -> str:
        """Keeps a new session and gives its cookie, which cannot be had again."""
        cookie = secrets.token_urlsafe(32)
        record = {**asdict(session), "ends": self._clock() + self._absolute}
        lives = int(min(self._absolute, self._idle) * 1000)
        with queue_errors():
            self._redis.set(_SESSION + hash_of(cookie), orjson.dumps(record), px=max(lives, 1))
        return cookie

    def read(self, cookie: str, *, touch: bool = True) -> Session | None:
        """The session of a cookie that is neither over nor idle for too long; `touch` counts as use of it."""
        if not cookie or len(cookie) > _MAX_SECRET:
            return None
        slot = _SESSION + hash_of(cookie)
        with queue_errors():
            both = self._redis.pipeline(transaction=False)
            both.get(slot)
            both.pttl(slot)
            raw, lives = both.execute()
            if raw is None:
                return None
            record: dict[str, Any] = orjson.loads(raw)
            left = record.pop("ends") - self._clock()
            if left <= 0:
                return None
            wanted = int(min(self._idle, left) * 1000)
            if touch and lives < wanted * 0.97:  # not at each request: a write of Redis goes to its log
                self._redis.pexpire(slot, max(wanted, 1))
        return Session(**{name: record[name] for name in _FIELDS if name in record})

    def end(self, cookie: str) -> None:
        """Ends the session of a cookie, everywhere."""
        if cookie and len(cookie) <= _MAX_SECRET:
            with queue_errors():
                self._redis.delete(_SESSION + hash_of(cookie))

    def make_code(self, key_id: str, seconds: int = CODE_SECONDS) -> str:
        """A code that logs in once as the API key `key_id`."""
        code = secrets.token_urlsafe(32)
        with queue_errors():
            self._redis.set(_CODE + hash_of(code), key_id, ex=seconds)
        return code

    def take_code(self, code: str) -> str | None:
        """The id of the code's API key; the code is used up by this. None when there is no such code, or no more."""
        if not code or len(code) > _MAX_SECRET:
            return None
        with queue_errors():
            raw: Any = self._redis.getdel(_CODE + hash_of(code))
        return raw.decode() if raw else None

    def keep_state(self, state: str, kept: bytes, seconds: int) -> None:
        """Keeps what belongs to a state of single sign-on."""
        with queue_errors():
            self._redis.set(_STATE + hash_of(state), kept, ex=seconds)

    def take_state(self, state: str) -> bytes | None:
        """What was kept for the state, which is used up by this; None when there is no such state, or no more."""
        with queue_errors():
            raw: Any = self._redis.getdel(_STATE + hash_of(state))
        found: bytes | None = raw
        return found

    def count_try(self, limits: dict[str, int], seconds: float) -> float:
        """Counts a login for each of these names against its limit; the seconds to wait where one is exceeded, or 0."""
        keys = [_TRIES + whose.partition(":")[0] + ":" + hash_of(whose)[:32] for whose in limits]
        with queue_errors():
            wait: Any = self._redis.eval(_COUNT, len(keys), *keys, int(seconds * 1000), *limits.values())
        return int(wait) / 1000


def hash_of(secret: str) -> str:
    """The SHA-256 of a secret of many random bits, in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()
