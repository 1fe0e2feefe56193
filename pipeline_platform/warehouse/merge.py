"""The upsert that merges a batch's aggregates into the minutes. It commutes: late data corrects what is there."""

from __future__ import annotations

from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.warehouse.stream_tables import quoted


def merge_statement(spec: StreamSpec) -> tuple[str, list[str]]:
    """The statement, whose parameters are one array a column, and the frame's columns in their order.

    Frame times are epoch microseconds; the statement makes them timestamps.
    """
    columns = ["series_id", "window_us", "events"]
    kinds = ["int4", "int8", "int8"]
    targets = ["series_id", "window_start", "events"]
    picks = ["series_id", _moment("window_us"), "events"]
    updates = ["events = t.events + excluded.events"]
    for measure in spec.measures:
        for suffix, kind in (
            ("count", "int8"),
            ("sum", "float8"),
            ("min", "float8"),
            ("max", "float8"),
            ("m2", "float8"),
        ):
            columns.append(f"{measure}_{suffix}")
            kinds.append(kind)
            targets.append(quoted(f"{measure}_{suffix}"))
            picks.append(quoted(f"{measure}_{suffix}"))
        for suffix in ("first", "last"):
            columns += [f"{measure}_{suffix}", f"{measure}_{suffix}_us"]
            kinds += ["float8", "int8"]
            targets += [quoted(f"{measure}_{suffix}"), quoted(f"{measure}_{suffix}_ts")]
            picks += [
                quoted(f"{measure}_{suffix}"),
                f"case when {quoted(f'{measure}_count')} > 0 then {_moment(f'{measure}_{suffix}_us')} end",
            ]
        updates += _updates(measure)
    arrays = ", ".join(f"%s::{kind}[]" for kind in kinds)
    names = ", ".join(quoted(name) for name in columns)
    statement = (
        f'insert into "{spec.name}_minutes" as t ({", ".join(targets)}) '
        f"select {', '.join(picks)} from unnest({arrays}) as b ({names}) order by series_id, window_us "
        f"on conflict (series_id, window_start) do update set {', '.join(updates)}"
    )
    return statement, columns


def _moment(column: str) -> str:
    # Adding an interval to the epoch keeps microseconds exact, which to_timestamp(double) does not.
    return f"timestamptz 'epoch' + {quoted(column)} * interval '1 microsecond'"


def _updates(measure: str) -> list[str]:
    def mine(suffix: str) -> str:
        return f"t.{quoted(f'{measure}_{suffix}')}"

    def new(suffix: str) -> str:
        return f"excluded.{quoted(f'{measure}_{suffix}')}"

    def name(suffix: str) -> str:
        return quoted(f"{measure}_{suffix}")

    # Chan's formula for joining two sums of squared distances: d^2 * n1 * n2 / (n1 + n2).
    both = f"{mine('count')} > 0 and {new('count')} > 0"
    distance = f"({new('sum')} / {new('count')} - {mine('sum')} / {mine('count')})"
    weight = f"({mine('count')}::float8 * {new('count')} / ({mine('count')} + {new('count')}))"
    joined = f"case when {both} then {distance} * {distance} * {weight} else 0 end"

    def edge(which: str, sign: str, pick: str) -> list[str]:
        """The value at the earliest or latest time; of equal times the smallest or largest value."""
        stamp_mine, stamp_new = mine(f"{which}_ts"), new(f"{which}_ts")
        value = (
            f"case when {stamp_mine} is null or {stamp_new} {sign} {stamp_mine} then {new(which)} "
            f"when {stamp_new} = {stamp_mine} then {pick}({mine(which)}, {new(which)}) else {mine(which)} end"
        )
        return [f"{name(which)} = {value}", f"{name(f'{which}_ts')} = {pick}({stamp_mine}, {stamp_new})"]

    return [
        f"{name('count')} = {mine('count')} + {new('count')}",
        f"{name('sum')} = {mine('sum')} + {new('sum')}",
        f"{name('min')} = least({mine('min')}, {new('min')})",
        f"{name('max')} = greatest({mine('max')}, {new('max')})",
        f"{name('m2')} = {mine('m2')} + {new('m2')} + {joined}",
        *edge("first", "<", "least"),
        *edge("last", ">", "greatest"),
    ]
