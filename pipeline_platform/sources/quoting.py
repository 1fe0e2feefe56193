"""Quotes of many symbols, apart from each other: one that the source refuses, or tells at odds, loses no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline_platform.core.prices import Quote
from pipeline_platform.errors import (
    QuestionRefusedError,
    SourceRefusedError,
    SourceShapeError,
    SourceUnavailableError,
    UnknownSymbolError,
)
from pipeline_platform.sources.protocol import Quotes
from pipeline_platform.sources.records import refuse_if_changed

MOST_APART = 256  # requests more than there would be without refusals, before the rest is left for the next time
AWAY_AFTER = 2  # requests in a row that fail: the source is away, and the others are not asked

# What one answer holds of each symbol that it is about: reading it gives the quote, or raises what is wrong with it.
Latest = Mapping[str, Callable[[], Quote]]


@dataclass
class _Found:
    """What has come so far."""

    found: dict[str, Quote] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)
    odd: list[SourceShapeError] = field(default_factory=list)
    trouble: SourceUnavailableError | SourceRefusedError | None = None

    def read(self, symbol: str, quote: Callable[[], Quote]) -> None:
        """One symbol of an answer."""
        try:
            self.found[symbol] = quote()
        except SourceRefusedError as error:
            self.refused[symbol] = str(error)
        except SourceShapeError as error:
            self.at_odds(symbol, error)

    def at_odds(self, symbol: str, error: SourceShapeError) -> None:
        """One symbol whose record cannot be used."""
        self.odd.append(error)
        self.rejected.append(f"{symbol}: {error.why}")

    def result(self, symbols: Sequence[str]) -> Quotes:
        """The whole. Raises what happened, when there is nothing else to tell."""
        if not self.found and not self.refused:
            refuse_if_changed(self.odd)
            if self.trouble and not self.rejected:
                raise self.trouble
        found = [self.found[each] for each in symbols if each in self.found]
        return Quotes(found, self.refused, self.rejected, self.trouble)


def quotes_of(
    source: str,
    symbols: Sequence[str],
    ask: Callable[[Sequence[str]], Latest],
    *,
    together: Callable[[Sequence[str]], list[list[str]]],
) -> Quotes:
    """The quotes of all symbols. `together` makes requests of them, `ask` makes one.

    A request about several symbols that the source refuses is asked again by halves, until the refusal is about one.
    """
    symbols = list(dict.fromkeys(symbols))
    so_far, ahead = _Found(), together(symbols)[::-1]
    left, away = len(ahead) + MOST_APART, 0
    while ahead and away < AWAY_AFTER:
        if left == 0:
            waiting = sum(map(len, ahead))
            so_far.trouble = SourceUnavailableError(
                f"{source} refuses so many symbols that {waiting} others were not asked for: correct prices.yaml."
            )
            break
        part, left = ahead.pop(), left - 1
        try:
            answer = ask(part)
        except SourceShapeError as error:
            so_far.at_odds(", ".join(part), error)
        except (SourceRefusedError, SourceUnavailableError) as error:
            if not _of_symbols(error):
                so_far.trouble = so_far.trouble or error
                away = away + 1 if isinstance(error, SourceUnavailableError) and not error.retry_after else AWAY_AFTER
            elif len(part) > 1:
                middle = len(part) // 2
                ahead += [part[middle:], part[:middle]]
            elif isinstance(error, SourceRefusedError):
                so_far.refused[part[0]] = str(error)
            else:
                so_far.rejected.append(f"{part[0]}: {error}")
        else:
            away = 0
            for symbol in part:
                so_far.read(symbol, answer[symbol])
    return so_far.result(symbols)


def _of_symbols(error: SourceRefusedError | SourceUnavailableError) -> bool:
    """Whether it is about the symbols that were asked for; otherwise it is about the source."""
    if isinstance(error, SourceRefusedError):
        return isinstance(error, UnknownSymbolError) or error.symbol is not None
    return isinstance(error, QuestionRefusedError)
