"""Rows of Parquet as one event of NDJSON each. Loads pyarrow, so only what reads such a file imports this."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_platform.cli.event_rows import Row
from pipeline_platform.errors import PermanentError


def column_names(file: IO[bytes], name: str) -> list[str]:
    """The columns that the file's schema has; PermanentError when it is no Parquet."""
    try:
        names: list[str] = pq.ParquetFile(file).schema_arrow.names
    except pa.ArrowException as error:
        raise PermanentError(f"{name} is not a Parquet file that can be read: {str(error).splitlines()[0]}.") from None
    return names


def parquet_rows(file: IO[bytes], name: str) -> Iterator[Row]:
    """The rows of a Parquet file, a few thousand in memory at a time; nulls and NaN are absent fields."""
    try:
        parquet = pq.ParquetFile(file)
        columns = parquet.schema_arrow.names
        if len(set(columns)) < len(columns):
            raise PermanentError(f"{name} has two columns of the same name.")
        number = 0
        for batch in parquet.iter_batches(batch_size=8192):
            arrays = [_plain_type(column) for column in batch.columns]
            for event in pa.RecordBatch.from_arrays(arrays, names=columns).to_pylist():
                number += 1
                present = {key: value for key, value in event.items() if value is not None and value == value}
                yield Row(
                    number,
                    orjson.dumps(present, default=str, option=orjson.OPT_NAIVE_UTC | orjson.OPT_NON_STR_KEYS),
                    unit="row",
                )
    except pa.ArrowException as error:
        raise PermanentError(f"{name} is not a Parquet file that can be read: {str(error).splitlines()[0]}.") from None


def _plain_type(column: Any) -> Any:
    """A column whose values JSON has: dates and times in microseconds with a zone, decimals as floats."""
    kind = column.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", tz="UTC"), safe=False)
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        return column.cast(pa.float64())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return column.cast(pa.string())
    if pa.types.is_dictionary(kind):
        return _plain_type(column.dictionary_decode())
    return column
