"""argon2id, two at a time: each takes 64 MiB and a fifth of a second, which must not be anybody's to spend."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import argon2

from pipeline_platform.access.errors import BusyError

AT_ONCE = 2
WAITING = 8
MAX_LENGTH = 256
_HASHER = argon2.PasswordHasher()  # RFC 9106's second profile
# Of 256 bits that nobody has kept: whoever is not known is compared with it, at the same cost.
NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$cP13vFwIB97JcnZURsTu/A$RgS6gO6sNlDHrZyaDRiw/KEF9MmMakt+BIrWoVT1By0"


class PasswordChecks:
    """Compares passwords with their digests, at most AT_ONCE at a time, with at most WAITING in line."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, "argon2")
        self._under_way = 0

    async def matches(self, digest: str | None, password: str) -> bool:
        """Whether the password is the digest's. Without a digest it is not, after as much work. May raise BusyError."""
        if self._under_way >= AT_ONCE + WAITING:
            raise BusyError("Too many logins at the same time; try again in a few seconds.")
        self._under_way += 1
        try:
            loop = asyncio.get_running_loop()
            same = await loop.run_in_executor(self._threads, _verify, digest or NOBODY, password[:MAX_LENGTH])
        finally:
            self._under_way -= 1
        return same and digest is not None

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def digest_of(password: str) -> str:
    """The argon2id digest of a new password, with its salt."""
    return _HASHER.hash(password)


def _verify(digest: str, password: str) -> bool:
    try:
        return _HASHER.verify(digest, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False
