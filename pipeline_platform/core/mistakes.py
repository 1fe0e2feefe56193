"""What pydantic finds wrong with a value, in our own words: after the name of the field they make a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXT, _WHOLE, _NUMBER, _CHOICE = (
    "should be text",
    "should be a whole number",
    "should be a number",
    "should be true or false",
)
_LIST, _MAPPING = "should be a list", "should be a mapping of names to values"
_TIME = "should be a time with its zone, such as 2026-01-31T10:00:00Z"
_DAY, _PERIOD = "should be a day, such as 2026-01-31", "should be a period, such as 90s, 5m or 1h"
WORDS = {
    "missing": "is missing",
    "extra_forbidden": "no such field; see {see} for the fields there are",
    "invalid_key": "should have names that are text; put them between quotes",
    **dict.fromkeys(("string_type", "string_unicode"), _TEXT),
    "string_too_short": "should have at least {min_length} characters",
    "string_too_long": "should have at most {max_length} characters",
    "string_pattern_mismatch": "should be of the pattern {pattern}",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), _WHOLE),
    "int_parsing_size": "should be a whole number of a usual size",
    **dict.fromkeys(("float_type", "float_parsing"), _NUMBER),
    "finite_number": "should be a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), _CHOICE),
    **dict.fromkeys(("literal_error", "enum"), "should be {expected}"),
    "greater_than": "should be greater than {gt}",
    "greater_than_equal": "should be at least {ge}",
    "less_than": "should be less than {lt}",
    "less_than_equal": "should be at most {le}",
    "multiple_of": "should be a multiple of {multiple_of}",
    "too_short": "should have at least {min_length} of them",
    "too_long": "should have at most {max_length} of them",
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"), _LIST),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type"), _MAPPING),
    **dict.fromkeys(("datetime_type", "datetime_parsing", "datetime_from_date_parsing", "timezone_aware"), _TIME),
    **dict.fromkeys(("datetime_object_invalid", "timezone_naive", "timezone_offset"), _TIME),
    **dict.fromkeys(("date_type", "date_parsing", "date_from_datetime_parsing", "date_from_datetime_inexact"), _DAY),
    **dict.fromkeys(("time_delta_type", "time_delta_parsing"), _PERIOD),
    **dict.fromkeys(("json_type", "json_invalid"), "should be JSON"),
    **dict.fromkeys(("url_type", "url_parsing", "url_scheme"), "should be an address, such as https://example.org"),
    **dict.fromkeys(("uuid_type", "uuid_parsing"), "should be a UUID"),
}


def in_words(problem: Mapping[str, Any], see: str) -> str:
    """What is wrong, without the value, which may be anything; the page `see` describes the fields there are."""
    if (words := WORDS.get(problem["type"])) is not None:
        return words.format_map({**problem.get("ctx", {}), "see": see})
    said = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return said.replace("Input should", "should", 1)
