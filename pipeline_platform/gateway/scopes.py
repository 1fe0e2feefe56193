"""Which route takes which keys. Tests hold every route, and docs/api.md, to this table.

A route takes a key with any of its scopes (`operate` implies `read`, `admin` implies all). No scopes: it is open.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Narrow = Literal["stream", "own", "refused", ""]


class Access(NamedTuple):
    """Who may use a route.

    `narrow` says what becomes of a key for named streams: the path's stream has to be one of them (`stream`), it finds
    what is theirs only (`own`), or it is refused since the answer tells of all streams (`refused`).
    """

    scopes: tuple[str, ...]
    narrow: Narrow = ""


OPEN = Access(())
ADMIN = Access(("admin",))  # never for named streams
LOGIN = {("GET", "/login"), ("POST", "/login"), ("POST", "/login/code"), ("POST", "/logout"), ("GET", "/whoami")}
LOGIN |= {("GET", "/login/oidc"), ("GET", "/login/oidc/callback")}
ROUTES: dict[tuple[str, str], Access] = {
    ("POST", "/v1/streams/{stream}/events"): Access(("ingest",), "stream"),
    ("GET", "/v1/receipts/{receipt}"): Access(("ingest", "read"), "own"),
    ("GET", "/v1/streams"): Access(("ingest", "read"), "own"),
    ("GET", "/v1/streams/{stream}"): Access(("read",), "stream"),
    ("POST", "/v1/streams/{stream}/resume"): Access(("operate",), "stream"),
    ("GET", "/v1/streams/{stream}/aggregates"): Access(("read",), "stream"),
    ("GET", "/v1/assets"): Access(("read",), "own"),
    ("GET", "/v1/assets/{id}"): Access(("read",), "own"),
    ("POST", "/v1/assets/{id}/replay"): Access(("operate",), "own"),
    ("GET", "/v1/dead-letters"): ADMIN,
    ("GET", "/v1/dead-letters/{id}"): ADMIN,
    ("GET", "/v1/dead-letters/export"): ADMIN,
    ("POST", "/v1/dead-letters/replay"): Access(("operate",), "own"),
    ("POST", "/v1/dead-letters/discard"): ADMIN,
    ("GET", "/v1/replays"): ADMIN,
    ("GET", "/v1/replays/{id}"): ADMIN,
    ("GET", "/v1/alerts"): Access(("read",), "refused"),
    ("GET", "/v1/audit"): ADMIN,
    ("GET", "/v1/stats"): Access(("read",), "refused"),
    ("GET", "/healthz"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/metrics"): OPEN,
    ("GET", "/docs"): OPEN,
    ("GET", "/openapi.json"): OPEN,
}
