"""What is printed comes from anywhere: events, log lines, error texts. None of it steers the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment


def printable(text: str) -> str:
    """What would steer the terminal is shown instead of sent."""
    return "".join(sign if sign.isprintable() or sign == "\n" else f"\\x{ord(sign):02x}" for sign in text)


class _Shown:
    """A renderable whose texts are printable, whatever is in it."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)


class _Hook(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Shown(each) for each in renderables]


class SafeConsole(Console):
    """A console that prints texts as texts; colours are its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, **options)
        if self.width < 1:  # COLUMNS=0, as some schedulers have it: nothing at all would be printed
            self.width = 80
        self.push_render_hook(_Hook())
