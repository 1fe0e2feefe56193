"""CSV files as people have them: what is wrong with a row is that row's fault, and the rest is read."""

from __future__ import annotations

import io
from typing import Any

import orjson
import pytest

from pipeline_platform.cli.csv_rows import csv_rows
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
