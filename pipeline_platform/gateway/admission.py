"""Who may go on: the limit of the client's address, the API key, its scope, the limit of the key."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline_platform.gateway.credentials import presented_token, require_scope
from pipeline_platform.gateway.edge import Edge
from pipeline_platform.gateway.problems import ProblemError, seconds
from pipeline_platform.gateway.rates import Allowance
from pipeline_platform.queue.keys import Key

ALLOWANCE = "pipeline.allowance"  # in a request's scope: what the key may still ask
RawHeaders = Iterable[tuple[bytes, bytes]]


async def admit(edge: Edge, peer: str, headers: dict[bytes, bytes], scopes: tuple[str, ...]) -> tuple[Key, Allowance]:
    """The key behind a request and what it may still send; a 401, 403, 429 or 503 problem otherwise.

    The address comes first, so that guessing keys is limited too.
    """
    address = edge.addresses.of(peer, headers.get(b"x-forwarded-for", b""))
    allowance = edge.limit_ip.take_now(address) or await edge.limit_ip.take(address)
    if not allowance.allowed:
        raise too_many("client address", allowance)
    token = presented_token(headers.get(b"authorization", b""), headers.get(b"x-api-key", b""))
    key = require_scope(edge.keys.known(token) or await edge.keys.find(token), scopes)
    allowance = edge.limit_key.take_now(key.id) or await edge.limit_key.take(key.id)
    if not allowance.allowed:
        raise too_many("API key", allowance)
    return key, allowance


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


def too_many(whose: str, allowance: Allowance) -> ProblemError:
    """The 429 problem."""
    return ProblemError(
        "rate-limited",
        f"The limit of this {whose} is reached; wait for the seconds in Retry-After.",
        headers={**rate_headers(allowance), "Retry-After": seconds(allowance.reset)},
    )
