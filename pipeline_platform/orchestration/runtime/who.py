"""Who launches a run, for the one process that knows: the web server sets it for the time of a request."""

from __future__ import annotations

from contextvars import ContextVar

USER_TAG = "pipeline/user"
LAUNCHED_BY: ContextVar[str | None] = ContextVar("launched_by", default=None)
