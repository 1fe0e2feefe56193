"""Failures by kind: what a later attempt may get past, what somebody has to put right, what the data is to blame for.

One table each for PostgreSQL's SQLSTATEs, Redis's error codes and HTTP statuses. What a batch's failures so far mean
for its next attempt is decided here too, as a pure function.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pipeline_platform.errors import TooManyBadLinesError


class FailureKind(StrEnum):
    """The kinds of `assets.error_kind`."""

    TRANSIENT = "transient"  # the same call may succeed later: an outage, a deadlock, a full disk
    PERMANENT = "permanent"  # a setting, a right or a schema is wrong: somebody has to act; the data waits
    POISON = "poison"  # the data itself cannot be processed: only then may an event become a dead letter
    LOST = "lost"  # the run ended without a word: killed, or it could not start
    CANCELED = "canceled"  # somebody ended the run: nothing is wrong


# PostgreSQL, "Appendix A. PostgreSQL Error Codes": the longest prefix decides; what is not listed is permanent.
SQLSTATES = {
    "08": FailureKind.TRANSIENT,  # connection
    "22": FailureKind.POISON,  # data exception
    "23": FailureKind.PERMANENT,  # integrity: the constraints are ours, so events do not break them, a schema might
    "25006": FailureKind.TRANSIENT,  # read only: a failover is under way
    "25P03": FailureKind.TRANSIENT,  # idle in transaction for too long
    "25P04": FailureKind.TRANSIENT,  # in a transaction for too long
    "40": FailureKind.TRANSIENT,  # rolled back: serialization, deadlock
    "53": FailureKind.TRANSIENT,  # resources: disk full, out of memory, too many connections
    "53400": FailureKind.PERMANENT,  # a limit that somebody has set, such as temp_file_limit
    "54": FailureKind.POISON,  # a limit of PostgreSQL: too complex, too large
    "55": FailureKind.TRANSIENT,  # object in use, lock timeout, not in the right state for now
    "57": FailureKind.TRANSIENT,  # operator: shutdown, canceled, cannot connect now
    "58": FailureKind.TRANSIENT,  # the system: I/O error
}
# Redis and Valkey: the first word of an error reply; what is not listed is permanent.
REDIS_ERRORS = frozenset(
    {
        *("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY"),
        *("TRYAGAIN", "UNBLOCKED"),
    }
)
# HTTP: what is not listed is transient from 500 on and permanent below.
HTTP_STATUSES = {
    408: FailureKind.TRANSIENT,  # request timeout
    418: FailureKind.TRANSIENT,  # Binance: banned for a while, after 429 was ignored
    425: FailureKind.TRANSIENT,  # too early
    429: FailureKind.TRANSIENT,  # too many requests
    501: FailureKind.PERMANENT,  # not implemented
    505: FailureKind.PERMANENT,  # HTTP version
}

# What the machine, not the data, is to blame for.
ERRNOS = frozenset(
    {
        *(errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE),
        *(errno.EBUSY, errno.EINTR, errno.ENOBUFS, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH),
    }
)

_SETTING = re.compile(r"\bmax_[a-z_]+")  # in whatever language the server speaks

OP_RETRIES = (2.0, 4.0, 8.0)  # seconds before each further try of an op
KEPT = 20  # failures that a ledger row remembers
RUN_CANCELED = "RunCanceled"  # the error's class of a canceled run
ENDED = (FailureKind.LOST, FailureKind.CANCELED)  # of the run: news only while nothing else is known of the attempt


def of_sqlstate(state: str, hint: str = "") -> FailureKind:
    """The kind of a PostgreSQL error by its five-character SQLSTATE and its hint.

    A resource that a setting is too small for stays scarce until somebody raises it: the hint names the setting.
    """
    if state.startswith("53") and _SETTING.search(hint):
        return FailureKind.PERMANENT
    for length in (5, 2):
        if (kind := SQLSTATES.get(state[:length])) is not None:
            return kind
    return FailureKind.PERMANENT


def of_os_error(error: OSError) -> FailureKind:
    """The kind of an error of the operating system. What is not listed may be the data's doing: it is looked into."""
    if isinstance(error, ConnectionError | TimeoutError) or error.errno in ERRNOS:
        return FailureKind.TRANSIENT
    return FailureKind.POISON


def of_redis_error(message: str) -> FailureKind:
    """The kind of an error reply, such as "LOADING Redis is loading the dataset in memory"."""
    return FailureKind.TRANSIENT if message.split(" ", 1)[0] in REDIS_ERRORS else FailureKind.PERMANENT


def of_http_status(status: int) -> FailureKind:
    """The kind of an HTTP answer that is not a success."""
    if (kind := HTTP_STATUSES.get(status)) is not None:
        return kind
    return FailureKind.TRANSIENT if status >= 500 else FailureKind.PERMANENT


class NextStep(StrEnum):
    """What the next attempt of a batch has to be like. All but SPLIT are modes of a run."""

    PLAIN = "plain"  # as before
    CAREFUL = "careful"  # find the lines that cannot be processed, in a process of their own, and load the rest
    SPLIT = "split"  # halve the batch: each half goes on by itself
    BURY = "bury"  # the batch is one request, and it is to blame: park it


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure on record. `message` never holds a secret; `at` is an ISO time; `retried` is the op's retries before.

    `final` is False for a try of an op after which the op was tried again within the same run.
    """

    kind: FailureKind
    error_class: str
    message: str
    attempt: int = 0
    mode: NextStep = NextStep.PLAIN
    op: str = ""
    run_id: str | None = None
    retried: int = 0
    final: bool = True
    at: str = ""


def next_step(failures: Iterable[Failure], entries: int) -> NextStep:
    """The next step for a batch of `entries` requests after these failures.

    Outages and wrong settings change nothing: data is never given up because of them. Runs that are lost again and
    again make a batch smaller, but nothing is buried on that evidence alone: whatever kills runs may be something else.
    """
    plain_lost = careful_lost = plain_poison = careful_poison = 0
    for failure in failures:
        careful = failure.mode is not NextStep.PLAIN
        if failure.kind is FailureKind.LOST:
            careful_lost += careful
            plain_lost += not careful
        elif failure.kind is FailureKind.POISON:
            careful_poison += 2 if failure.error_class == TooManyBadLinesError.__name__ else careful  # once is enough
            plain_poison += not careful
    if careful_poison >= 2:
        return NextStep.SPLIT if entries > 1 else NextStep.BURY
    if careful_lost >= 3 and entries > 1:
        return NextStep.SPLIT
    return NextStep.CAREFUL if plain_poison or plain_lost >= 2 else NextStep.PLAIN
