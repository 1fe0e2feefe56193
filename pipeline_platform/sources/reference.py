"""Tables of docs/prices.md, made from the sources themselves: `python -m pipeline_platform.sources.reference`."""

from __future__ import annotations

from http import HTTPStatus

from pipeline_platform.core.prices import Interval
from pipeline_platform.sources.catalog import KINDS
from pipeline_platform.sources.failures import AT_ONCE, FIRST_PAUSES, OF_QUESTIONS, QUESTION_PAUSE
from pipeline_platform.sources.kraken import THROTTLES


def sources_table() -> str:
    """What every kind of source can do, the time of its quotes, and how it says that it does not know a symbol."""
    rows = [
        "| Kind | Intervals | Symbols a request for quotes | A quote is of the time of | It does not know a symbol |",
        "|---|---|---|---|---|",
    ]
    for name, kind in KINDS.items():
        some = ", ".join(f"`{each.value}`" for each in Interval if each in kind.intervals)
        intervals = "all" if kind.intervals == frozenset(Interval) else some
        together = "all of a base currency" if name.startswith("frankfurter") else str(kind.together)
        rows.append(f"| `{name}` | {intervals} | {together} | {kind.quote_time} | {kind.unknown_words} |")
    return "\n".join(rows) + "\n"


def pauses_table() -> str:
    """The pauses after failures, which double each time."""
    rows = ["| An answer | First pause | Who waits |", "|---|---|---|"]
    everybody = "everybody who asks the source"
    for status, seconds in sorted(FIRST_PAUSES.items()):
        rows.append(f"| {status:d} {HTTPStatus(status).phrase} | {seconds:g} s | {everybody} |")
    for words, seconds in THROTTLES.items():
        rows.append(f"| Kraken: `{words}` | {seconds:g} s | {everybody} |")
    statuses = ", ".join(f"{each:d}" for each in sorted(OF_QUESTIONS))
    rows += [
        f"| {statuses} with an error object in JSON | {QUESTION_PAUSE:g} s | this question alone |",
        f"| Anything else: 5xx, a page of HTML, what is not whole JSON | none, then {AT_ONCE:g} s | {everybody} |",
    ]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(sources_table(), pauses_table(), sep="\n")
