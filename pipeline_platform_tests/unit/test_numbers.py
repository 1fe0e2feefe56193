"""Numbers as text: one reader, that loses no digit."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.core.numbers import as_json, number_in, whole_number_in


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("1", "1"),
        ("-1.50", "-1.50"),
        ("+7", "7"),
        ("007", "7"),
        ("000", "0"),
        ("-0", "-0"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("5.", "5"),
        ("00.10", "0.10"),
        ("1E+05", "1e+05"),
        (" 1e2\t", "1e2"),
        ("1" + "0" * 29, "1" + "0" * 29),
        ("1e400", "1e400"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
    ],
)
def test_a_number_is_written_as_json_writes_it(text: str, written: str) -> None:
    assert as_json(text) == written


@pytest.mark.parametrize(
    "text",
    ["", " ", ".", "+", "-", "e5", "1e", "1e+", "--1", "+-1", "1_000", "1,5", "1 000", "1.2.3", "0x10", "0b1", "1f",
     "nan", "NaN", "inf", "-Infinity", "½", "\u0661", "\uff11", "1\u00a0", "\u22121", "True", "1\n2", "1\0"],
)  # fmt: skip
def test_what_is_no_number_is_none(text: str) -> None:
    assert as_json(text) is None
    with pytest.raises(ValueError, match="is not a number"):
        number_in(text)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_what_python_writes_comes_back(value: float) -> None:
    assert number_in(repr(value)) == value
    assert type(number_in(repr(value))) is type(value)


@given(st.from_regex(r"[+-]?[0-9]{0,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,2})?", fullmatch=True))
def test_every_number_is_json_and_the_same(text: str) -> None:
    written = as_json(text)
    if written is not None:
        assert float(orjson.loads(written)) == float(text)
    else:
        assert not any(digit.isdigit() for digit in text.split("e")[0].split("E")[0])


@pytest.mark.parametrize(
    ("text", "value"), [("12", 12), ("12.0", 12), ("1.2e1", 12), ("-0.0", 0), ("9" * 30, 10**30 - 1)]
)
def test_a_number_without_a_fraction_is_whole(text: str, value: int) -> None:
    assert whole_number_in(text) == value


@pytest.mark.parametrize("text", ["1.5", "1e-1", "1e400"])
def test_a_number_with_a_fraction_is_not(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number"):
        whole_number_in(text)
