"""Every Arrow type of a column is converted exactly or refused by row and column, its extreme values, too."""

from __future__ import annotations

import decimal
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline_platform.cli.files.arrow_types import CONVERSIONS, conversion_of
from pipeline_platform.cli.files.parquet_rows import batch_rows, parquet_rows
from pipeline_platform_tests.unit.examples import stream

UTC = "UTC"
MOST = 2**63 - 1
# How far a unit is from 1970 to the end of the year 9999, and to the first second of the year 1.
LAST_S, FIRST_S = 253_402_300_799, -62_135_596_800


def raw(values: list[Any], kind: Any, storage: Any) -> Any:
    """An array of a type made of what it is stored as, so that no reader of Python values is asked."""
    return pa.array(values, storage).view(kind)


def texts(values: list[bytes], kind: Any) -> Any:
    """An array of texts that nobody has checked for being UTF-8."""
    wide = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}
    return pa.array(values, wide[kind]).cast(kind, safe=False) if kind != pa.string_view() else _view(values)


def _view(values: list[bytes]) -> Any:
    buffers = pa.array(values, pa.binary_view()).buffers()
    return pa.Array.from_buffers(pa.string_view(), len(values), buffers)


def dense_union() -> Any:
    return pa.UnionArray.from_dense(
        pa.array([0, 1], pa.int8()), pa.array([0, 0], pa.int32()), [pa.array([1]), pa.array(["a"])]
    )


D = decimal.Decimal
ABSENT = "absent"
INFINITE, NAN, NOT_UTF8 = "!x: is infinite", "!x: is NaN", "!x: is not valid UTF-8"
OUTSIDE, NO_DAYTIME = "!x: is outside of the years", "!x: is no time of a day"
# A column, and what its values become: JSON as text, or the beginning of the words that refuse them.
COLUMNS: list[tuple[Any, list[str]]] = [
    (pa.nulls(2), [ABSENT, ABSENT]),
    (pa.array([True, False, None]), ["true", "false", ABSENT]),
    (pa.array([-128, 127], pa.int8()), ["-128", "127"]),
    (pa.array([-(2**15), 2**15 - 1], pa.int16()), ["-32768", "32767"]),
    (pa.array([-(2**31), 2**31 - 1], pa.int32()), ["-2147483648", "2147483647"]),
    (pa.array([-(2**63), MOST, None], pa.int64()), [str(-(2**63)), str(MOST), ABSENT]),
    (pa.array([0, 255], pa.uint8()), ["0", "255"]),
    (pa.array([0, 65535], pa.uint16()), ["0", "65535"]),
    (pa.array([0, 2**32 - 1], pa.uint32()), ["0", "4294967295"]),
    (pa.array([0, 2**64 - 1], pa.uint64()), ["0", "18446744073709551615"]),
    (pa.array(np.array([65504, 6e-08, np.inf, np.nan], np.float16)),
     ["65504.0", "5.960464477539063e-8", INFINITE, NAN]),
    (pa.array([0.1, 3.4028234663852886e38, -np.inf], pa.float32()),
     ["0.10000000149011612", "3.4028234663852886e38", INFINITE]),
    (pa.array([5e-324, 1.7976931348623157e308, -0.0, np.nan, np.inf, None]),
     ["5e-324", "1.7976931348623157e308", "-0.0", NAN, INFINITE, ABSENT]),
    (pa.array([D("12345.67"), None], pa.decimal32(7, 2)), ["12345.67", ABSENT]),
    (pa.array([D("-0.01")], pa.decimal64(18, 2)), ["-0.01"]),
    (pa.array([D("9" * 38), D("0")], pa.decimal128(38, 0)), ["9" * 38, "0"]),
    (pa.array([D("0." + "0" * 37 + "1")], pa.decimal128(38, 38)), ["0." + "0" * 37 + "1"]),
    (pa.array([D("9" * 76)], pa.decimal256(76, 0)), ["9" * 76]),
    (pa.array([D("12E3")], pa.decimal128(5, -3)), ["12000"]),
    (texts(["ü".encode(), b"\xff", b"", b"a\xed\xa0\x80"], pa.string()),
     ['"ü"', "!x: is not valid UTF-8 at byte 0", '""', "!x: is not valid UTF-8 at byte 1"]),
    (texts([b"a", b"\xc3"], pa.large_string()), ['"a"', NOT_UTF8]),
    (texts([b"a", b"\xc3", b"x" * 20], pa.string_view()), ['"a"', NOT_UTF8, f'"{"x" * 20}"']),
    (pa.array(["nul\0"]), ['"nul\\u0000"']),
    (pa.array([b"a", b"\xff", None], pa.binary()), ['"a"', NOT_UTF8, ABSENT]),
    (pa.array([b"a", b"\xff"], pa.large_binary()), ['"a"', NOT_UTF8]),
    (pa.array([b"a", b"\xff"], pa.binary_view()), ['"a"', NOT_UTF8]),
    (pa.array([b"ab", b"\xff\xff"], pa.binary(2)), ['"ab"', NOT_UTF8]),
    (raw([0, -719162, 2932896, -719163, 2932897, 2**31 - 1, -(2**31)], pa.date32(), pa.int32()),
     ['"1970-01-01"', '"0001-01-01"', '"9999-12-31"', *[OUTSIDE] * 4]),
    (raw([86_400_000, -86_400_000, 1, MOST, -(2**63), 253_402_300_800_000], pa.date64(), pa.int64()),
     ['"1970-01-02"', '"1969-12-31"', "!x: is not at midnight", "!x: is", "!x: is", OUTSIDE]),
    (raw([0, 86399, 86400, -1], pa.time32("s"), pa.int32()), ['"00:00:00"', '"23:59:59"', *[NO_DAYTIME] * 2]),
    (raw([1, 86_399_999, 2**31 - 1], pa.time32("ms"), pa.int32()), ['"00:00:00.001"', '"23:59:59.999"', NO_DAYTIME]),
    (raw([1, MOST], pa.time64("us"), pa.int64()), ['"00:00:00.000001"', NO_DAYTIME]),
    (raw([86_399_999_999_999, -(2**63)], pa.time64("ns"), pa.int64()), ['"23:59:59.999999999"', NO_DAYTIME]),
    *(
        (raw([0, FIRST_S * per, (LAST_S + 1) * per - 1, FIRST_S * per - 1, (LAST_S + 1) * per, MOST, -(2**63), None],
             pa.timestamp(unit, zone), pa.int64()),
         [f'"1970-01-01T00:00:00{zeros}{z}"', f'"0001-01-01T00:00:00{zeros}{z}"',
          f'"9999-12-31T23:59:59{nines}{z}"', *[OUTSIDE] * 4, ABSENT])
        for unit, per, zeros, nines in (
            ("s", 1, "", ""), ("ms", 10**3, ".000", ".999"), ("us", 10**6, ".000000", ".999999"))
        for zone, z in ((None, ""), ("UTC", "Z"), ("Europe/Berlin", "Z"), ("+05:30", "Z"))
    ),
    (raw([1, MOST, 1 - 2**63, -(2**63), -1], pa.timestamp("ns", UTC), pa.int64()),
     ['"1970-01-01T00:00:00.000000001Z"', '"2262-04-11T23:47:16.854775807Z"',
      '"1677-09-21T00:12:43.145224193Z"', OUTSIDE, '"1969-12-31T23:59:59.999999999Z"']),
    (pa.array(["a", None, "b"]).dictionary_encode(), ['"a"', ABSENT, '"b"']),
    (pa.DictionaryArray.from_arrays(pa.array([1, 0, 1], pa.int8()), pa.array([np.inf, 1.0])), ["1.0", INFINITE, "1.0"]),
    (pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array([1, 2])), ["1", "1", "2"]),
    (pa.array([[1.5, None], [], None, [np.inf]]), ["[1.5,null]", "[]", ABSENT, "!x: [0] is infinite"]),
    (pa.array([["a"], None], pa.large_list(pa.string())), ['["a"]', ABSENT]),
    (pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)), ["[1,2]", ABSENT, "[3,4]"]),
    (pa.array([[1], None, [2, 3]], pa.list_view(pa.int64())), ["[1]", ABSENT, "[2,3]"]),
    (pa.array([[1]], pa.large_list_view(pa.int64())), ["[1]"]),
    (pa.array([{"a": 1.0, "b": [None]}, None, {"a": np.nan, "b": None}]),
     ['{"a":1.0,"b":[null]}', ABSENT, "!x: .a is NaN"]),
    (pa.array([{}], pa.struct([])), ["{}"]),
    (pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())), ["!x: is a map", ABSENT]),
    (raw([0, MOST, -(2**63), None], pa.duration("ns"), pa.int64()), [*["!x: is a duration"] * 3, ABSENT]),
    (pa.array([(1, 2, 3), None], pa.month_day_nano_interval()), ["!x: is an interval", ABSENT]),
    (dense_union(), ["!x: has a type that JSON has nothing for"] * 2),
    (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(range(16)), None], pa.binary(16))),
     ['"00010203-0405-0607-0809-0a0b0c0d0e0f"', ABSENT]),
    (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, 1, -5, None], pa.int8())),
     ["false", "true", "true", ABSENT]),
    (pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":1}'])), ['"{\\"a\\":1}"']),
    (pa.ExtensionArray.from_storage(pa.opaque(pa.int64(), "a", "b"), pa.array([1, None])), ["!x: has a type", ABSENT]),
]  # fmt: skip
WRITTEN_AS_ANOTHER = ("date64[ms]", "time32[s]")
ids = pytest.mark.parametrize(("column", "expected"), COLUMNS, ids=[str(column.type) for column, _ in COLUMNS])


def outcome(batch: Any) -> list[str]:
    """What becomes of the only field of each row."""
    return [f"!{row.problem}" if row.problem else _member(row.data) for row in batch_rows(batch)]


def _member(data: bytes) -> str:
    return data.decode().partition(":")[2].removesuffix("}") if data != b"{}" else ABSENT


def agrees(found: list[str], expected: list[str]) -> bool:
    pairs = list(zip(found, expected, strict=True))
    return all(
        is_.startswith(wanted) if wanted[0] == "!" else is_.replace("e+", "e") == wanted for is_, wanted in pairs
    )


@ids
def test_a_column_is_exact_or_refused_by_row_and_column(column: Any, expected: list[str]) -> None:
    found = outcome(pa.RecordBatch.from_arrays([column], names=["x"]))
    assert agrees(found, expected), found


@ids
def test_a_slice_is_no_different(column: Any, expected: list[str]) -> None:
    found = outcome(pa.RecordBatch.from_arrays([column], names=["x"]).slice(1))
    assert agrees(found, expected[1:]), found


@ids
def test_it_is_the_same_from_a_file(column: Any, expected: list[str]) -> None:
    if str(column.type) in WRITTEN_AS_ANOTHER:
        pytest.skip("Parquet writes it as another type")
    file = io.BytesIO()
    try:
        pq.write_table(pa.table({"x": column}), file, version="2.6")
    except (pa.ArrowException, OSError):
        pytest.skip("Parquet has no such type")
    file.seek(0)
    rows = list(parquet_rows(file, "x.parquet"))
    assert [row.number for row in rows] == list(range(1, len(expected) + 1))
    found = [f"!{row.problem}" if row.problem else _member(row.data) for row in rows]
    assert agrees(found, expected), found


def test_every_line_of_the_table_is_tried_and_every_type_has_one() -> None:
    tried = {conversion_of(column.type).names for column, _ in COLUMNS}
    assert tried == {each.names for each in CONVERSIONS}
    assert {conversion_of(kind()).names for kind in (pa.int8, pa.utf8, pa.date32)} <= tried


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([0], pa.timestamp("ms")), "ts: has no time zone"),
        (pa.array([0], pa.timestamp("ms")).dictionary_encode(), "ts: has no time zone"),
        (pa.array([0], pa.date32()), "ts: is no moment"),
        (pa.array([0], pa.date64()), "ts: is no moment"),
        (pa.array([0], pa.time32("s")), "ts: is no moment"),
        (pa.array([0], pa.duration("s")), "ts: is a duration"),
        (pa.array([[1]]), "ts: is no moment"),
        (raw([18446744073709551 + 1763712000000], pa.timestamp("ms", UTC), pa.int64()), "ts: is outside of the years"),
        (pa.array([18446744073709551 + 1763712000000], pa.int64()), ""),
        (pa.array([0], pa.timestamp("ms", UTC)), ""),
        (pa.array([0.0]), ""),
        (pa.array([D("1763712000000.00")]), ""),
    ],
)
def test_a_time_is_a_moment(column: Any, words: str) -> None:
    [row] = batch_rows(pa.RecordBatch.from_arrays([column], names=["ts"]))
    assert row.problem.startswith(words)
    assert bool(row.problem) == bool(words)


def test_old_times_that_are_read_as_others_are_refused() -> None:
    file = io.BytesIO()
    times = raw([0, 32_503_680_000_000_000], pa.timestamp("us"), pa.int64())
    pq.write_table(
        pa.table({"a.t": times, "a": [1, 2], "b": [[time] for time in times]}),
        file,
        use_deprecated_int96_timestamps=True,
    )
    file.seek(0)
    assert [row.problem.startswith("a.t: is an INT96") for row in parquet_rows(file, "x")] == [True, True]


def test_a_refused_row_shows_what_it_had_and_others_are_not_touched() -> None:
    columns = {"a": pa.array([1.0, np.inf, 2.0]), "b": pa.array([b"x", b"\xff", b"y"]), "c": pa.array([None, 5, 6])}
    rows = list(batch_rows(pa.RecordBatch.from_pydict(columns), before=10))
    assert [(row.number, row.unit, row.problem) for row in rows] == [
        (11, "row", ""),
        (12, "row", "a: is infinite"),
        (13, "row", ""),
    ]
    assert [json.loads(row.data) for row in rows] == [
        {"a": 1.0, "b": "x"},
        {"a": "inf", "b": "\\xff", "c": 5},
        {"a": 2.0, "b": "y", "c": 6},
    ]


def test_rows_without_columns_are_rows() -> None:
    batch = pa.RecordBatch.from_struct_array(pa.array([{}, {}], pa.struct([])))
    assert [row.data for row in batch_rows(batch)] == [b"{}", b"{}"]


@pytest.mark.parametrize(("unknown", "problems"), [("ignore", ["", ""]), ("reject", ["lasted: is a duration", ""])])
def test_a_column_that_the_stream_ignores_is_not_read(unknown: str, problems: list[str]) -> None:
    file = io.BytesIO()
    lasted = raw([5, None], pa.duration("s"), pa.int64())
    pq.write_table(pa.table({"source": ["a", "b"], "lasted": lasted, "value": [1.5, 2.5]}), file)
    rows = list(parquet_rows(file, "x", stream(unknown_fields=unknown)))
    assert [row.problem.partition(";")[0] for row in rows] == problems
    assert json.loads(rows[1].data) == {"source": "b", "value": 2.5}


class Secret(pa.ExtensionType):  # type: ignore[misc]  # pyarrow has no types
    """A type of somebody else's, such as pandas' periods, which are kept as whole numbers."""

    def __init__(self) -> None:
        super().__init__(pa.int64(), "somebody.period")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"M"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, data: bytes) -> Secret:
        return cls()


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_extension_that_nobody_knows_here_is_not_taken_for_what_it_is_kept_as(wrapped: bool) -> None:
    secret = pa.ExtensionArray.from_storage(Secret(), pa.array([671, None]))
    column = pa.StructArray.from_arrays([secret], names=["ts"]) if wrapped else secret
    file = io.BytesIO()
    pq.write_table(pa.table({"x": column}), file)
    file.seek(0)
    rows = list(parquet_rows(file, "x"))
    where = "x: .ts" if wrapped else "x:"
    assert rows[0].problem.startswith(f"{where} has the extension type somebody.period")
    assert rows[1].problem == ""
