"""The dictionary of a stream's dimensions: combination of texts -> series_id."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import TransientError
from pipeline_platform.warehouse.stream_tables import quoted


def series_ids(
    connection: sa.Connection, spec: StreamSpec, series: tuple[tuple[str, ...], ...]
) -> npt.NDArray[np.int32]:
    """The series_id of each combination, in the order given; new combinations are added and committed."""
    if not series:
        return np.empty(0, np.int32)
    found = _find(connection, spec, series)
    missing = sorted(number for number, series_id in enumerate(found) if series_id is None)
    if missing:
        _add(connection, spec, sorted(series[number] for number in missing))
        connection.commit()
        found = _find(connection, spec, series)
    connection.commit()
    return np.array(found, np.int32)


def _arrays(series: list[tuple[str, ...]] | tuple[tuple[str, ...], ...]) -> dict[str, list[str]]:
    return {f"d{number}": list(column) for number, column in enumerate(zip(*series, strict=True))}


def _unnest(spec: StreamSpec) -> str:
    return ", ".join(f"cast(:d{number} as text[])" for number in range(len(spec.dimensions)))


def _find(connection: sa.Connection, spec: StreamSpec, series: tuple[tuple[str, ...], ...]) -> list[int | None]:
    names = ", ".join(quoted(name) for name in spec.dimensions)
    query = (
        f"select s.series_id from unnest({_unnest(spec)}) with ordinality as b ({names}, _place) "
        f'left join "{spec.name}_series" s using ({names}) order by _place'
    )
    found = list(connection.scalars(sa.text(query), _arrays(series)))
    if len(found) != len(series):
        # The table tells apart what this process' spec does not: a dimension was added after the process had started.
        raise TransientError(
            f"The tables of {spec.name} have a dimension that this process does not know; reload its definitions."
        )
    return found


def _add(connection: sa.Connection, spec: StreamSpec, series: list[tuple[str, ...]]) -> None:
    """Sorted, so that two loads that add the same series wait for each other instead of deadlocking."""
    names = ", ".join(quoted(name) for name in spec.dimensions)
    statement = (
        f'insert into "{spec.name}_series" ({names}) select * from unnest({_unnest(spec)}) on conflict do nothing'
    )
    connection.execute(sa.text(statement), _arrays(series))
