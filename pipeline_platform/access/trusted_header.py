"""Identities that oauth2-proxy, or another proxy in front of us, vouches for by headers."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from starlette.requests import HTTPConnection

from pipeline_platform.access.addresses import ClientAddresses
from pipeline_platform.access.groups import person, role_in
from pipeline_platform.access.identity import Identity
from pipeline_platform.access.roles import Role

USER, GROUPS, SECRET = "x-forwarded-user", "x-forwarded-groups", "x-proxy-secret"


class TrustedHeader:
    """Believes X-Forwarded-User and -Groups of a trusted peer that knows the secret.

    The peer's address alone is not enough: on loopback every user of the machine has it.
    """

    def __init__(self, peers: ClientAddresses, secret: str, roles: Mapping[str, Role]) -> None:
        self._peers = peers
        self._secret = secret.encode()
        self._roles = dict(roles)

    def identify(self, conn: HTTPConnection) -> Identity | None:
        """Whom the proxy names; None when it is not the proxy, or names nobody whose groups have a role."""
        users, groups, secrets = (conn.headers.getlist(name) for name in (USER, GROUPS, SECRET))
        if not self._secret or len(users) != 1 or len(groups) > 1 or len(secrets) != 1 or conn.client is None:
            return None
        right = hmac.compare_digest(secrets[0].encode("latin-1"), self._secret)
        if not (self._peers.trusts(conn.client.host) and right):
            return None
        name = person(users[0])
        role = role_in([group.strip() for group in "".join(groups).split(",")], self._roles)
        return Identity(name, role, "header") if name and role else None
