"""Numbers as text: one reader, that loses no digit."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_platform.core.edits import Edit
from pipeline_platform.core.numbers import as_json, float_in, whole_number_in
from pipeline_platform.core.retry_after import retry_after
from pipeline_platform.errors import EditError, SourceShapeError
from pipeline_platform.gateway.moments import parse_moment
from pipeline_platform.sources.shapes import Node


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
        ("1E+05", "1E+05"),
        ("01E+05", "1e+05"),
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
        float_in(text)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**64), 2**64))
def test_what_python_writes_comes_back(value: float) -> None:
    assert float_in(repr(value)) == float(value)
    assert not isinstance(value, int) or whole_number_in(repr(value)) == value


@settings(deadline=None)
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


def _edited(function: str, text: str) -> Any:
    try:
        return json.loads(Edit.parse({"set": {"v": f"{function}(v)"}}).apply(json.dumps({"v": text}).encode()))["v"]
    except EditError:
        return None


def _moment(text: str) -> float | None:
    try:
        return parse_moment(text).timestamp() * 1000
    except ValueError:
        return None


def _price(text: str) -> float | None:
    try:
        return float(Node(text, "binance").decimal())
    except SourceShapeError:
        return None


READERS: dict[str, Callable[[str], float | None]] = {
    "the edits' float": lambda text: _edited("float", text),
    "the edits' int": lambda text: _edited("int", text),
    "the gateway's times": _moment,
    "a source's prices": _price,
    "a gateway's, a source's or a webhook's Retry-After": lambda text: retry_after(text, datetime.now(UTC)),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("text", "value"), [("60", 60), ("6e1", 60), ("+060.0", 60), ("1_0", None), ("\u0661", None),
                                             ("0x10", None), ("nan", None)])  # fmt: skip
def test_every_reader_of_numbers_is_this_one(reader: str, text: str, value: float | None) -> None:
    assert READERS[reader](text) == value


@pytest.mark.parametrize(
    "text",
    ["1795780762035", "1795780762035.0", "1.795780762035e+12", "2026-11-27T11:59:22.035Z", "2026-11-27t11:59:22.035z",
     "2026-11-27T12:59:22.0350000000+01:00"],
)  # fmt: skip
def test_a_time_in_a_url_is_read_like_one_of_an_event(text: str) -> None:
    assert parse_moment(text) == datetime(2026, 11, 27, 11, 59, 22, 35_000, UTC)


@pytest.mark.parametrize("text", ["1795780762035.5", "-1", "2026-11-27T11:59:60Z", "2026-11-27T11:59:22"])
def test_what_is_no_time_of_an_event_is_none_in_a_url(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_moment(text)
