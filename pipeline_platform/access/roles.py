"""The three roles, and the scopes of API keys that they correspond to."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum


class Role(StrEnum):
    """What somebody may do; each role may all that the ones before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """0 for the least mighty."""
        return _ORDER.index(self)

    def may(self, needed: Role) -> bool:
        """Whether this role is enough where `needed` is asked for."""
        return self.rank >= needed.rank


_ORDER = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)
_SCOPES = {
    Role.VIEWER: frozenset({"read"}),
    Role.OPERATOR: frozenset({"read", "operate"}),
    Role.ADMIN: frozenset({"ingest", "read", "operate", "admin"}),
}
_NEEDED = {"read": Role.VIEWER, "operate": Role.OPERATOR, "admin": Role.ADMIN}  # `ingest` alone is no role


def role_of(scopes: Collection[str]) -> Role | None:
    """The mightiest role that an API key with these scopes has; None when it may not look at anything."""
    return mightiest([_NEEDED[scope] for scope in scopes if scope in _NEEDED])


def mightiest(roles: Collection[Role]) -> Role | None:
    """The mightiest of these roles; None of none."""
    return max(roles, key=lambda role: role.rank, default=None)


def scopes_of(role: Role) -> frozenset[str]:
    """The scopes that a session of this role has at the gateway."""
    return _SCOPES[role]
