"""The views of a stream that people read: the facts and the aggregates, with the dimensions spelled out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline_platform.core.names import SHOWN
from pipeline_platform.core.streams import StreamSpec

_NUMBER = "double precision"


@dataclass(frozen=True)
class ViewColumn:
    """One column of a view: what it shows, its SQL type, and what it means."""

    name: str
    expression: str
    type: str
    comment: str


@dataclass(frozen=True)
class View:
    """A view with its columns in the order that a new stream gets them."""

    name: str
    comment: str
    columns: tuple[ViewColumn, ...]
    source: str

    def query(self, first: Iterable[str] = ()) -> str:
        """Its SELECT with the columns named in `first` before the others.

        A view can be replaced, with somebody's own views on top of it, as long as it only grows at its end.
        """
        place = {name: number for number, name in enumerate(first)}
        ordered = sorted(self.columns, key=lambda column: place.get(column.name, len(place)))
        picks = ", ".join(f'{column.expression} as "{column.name}"' for column in ordered)
        return f"select {picks} from {self.source}"


def stream_views(spec: StreamSpec) -> tuple[View, View, View, View]:
    """The views `<stream>`, `<stream>_1m`, `<stream>_1h` and `<stream>_1d`."""
    dimensions = [
        ViewColumn(name, f's."{name}"', "text", options.description) for name, options in spec.dimensions.items()
    ]
    series = f'"{spec.name}_series" s using (series_id)'
    facts = View(
        spec.name,
        "Every event, with the dimensions spelled out.",
        (
            ViewColumn("ts", "e.ts", "timestamptz", "When it happened."),
            ViewColumn("received_at", "e.received_at", "timestamptz", "When the request was made durable."),
            *dimensions,
            *(ViewColumn(name, f'e."{name}"', _NUMBER, options.description) for name, options in spec.measures.items()),
            ViewColumn("batch_id", "e.batch_id", "bigint", "assets.id of the batch that loaded it."),
        ),
        f'"{spec.name}_events" e join {series}',
    )
    minutes, hours, days = (
        View(
            f"{spec.name}_{suffix}",
            f"Aggregates by {unit} (UTC), with the dimensions spelled out.",
            (
                ViewColumn(
                    "window_start", "m.window_start", "timestamptz", f"The {unit}, from here to just before the next."
                ),
                *dimensions,
                *(column for measure in spec.measures for column in _statistics(measure)),
                ViewColumn("events", "m.events", "bigint", "Events in the window."),
            ),
            f'"{spec.name}_{unit}s" m join {series}',
        )
        for suffix, unit in (("1m", "minute"), ("1h", "hour"), ("1d", "day"))
    )
    return facts, minutes, hours, days


def _statistics(measure: str) -> list[ViewColumn]:
    def stored(suffix: str) -> str:
        return f'm."{measure}_{suffix}"'

    some = f"nullif({stored('count')}, 0)"
    shown = {
        "count": (stored("count"), f"Events that have {measure}."),
        "sum": (stored("sum"), f"The sum of {measure}; 0 where no event has it."),
        "min": (stored("min"), f"The smallest {measure}."),
        "max": (stored("max"), f"The largest {measure}."),
        "avg": (f"{stored('sum')} / {some}", f"The mean of {measure}."),
        "var": (f"{stored('m2')} / {some}", f"The population variance of {measure}."),
        "first": (stored("first"), f"The earliest {measure}; of equal times the smallest."),
        "last": (stored("last"), f"The latest {measure}; of equal times the largest."),
    }
    kinds = {"count": "bigint"}
    return [
        ViewColumn(f"{measure}_{suffix}", expression, kinds.get(suffix, _NUMBER), comment)
        for suffix, (expression, comment) in ((each, shown[each]) for each in SHOWN)
    ]
