"""Who is asking: what the gate puts into `scope["identity"]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline_platform.access.roles import Role

Via = Literal["key", "user", "oidc", "header", "link"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody whom we know: by an API key, as a user, from an identity provider, a proxy, or a one-time link.

    `key_id` is the API key's where one is behind it (`key` and `link`).
    """

    name: str
    role: Role
    via: Via
    key_id: str = ""

    @property
    def actor(self) -> str:
        """Who it was, for the audit and for what is kept with a change: `user otto`, `key 1a2b3c4d`."""
        return f"key {self.key_id}" if self.key_id else f"{self.via} {self.name}"
