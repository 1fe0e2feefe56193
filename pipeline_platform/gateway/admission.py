"""Who may go on: the limit of the client's address, the API key, its scope and streams, the limit of the key."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import HTTPConnection

from pipeline_platform.access.refusals import Refusal
from pipeline_platform.gateway.credentials import (
    AccessProblemError,
    presented_token,
    require_scope,
    require_stream,
    unknown_key,
)
from pipeline_platform.gateway.edge import Edge
from pipeline_platform.gateway.logins import by_session, session_caller
from pipeline_platform.gateway.problems import ProblemError, seconds, shown
from pipeline_platform.gateway.rates import Allowance
from pipeline_platform.queue.keys import Key

ALLOWANCE = "pipeline.allowance"  # in a request's scope: what the key may still ask
RawHeaders = Iterable[tuple[bytes, bytes]]


async def admit(
    edge: Edge,
    peer: str,
    headers: dict[bytes, bytes],
    scopes: tuple[str, ...],
    *,
    stream: str | None = None,
    anyhow: bool = False,
    path: str = "",
    session: HTTPConnection | None = None,
) -> tuple[Key, Allowance]:
    """The key behind a request and what it may still send; a 401, 403, 429 or 503 problem otherwise.

    `session` is the request where it may come with a login instead of a key.

    The address comes first, so that guessing keys is limited too. A key for named streams has to be good for
    `stream`; None is what tells of all streams, which such a key may not, unless the caller sees to that (`anyhow`).
    """
    address = edge.addresses.of(peer, headers.get(b"x-forwarded-for", b""))
    allowance = edge.limit_ip.take_now(address) or await edge.limit_ip.take(address)
    if not allowance.allowed:
        raise too_many("client address", allowance)
    try:
        if session is not None and by_session(headers):
            key: Key | None = await session_caller(edge.door, session)
        else:
            token = presented_token(headers.get(b"authorization", b""), headers.get(b"x-api-key", b""))
            key = edge.keys.known(token) or await edge.keys.find(token)
            if key is None:
                raise unknown_key(edge.keys.former(token))
        assert key is not None
        require_scope(key, scopes)
        if not anyhow:
            require_stream(key, stream)
    except AccessProblemError as problem:
        tell_refusal(edge, problem, address, path)
        raise
    if key.sha256:  # a session is no use of a key
        edge.key_uses.note(key.id)
    allowance = edge.limit_key.take_now(key.id) or await edge.limit_key.take(key.id)
    if not allowance.allowed:
        raise too_many("API key", allowance)
    return key, allowance


def actor_of(key: Key) -> str:
    """Who it was, for the audit and for what is kept with a change: `key 1a2b3c4d`, `user otto`."""
    return key.id if " " in key.id else f"key {key.id}"


def role_of(key: Key) -> str:
    """What the actor might do, for the audit."""
    return " ".join(sorted(key.scopes))


def headers_by_name(raw: RawHeaders) -> dict[bytes, bytes]:
    """ASGI headers by lower-case name. Repeated X-Forwarded-For lines are one list; of others the last counts."""
    headers: dict[bytes, bytes] = {}
    for name, value in raw:
        if name == b"x-forwarded-for" and name in headers:
            value = headers[name] + b"," + value
        headers[name] = value
    return headers


def rate_headers(allowance: Allowance) -> dict[str, str]:
    """RateLimit-* as of draft-ietf-httpapi-ratelimit-headers-06: requests, requests left, seconds."""
    return {
        "RateLimit-Limit": str(allowance.limit),
        "RateLimit-Remaining": str(allowance.remaining),
        "RateLimit-Reset": str(int(allowance.reset) + (0 if allowance.allowed else 1)),
    }


def tell_refusal(edge: Edge, problem: AccessProblemError, address: str, path: str) -> None:
    """The 401 or 403 for the audit, once."""
    if problem.told:
        return
    problem.told = True
    who = (actor_of(problem.key), role_of(problem.key)) if problem.key is not None else ("", "")
    edge.audit.refused(Refusal(problem.kind, address, problem.reason, *who, path=shown(path)))


def too_many(whose: str, allowance: Allowance) -> ProblemError:
    """The 429 problem."""
    return ProblemError(
        "rate-limited",
        f"The limit of this {whose} is reached; wait for the seconds in Retry-After.",
        headers={**rate_headers(allowance), "Retry-After": seconds(allowance.reset)},
    )
