"""Places for work that is heavy on the processor: so many at once, whoever asks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline_platform.gateway.problems import ProblemError

PATIENCE_SECONDS = 0.25


class Places:
    """For worker threads. Who gets no place within the patience is asked to come again."""

    def __init__(self, count: int) -> None:
        self._places = threading.Semaphore(count)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Holds one; a 429 problem when none becomes free."""
        if not self._places.acquire(timeout=PATIENCE_SECONDS):
            detail = "As many lists as may be are being made; ask again in a second."
            raise ProblemError("rate-limited", detail, headers={"Retry-After": "1"})
        try:
            yield
        finally:
            self._places.release()
