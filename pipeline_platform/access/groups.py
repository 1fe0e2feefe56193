"""Groups of an identity provider, and the roles that the settings give them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline_platform.access.roles import Role, mightiest

_MAX_NAME = 128


def role_in(groups: Iterable[str], roles: Mapping[str, Role]) -> Role | None:
    """The mightiest role of these groups; None when none of them has one."""
    return mightiest([roles[group] for group in groups if group in roles])


def person(name: object) -> str | None:
    """A name from outside as it may be kept with what somebody did; None when it cannot be."""
    if not isinstance(name, str) or not name.strip() or len(name) > _MAX_NAME or not name.isprintable():
        return None
    return name.strip()
