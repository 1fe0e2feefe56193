"""Where alerts go, read anew whenever the file has changed: a mistake in it stops alerts, and nothing else."""

# No postponed annotations here: Dagster reads them at run time.

from functools import lru_cache
from pathlib import Path

import dagster as dg

from pipeline_platform.alerts.routes import Route, load_routes
from pipeline_platform.alerts.webhook import Webhook
from pipeline_platform.errors import SettingError


class AlertRoutes(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The file of routes, the declared streams that it may name, and whether private addresses are meant."""

    path: str = ""
    streams: list[str] = []  # noqa: RUF012 - a field of the resource
    allow_private: bool = False

    @property
    def declared(self) -> bool:
        """Whether there is a file at all."""
        return bool(self.path)

    @property
    def webhook(self) -> Webhook:
        """How messages are sent."""
        return Webhook(allow_private=self.allow_private)

    def load(self) -> tuple[Route, ...]:
        """The routes as the file is now. SettingError names the file, the line and the field of a mistake."""
        if not self.declared:
            return ()
        try:
            found = Path(self.path).stat()
        except OSError as error:
            raise SettingError(
                f"{self.path}: cannot be read: {error.strerror}. PIPELINE_ALERTS_FILE names it."
            ) from None
        return _load(self.path, tuple(self.streams), (found.st_mtime_ns, found.st_size, found.st_ino))


@lru_cache(maxsize=4)
def _load(path: str, streams: tuple[str, ...], _version: tuple[int, int, int]) -> tuple[Route, ...]:
    return load_routes(Path(path), streams)
