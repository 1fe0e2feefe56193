"""CSV files as people have them: what is wrong with a row is that row's fault, and the rest is read."""

from __future__ import annotations

import csv
import io
from typing import Any

import orjson
import pytest

from pipeline_platform.cli.files.csv_rows import csv_rows
from pipeline_platform.core.streams import load_specs

SPEC = load_specs()["telemetry"]
HEAD = b"source,metric,value\n"


def read(content: bytes) -> tuple[list[Any], list[tuple[int, str, bytes]]]:
    """The values that were read, and the lines that could not be."""
    rows = list(csv_rows(io.BufferedReader(io.BytesIO(content)), "x.csv", SPEC))
    good = [orjson.loads(row.data)["value"] for row in rows if not row.problem]
    return good, [(row.number, row.problem, row.data) for row in rows if row.problem]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (b'a,"m,2', "a quote is opened and not closed"),
        (b'a,"m,2\nb,"k",7', "text follows a quote that is closed"),
        (b'a,"m"x,2', "text follows a quote that is closed"),
        (b'a,"' + b"m" * 131_073 + b'",2', "a field is longer than 131,072 characters"),
        (b"a," + b"m" * 131_073 + b",2", "a field is longer than 131,072 characters"),
        (b"a,m", "2 fields, the header has 3"),
        (b"a,m,2,3", "4 fields, the header has 3"),
        (b"a,\xff\xfe,2", "metric: not valid UTF-8"),
    ],
)
def test_a_bad_line_is_refused_alone(bad: bytes, problem: str) -> None:
    first, *others = bad.split(b"\n")
    good, refused = read(HEAD + b"a,m,1\n" + bad + b"\nc,m,3\r\nd,m,4")
    assert good == [1, *(7 for _ in others), 3, 4]
    assert [(number, data) for number, _, data in refused] == [(3, first)]
    assert problem in refused[0][1]


@pytest.mark.parametrize("blank", [b"", b",,", b",", b",,,,,", b" , ,", b'"","",""', b"\r"])
def test_rows_of_nothing_but_separators_are_blank(blank: bytes) -> None:
    assert read(HEAD + blank + b"\na,m,1\n" + blank + b"\n" + blank) == ([1], [])


@pytest.mark.parametrize("cell", ["x", " y ", "0"])
def test_a_cell_without_a_name_is_its_rows_fault(cell: str) -> None:
    lines = ["source,metric,value,,", *["a,m,1,,"] * 200, f"a,m,2,,{cell}", "a,m,3"]
    good, refused = read("\n".join(lines).encode())
    assert good == [1] * 200
    assert refused == [
        (202, f"column 5 has no name and holds {cell!r}", lines[201].encode()),
        (203, "3 fields, the header has 5", b"a,m,3"),
    ]


@pytest.mark.parametrize(
    "stray",
    [
        ['a,"m,5'],  # until the end of the file
        ['a,"m,5', 'a,"m,5'],
        ['a,"m,5', 'a,5",7'],  # the second closes what the first opened
        ['a,"m,5', 'a,5",7,8'],
        ['"a,m,5', 'b",m,7', 'a,"m,5', 'a,m,"5'],
        ['a,"m,5'] * 7,
    ],
)
def test_stray_quotes_take_no_other_row_along(stray: list[str]) -> None:
    lines = [f"a,m,{n}" for n in range(100, 10_100)]
    places = [3000 * at + 100 for at in range(min(3, len(stray)))] + [9900 + at for at in range(len(stray) - 3)]
    for near in (1, 0):  # far from each other, and on end
        mixed, others = list(lines), stray
        for at, line in reversed(list(enumerate(others))):
            mixed.insert(places[at] if near else 50, line)
        good, refused = read(HEAD + "\n".join(mixed).encode())
        assert [value for value in good if value >= 100] == list(range(100, 10_100))
        assert len(good) + sum(data.count(b"\n") + 1 for _, _, data in refused) == 10_000 + len(stray)


@pytest.mark.parametrize(
    "text", ["a\nb", "a\n\nb", "\n", "one, two\nthree", "a\r\nb", 'he said "a,b"\nand went', "x" * 131_000 + "\ny"]
)
@pytest.mark.parametrize("column", [0, 1])
def test_text_over_several_lines_stays_one_row(text: str, column: int) -> None:
    into = io.StringIO()
    csv.writer(into).writerows(
        [["source", "metric", "value"], [*["k", "k"][:column], text, *["k", "k"][column + 1 :], 1]]
    )
    (row,) = csv_rows(io.BufferedReader(io.BytesIO(into.getvalue().encode())), "x.csv", SPEC)
    assert (row.number, row.problem, orjson.loads(row.data)[["source", "metric"][column]]) == (2, "", text)
