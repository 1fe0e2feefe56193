"""A source or an instrument that fails does not keep the others of a run from being fetched."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline_platform.errors import (
    PlatformError,
    SettingError,
    SourceRefusedError,
    SourceShapeError,
    SourceUnavailableError,
    interrupt_behind,
)

OF_SOURCES = (SourceUnavailableError, SourceRefusedError, SourceShapeError, SettingError)


class Troubles:
    """What went wrong so far, by what it concerns."""

    def __init__(self) -> None:
        self._known: list[tuple[str, PlatformError]] = []

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Keeps a source's error for the end. Any other, such as one of the warehouse, ends the run at once.

        So does an error that only came of an interrupt.
        """
        before = sys.exception()
        try:
            yield
        except OF_SOURCES as error:
            if interrupt_behind(error, before) is not None:
                raise
            self.note(name, error)

    def note(self, name: str, error: PlatformError) -> None:
        """One more."""
        self._known.append((name, error))

    def tell(self) -> None:
        """Raises what was kept: the first that may pass, so that the run is tried again, else the first of all."""
        if not self._known:
            return
        passing = [each for each in self._known if isinstance(each[1], SourceUnavailableError)]
        name, error = (passing or self._known)[0]
        others = list(
            dict.fromkeys(getattr(each, "symbol", None) or of for of, each in self._known if each is not error)
        )
        more = f" Also in trouble: {', '.join(others)}." if others else ""
        raise type(error)(f"{name}: {error}{more}") from error
