"""The law of the shortcuts: a body is accepted exactly when each of its lines is, looked at one by one."""

from __future__ import annotations

import random

import orjson
import pytest

from pipeline_platform.cli import letter_changes
from pipeline_platform.errors import SettingError
from pipeline_platform.gateway import bodies
from pipeline_platform.gateway.json_checks import check_event
from pipeline_platform.gateway.ndjson import Bounds, from_json, from_ndjson
from pipeline_platform.gateway.problems import ProblemError

BOUNDS = Bounds(10**6, 10**4, 100, 4)
LINES = [
    b'{"a":1,"b":"x"}', b'{"a":1.5,"b":null,"c":true}', b"{}", b'{"a":"\\u00e9"}', b'{"a":{"b":[1]}}', b'{"":""}',
    b'{"a":"{}"}', b'{"a":",\\""}', b'{"a":9223372036854775808}',
]  # fmt: skip
ODD = [
    b'{"a":1', b'"b":2}', b'{"a":[{}', b"{}]}", b'{"a":{}', b"{}}", b"{},{}", b"{} {}", b'{"a":1,"a":1}', b"[]", b"[1]",
    b'{"a":"x', b'y"}', b'{"a":1e400}', b'{"a":99999999999999999999}', b'{"a":"\\u0000"}',
    b'{"a":"\\u0061","\\u0061":1}',
    b'{"a":[[[[[]]]]]}', b'{"a":NaN}', b"null", b'{"a":"\xff"}', b'{"a":-99999999999999999999}', b'{"a":"","a":""}',
]  # fmt: skip


def good(line: bytes) -> bool:
    """What one careful look says."""
    try:
        check_event(line, 0, 1, BOUNDS.depth)
    except ProblemError:
        return False
    return True


def test_the_samples_are_what_they_are_said_to_be() -> None:
    assert all(map(good, LINES))
    assert not any(map(good, ODD))


@pytest.mark.parametrize("seed", range(20))
def test_a_body_is_as_good_as_its_lines(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(200):
        lines = dice.choices(LINES + ODD * (dice.random() < 0.7), k=dice.randint(1, 5))
        body = b"\n".join(lines)
        bad = [index for index, line in enumerate(lines) if not good(line)]
        if bad:
            with pytest.raises(ProblemError) as caught:
                from_ndjson(body, BOUNDS)
            assert caught.value.extras["index"] == bad[0], body
        else:
            events = from_ndjson(body, BOUNDS)
            assert (events.data, events.count) == (body, len(lines))


@pytest.mark.parametrize("seed", range(10))
def test_an_array_is_as_good_as_its_elements(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(200):
        lines = dice.choices(LINES, k=dice.randint(1, 5))
        events = from_json(b"[" + b" ,\n ".join(lines) + b"]", BOUNDS)
        assert events.data.split(b"\n") == lines
        whole = [odd for odd in ODD if _is_json(odd)]
        at = dice.randrange(len(lines) + 1)
        lines.insert(at, dice.choice(whole))
        with pytest.raises(ProblemError) as caught:
            from_json(b"[" + b",".join(lines) + b"]", BOUNDS)
        assert caught.value.extras["index"] == at


KEPT = [
    b'{"a":1.7976931348623157e308}', b'{"a":-0}', b'{"a":1e18}', b'{"a":1E+2}', b'{"a":0.10}', b'{"a":-0.0}',
    b'{"a":0.1000000000000000055}', b'{"a":"\\u00a0"}', b'{"a":"\\u0061\\/"}', b'{ "a" : "two  spaces" }',
    b'{"a":"},{"}',
    b'{"a":"}, {","b":"]"}', b'{"a":"{"}', b'{"a":"\\"},{\\\\"}', b'{"a":{"b":[{},{}]}}', b"{}", b'{\t"a":"\xc2\xa0"}',
]  # fmt: skip
LAYOUTS = [(b"[", b",", b"]"), (b"[", b", ", b"]"), (b" [\r\n  ", b",\r\n  ", b"\r\n]\n"), (b"[ ", b"\t,\r", b" ]")]


@pytest.mark.parametrize("event", KEPT, ids=repr)
@pytest.mark.parametrize("count", [1, 2])
def test_an_element_is_handed_on_as_the_bytes_of_the_body(event: bytes, count: int) -> None:
    """So a dead letter's payload is the same, whichever door its event came by."""
    for lines in ([event] * count, [event] * count + [b'{"b":1}'], [b'{"b":"}"}'] + [event] * count):
        for before, between, behind in LAYOUTS:
            events = from_json(before + between.join(lines) + behind, BOUNDS)
            assert (events.data, events.count) == (b"\n".join(lines), len(lines))
    assert from_json(event, BOUNDS).data == event


@pytest.mark.parametrize("line_break", [b"\n", b"\r\n", b"\r", b"\n\n \n\n\n\n\n\n\n\n"], ids=repr)
@pytest.mark.parametrize("indent", [b"", b"    ", b"\t"], ids=repr)
def test_an_element_over_several_lines_is_put_on_one(line_break: bytes, indent: bytes) -> None:
    new = line_break + indent
    event = new.join([b"{", b'"a": 1e18,', b'"b": "x  y",', b'"c": [', b"-0", b"]", b"}"])
    line = b'{ "a": 1e18, "b": "x  y", "c": [ -0 ] }'
    assert from_json(event, BOUNDS).data == line
    assert from_json(b"[" + new + event + b"," + new + event + new + b"]", BOUNDS).data == line + b"\n" + line


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (b'{"a":1,"value":123456789012345678901234567890}', "Line 1: value: an integer is beyond 64 bits"),
        (b'{"a":1,"value":-1e400}', "Line 1: value: a number is too large"),
        (b'{"a":1,"value":NaN}', "Line 1: value: NaN and Infinity"),
        (b'{"a":[1,{"b":-Infinity}]}', "Line 1: a: NaN and Infinity"),
        (b'{"a":1,"b":"\\u0000"}', "Line 1: b: a text holds a NUL"),
        (b'{"a":1,"\\u0000":"b"}', "Line 1: \\u0000: a text holds a NUL"),
        (b'{"a":1,"b":{"c":"\\ud800"}}', "Line 1: b: a text holds a lone surrogate"),
        (b'{"a":1,"b":"\xff"}', "Line 1: b: byte 12 is not valid UTF-8"),
        (b'{"b":1,"b":99999999999999999999}', "Line 1: b: an integer is beyond 64 bits"),
        (b'{"b":1,"b":2}', "Line 1: the field 'b' is given twice"),
        (b'{"b":1', "Line 1: it is not JSON"),
        (b'"\\ud800"', "Line 1: a text holds a lone surrogate"),
    ],
)
def test_a_refusal_names_line_and_field(line: bytes, place: str) -> None:
    with pytest.raises(ProblemError) as caught:
        from_ndjson(line, BOUNDS)
    assert str(caught.value.detail).startswith(place)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"merge":{"value":1,"value":2}}', "the field 'value' is given twice"),
        ('{"merge":{"value":123456789012345678901234567890}}', "an integer is beyond 64 bits"),
        ('{"filter":{},"filter":{"states":["open"]}}', "the field 'filter' is given twice"),
    ],
)
def test_a_document_that_readers_disagree_about_is_no_edit(text: str, words: str) -> None:
    with pytest.raises(ProblemError, match=words):
        bodies._check(text.encode())


@pytest.mark.parametrize("text", ['{"value":1,"value":2}', '{"value":123456789012345678901234567890}'])
def test_nor_is_it_on_the_command_line(text: str) -> None:
    with pytest.raises(SettingError, match="--merge: "):
        letter_changes._merge(text)
