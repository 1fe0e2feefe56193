"""Rows of Parquet as one event of NDJSON each. Loads pyarrow, so only what reads such a file imports this."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_platform.cli.files.arrow_cells import Cells, refused
from pipeline_platform.cli.files.arrow_types import cells_of
from pipeline_platform.cli.files.event_rows import Row
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import PermanentError

BATCH_ROWS = 8192
INT96 = (
    "is an INT96, an old form of times without a zone; write microseconds with a zone (Spark: "
    "spark.sql.parquet.outputTimestampType=TIMESTAMP_MICROS)"
)


def column_names(file: IO[bytes], name: str) -> list[str]:
    """The columns that the file's schema has; PermanentError when it is no Parquet."""
    try:
        names: list[str] = pq.ParquetFile(file).schema_arrow.names
    except pa.ArrowException as error:
        raise _unreadable(name, error) from None
    return names


def parquet_rows(file: IO[bytes], name: str, spec: StreamSpec | None = None) -> Iterator[Row]:
    """The rows of a Parquet file, a few thousand in memory at a time; a null is an absent field.

    What the table in `arrow_types` refuses is a row's problem that names the column. A column that the stream ignores
    is not read.
    """
    try:
        parquet = pq.ParquetFile(file)
        names = parquet.schema_arrow.names
        if len(set(names)) < len(names):
            raise PermanentError(f"{name} has two columns of the same name.")
        old = _int96(parquet.schema, names)
        ignored = spec is not None and spec.policies.unknown_fields == "ignore"
        wanted = [column for column in names if column in spec.fields] if spec and ignored else None
        number = 0
        for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
            yield from batch_rows(batch, number, old)
            number += batch.num_rows
    except pa.ArrowException as error:
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: Exception) -> PermanentError:
    said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return PermanentError(f"{name} is not a Parquet file that can be read: {said}.")


def batch_rows(batch: Any, before: int = 0, int96: frozenset[str] = frozenset()) -> Iterator[Row]:
    """The rows of one batch of Arrow, `before` of the file's rows being before it."""
    names = batch.schema.names
    columns: list[Cells] = [
        refused(column, INT96) if field.name in int96 else cells_of(field, column)
        for field, column in zip(batch.schema, batch.columns, strict=True)
    ]
    problems: dict[int, str] = {}
    for name, cells in zip(names, columns, strict=True):
        for at, words in cells.problems.items():
            problems.setdefault(at, f"{name}: {words}")
    rows = zip(*(cells.values for cells in columns), strict=True) if columns else iter([()] * batch.num_rows)
    for at, values in enumerate(rows):
        event = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        yield Row(before + at + 1, orjson.dumps(event), problems.get(at, ""), "row")


def _int96(schema: Any, names: list[str]) -> frozenset[str]:
    """The columns of INT96: read as nanoseconds, what does not fit would silently be another time."""
    leaves = [schema.column(at) for at in range(len(schema))]
    paths = [leaf.path for leaf in leaves if leaf.physical_type == "INT96"]
    return frozenset(path if path in names else path.split(".")[0] for path in paths)
