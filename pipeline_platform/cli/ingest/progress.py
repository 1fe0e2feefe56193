"""How far `ingest` is: a bar on a terminal's standard error, a few lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pipeline_platform.cli.files.event_files import EventFile, OpenedFile
from pipeline_platform.cli.terminal import SafeConsole

SAY_SECONDS = 10.0  # without a terminal, at most one line in this time


class Meter:
    """The bar counts the file's bytes where they are known, and always the acknowledged rows."""

    def __init__(
        self, source: EventFile, *, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._console = console or SafeConsole(stderr=True)
        self._clock = clock
        self._said_at = float("-inf")
        self._opened: OpenedFile | None = None
        self._bar: Progress | None = None
        self._task = TaskID(0)

    @contextlib.contextmanager
    def running(self, opened: OpenedFile) -> Iterator[None]:
        """Shows the bar while the file is being sent."""
        self._opened = opened
        if not self._console.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rows]:,} rows"),
            TimeRemainingColumn(),
            TextColumn("[yellow]{task.fields[note]}"),
        )
        self._bar = Progress(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task(escape(self._source.name), total=self._source.size, rows=0, note="")
        try:
            with self._bar:
                yield
        finally:
            self._bar = None

    def advance(self, rows: int) -> None:
        """`rows` are acknowledged."""
        if self._bar is not None and self._opened is not None:
            self._bar.update(self._task, completed=self._opened.position, rows=rows, note="")

    def say(self, text: str) -> None:
        """Why nothing moves at the moment; from any thread."""
        if self._bar is not None:
            self._bar.update(self._task, note=escape(text))
        elif self._clock() - self._said_at >= SAY_SECONDS:
            self._said_at = self._clock()
            self.note(f"The gateway {text}.")

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, soft_wrap=True)
