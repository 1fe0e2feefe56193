"""Edits: what they make of an event, and what they refuse to be or to do."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pipeline_platform.core.edits import MOST_CHARACTERS, Edit
from pipeline_platform.errors import EditError, PermanentError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=3), JSON, max_size=4)


def apply(document: dict[str, Any], event: Any) -> Any:
    """The event that the edit makes of another."""
    return json.loads(Edit.parse(document).apply(json.dumps(event).encode()))


# The examples of RFC 7396, appendix A, whose target is an object.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_is_that_of_the_rfc(target: object, patch: object, result: object) -> None:
    assert apply({"merge": patch}, target) == result


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_holds_afterwards_and_twice_is_once(target: dict[str, Any], patch: dict[str, Any]) -> None:
    once = apply({"merge": patch}, target)
    assert apply({"merge": patch}, once) == once
    for name, value in patch.items():
        assert (name not in once) if value is None else isinstance(value, dict) or once[name] == value
    assert {name: once[name] for name in once.keys() - patch.keys()} == {
        name: target[name] for name in target.keys() - patch.keys()
    }


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("value * 1.8 + 32", 39.2),
        ("-value", -4),
        ("(value + 1) / 2 - value % 3", 1.5),
        ("abs(-value)", 4),
        ("round(value / 3, 2)", 1.33),
        ("round(value / 3)", 1),
        ("float(text)", 7.5),
        ("int(value / 3)", 1),
        ("int('+07')", 7),
        ("int('1.795780762035e+12')", 1795780762035),
        ("float(' 1e2 ')", 100.0),
        ("str(value) + 'x'", "4x"),
        ("upper(strip(name))", "AB"),
        ("lower('ÄB') + name", "äb ab "),
        ("'constant'", "constant"),
        ("'1_000'", "1_000"),
        ("1.5e1 + .5", 15.5),
        ("3", 3),
    ],
)
def test_an_expression_computes(expression: str, value: object) -> None:
    event = {"value": 4, "text": "7.5", "name": " ab "}
    assert apply({"set": {"out": expression}}, event) == event | {"out": pytest.approx(value)}


def test_renaming_comes_first_then_the_patch_then_expressions_of_what_there_is_then() -> None:
    document = {
        "rename": {"val": "value", "a": "b", "b": "a"},
        "merge": {"unit": "F", "factor": 2},
        "set": {"value": "value * factor", "factor": "value", "unit": "lower(unit)"},
    }
    assert apply(document, {"val": 3, "a": 1, "b": 2, "x": 0}) == {
        **{"value": 6, "b": 1, "a": 2, "x": 0},
        **{"unit": "f", "factor": 3},
    }


@pytest.mark.parametrize(
    ("document", "payload", "message"),
    [
        ({"set": {"value": "value * 2"}}, b"not json", "not JSON"),
        ({"set": {"value": "value * 2"}}, b"[1]", "not a JSON object"),
        ({"set": {"value": "value * 2"}}, b"{}", "no field 'value'"),
        ({"set": {"value": "value * 2"}}, b'{"value":null}', "no field 'value'"),
        ({"set": {"value": "value * 2"}}, b'{"value":"2"}', "'2' is not a number"),
        ({"set": {"value": "value * 2"}}, b'{"value":true}', "True is not a number"),
        ({"set": {"value": "value + 'x'"}}, b'{"value":2}', "'x' is not a number"),
        ({"set": {"value": "1 / value"}}, b'{"value":0}', "cannot be computed"),
        ({"set": {"value": "value * 1e300"}}, b'{"value":1e300}', "not be a finite"),
        ({"set": {"value": "float(value)"}}, b'{"value":"1e400"}', "not be a finite"),
        ({"set": {"value": "float(value)"}}, b'{"value":"nan"}', "'nan' is not a number"),
        ({"set": {"value": "float(value)"}}, b'{"value":"1_000"}', "'1_000' is not a number"),
        ({"set": {"value": "float(value)"}}, '{"value":"\u0661\u0662"}'.encode(), "is not a number"),
        ({"set": {"value": "int(value)"}}, b'{"value":"1_0"}', "'1_0' is not a number"),
        ({"set": {"value": "int(value)"}}, b'{"value":"1.5"}', "'1.5' is not a whole number"),
        ({"set": {"value": "int(value)"}}, b'{"value":"x"}', "cannot be computed"),
        ({"set": {"value": "int(value)"}}, b'{"value":1e300}', "64-bit"),
        ({"set": {"value": "lower(value)"}}, b'{"value":1}', "lower cannot take 1"),
        ({"set": {"value": "round(value, value)"}}, b'{"value":1000}', "whole digits"),
        ({"set": {"value": "value + value"}}, b'{"value":"%s"}' % (b"x" * 40_000), "longer than"),
        ({"rename": {"val": "value"}}, b'{"val":1,"value":2}', "has a field 'value' already"),
    ],
)
def test_an_edit_that_does_not_apply_says_why(document: dict[str, Any], payload: bytes, message: str) -> None:
    with pytest.raises(EditError, match=message):
        Edit.parse(document).apply(payload)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "An edit is an object such as"),
        ({}, "An edit is an object such as"),
        ({"sett": {}}, "no 'sett'"),
        ({"merge": 1}, "merge is a JSON object"),
        ({"rename": {"a": 1}}, "values are texts"),
        ({"rename": {"a": "c", "b": "c"}}, "the same name"),
        ({"set": {"a": 1}}, "values are texts"),
        ({"set": {"a": "1 +"}}, "expression of a is not one"),
        ({"set": {"a": "a.b"}}, "may have fields, numbers"),
        ({"set": {"a": "a[0]"}}, "may have fields"),
        ({"set": {"a": "__import__('os')"}}, "may have fields"),
        ({"set": {"a": "abs"}}, None),
        ({"set": {"a": "abs.__class__"}}, "may have fields"),
        ({"set": {"a": "(lambda: 1)()"}}, "may have fields"),
        ({"set": {"a": "[x for x in a]"}}, "may have fields"),
        ({"set": {"a": "2 ** 99999"}}, "may have fields"),
        ({"set": {"a": "a if a else b"}}, "may have fields"),
        ({"set": {"a": "a == b"}}, "may have fields"),
        ({"set": {"a": "f'{a}'"}}, "may have fields"),
        ({"set": {"a": "b'x'"}}, "may have fields"),
        ({"set": {"a": "True"}}, "may have fields"),
        ({"set": {"a": "abs()"}}, "too many arguments or none"),
        ({"set": {"a": "int('7', 8)"}}, "too many arguments or none"),
        ({"set": {"a": "abs(x=1)"}}, "may have fields"),
        ({"set": {"a": "abs(*a)"}}, "may have fields"),
        ({"set": {"a": "-" * 40 + "a"}}, "nested too deeply"),
        ({"set": {"a": "+".join("a" * 60)}}, "too long"),
        ({"set": {"a": "'" + "x" * MOST_CHARACTERS + "'"}}, "longer than"),
        ({"set": {"a": "(" * 200 + "a" + ")" * 200}}, None),
        ({"merge": {"a": "x" * 20_000}}, "at most"),
        ({"merge": {"a": {1, 2}}}, "JSON has not"),
        ({"set": {"a": "b * 1_000"}}, "'1_000' is not a number"),
        ({"set": {"a": "0x10"}}, "'0x10' is not a number"),
        ({"set": {"ä": "'ü' + str(0b1)"}}, "'0b1' is not a number"),
    ],
)
def test_what_is_no_edit_is_refused_when_it_is_asked_for(document: Any, message: str | None) -> None:
    if message is None:  # harmless: a field of that name, or brackets only
        with contextlib.suppress(PermanentError):
            Edit.parse(document)
        return
    with pytest.raises(PermanentError, match=message):
        Edit.parse(document)


def test_an_edit_survives_its_document() -> None:
    document = {"rename": {"val": "value"}, "merge": {"a": None}, "set": {"b": "value"}}
    assert Edit.parse(document).document() == document
    assert Edit.parse({"merge": {"a": 1}}).document() == {"merge": {"a": 1}}


@given(st.text(alphabet="ab1.+-*/%()', \"[]{}:=<>_", max_size=40))
def test_whatever_is_parsed_is_computed_or_refused(expression: str) -> None:
    try:
        edit = Edit.parse({"set": {"a": expression}})
    except PermanentError:
        return
    with contextlib.suppress(EditError):
        json.loads(edit.apply(b'{"a": 2, "b": "x"}'))
