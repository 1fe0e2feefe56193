"""Why a login is not looked at."""

from __future__ import annotations

from pipeline_platform.errors import TransientError


class BusyError(TransientError):
    """So many logins at once that no more are taken; the next may be tried in a few seconds."""


class TooManyTriesError(TransientError):
    """More tries than an address or a name has; even the right password is refused for `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__("Too many tries; wait a minute, then try again.")
        self.seconds = seconds
