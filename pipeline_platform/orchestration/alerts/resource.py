"""Where alerts go, read anew whenever the file has changed: a mistake in it stops alerts, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dagster._core.definitions.resource_annotation import TreatAsResourceParam

from pipeline_platform.alerts.routes import Route, load_routes
from pipeline_platform.alerts.webhook import Webhook
from pipeline_platform.errors import SettingError


@dataclass(frozen=True)
class AlertRoutes(TreatAsResourceParam):
    """The file of routes, the declared streams that it may name, and whether private addresses are meant."""

    path: str = ""
    streams: tuple[str, ...] = ()
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
        return _load(self.path, self.streams, (found.st_mtime_ns, found.st_size, found.st_ino))


@lru_cache(maxsize=4)
def _load(path: str, streams: tuple[str, ...], _version: tuple[int, int, int]) -> tuple[Route, ...]:
    return load_routes(Path(path), streams)
