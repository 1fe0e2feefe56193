"""Failures of a source in a row: how long to leave it, or one question, alone, and when it is no accident any more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

from pipeline_platform.core.budgets import EVERYTHING, Budget
from pipeline_platform.errors import QuestionRefusedError, SourceRefusedError, SourceUnavailableError
from pipeline_platform.sources.failures import LASTING, QUESTION_PAUSE, grown


@dataclass(frozen=True, slots=True)
class About:
    """What a request is about: `candles` or `quotes`, of one symbol or of several together."""

    kind: str
    symbol: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} of {self.symbol}" if self.symbol else self.kind


class FailureSeries:
    """Kept with the budget, for all workers together. A series ends with a good answer."""

    def __init__(self, source: str, budget: Budget) -> None:
        self._source, self._budget = source, budget

    def failed(
        self, message: str, about: About, *, first: float = 0.0, named: float | None = None, question: bool = False
    ) -> NoReturn:
        """Remembers a failure, and raises it: as transient, until the same question has failed for a day.

        `named`: the seconds that the source asks for; otherwise the pause grows from `first`. With `question` only this
        question waits, otherwise everybody does.
        """
        if question and about.symbol is None:  # one of several symbols: each is asked for apart, and remembered then
            raise QuestionRefusedError(message)
        every, asked, refused = _names(about)
        series = self._budget.failed(*((refused,) if question else (every, asked)))
        seconds, lasted = named or grown(first, series[0].count), series[-1].lasted
        if not question and seconds:
            self._budget.pause(seconds)
        if lasted >= LASTING:
            raise SourceRefusedError(f"{message} {self._advice(lasted)}", about.symbol if question else None)
        who = "This is not asked" if question else "Nobody asks it"
        rest = f" {who} for {math.ceil(seconds)} s." if seconds else ""
        kind = QuestionRefusedError if question else SourceUnavailableError
        raise kind(f"{message}{rest}", retry_after=seconds or None)

    def rest(self, about: About) -> bool:
        """Whether there are failures to forget after a good answer; raises while this question is to be left alone."""
        failing = self._budget.failing(*_names(about))
        refused = failing[-1]
        if refused and (wait := grown(QUESTION_PAUSE, refused.count) - refused.ago) > 0:
            message = (
                f"{self._source} has refused the {about} {refused.count} times in a row: this is not asked for "
                f"{math.ceil(wait)} s."
            )
            if refused.lasted >= LASTING:
                raise SourceRefusedError(f"{message} {self._advice(refused.lasted)}", about.symbol)
            raise QuestionRefusedError(message, retry_after=wait)
        return any(failing)

    def over(self, about: About) -> None:
        """A good answer has come."""
        self._budget.answered(*_names(about))

    def _advice(self, lasted: float) -> str:
        return (
            f"So it has for {lasted / 3600:.0f} hours: check base_url, the key and the symbols of {self._source} in "
            "prices.yaml, and whether this machine may ask it."
        )


def _names(about: About) -> tuple[str, str, str]:
    """What failures are remembered by: the source's in a row, this question's, and this question's refusals."""
    return EVERYTHING, str(about), f"{about}, refused"
