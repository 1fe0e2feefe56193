"""What a request presents: an API key's token, or our cookie. Anything that can be read in two ways is not usable."""

from __future__ import annotations

from starlette.requests import HTTPConnection

UNUSABLE = "-"  # stands for a token that cannot be anybody's
_MAX_TOKEN = 128


def presented_token(conn: HTTPConnection) -> str:
    """The token of `Authorization: Bearer` or `X-API-Key`; empty: none was sent; UNUSABLE: it cannot be anybody's."""
    bearers, plain = conn.headers.getlist("authorization"), conn.headers.getlist("x-api-key")
    if not bearers and not plain:
        return ""
    if len(bearers) + len(plain) > 1:
        return UNUSABLE
    if bearers:
        scheme, _, rest = bearers[0].partition(" ")
        token = rest.strip() if scheme.lower() == "bearer" else ""
    else:
        token = plain[0].strip()
    return token if token and len(token) <= _MAX_TOKEN and token.isascii() else UNUSABLE


def one_cookie(conn: HTTPConnection, name: str) -> str:
    """The value of the cookie `name`; empty: there is none, or there are two that differ, and one was planted."""
    found = set()
    for line in conn.headers.getlist("cookie"):
        for part in line.split(";"):
            key, _, value = part.partition("=")
            if key.strip() == name:
                found.add(value.strip())
    return found.pop() if len(found) == 1 else ""
