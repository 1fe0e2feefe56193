"""Streams, prices and alert routes have one reader of YAML: whatever a file holds, it answers in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic_core._pydantic_core import list_all_errors

from pipeline_platform.alerts.routes import load_routes
from pipeline_platform.core.mistakes import WORDS, in_words
from pipeline_platform.core.streams import load_spec
from pipeline_platform.core.yaml_tree import DEEPEST, LARGEST, MOST_VALUES
from pipeline_platform.errors import PermanentError
from pipeline_platform.sources.catalog import load_plan

READERS: dict[str, Callable[[Path], object]] = {
    "streams": load_spec,
    "prices": load_plan,
    "routes": lambda path: load_routes(path, ["telemetry"]),
}
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new}\n  <<: [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
ODD = [
    ("x: " + "[" * 5000, 1, "nested too deeply"),
    ("x:\n " + "{a: " * 5000, 2, "nested too deeply"),
    ("- " * 5000, 1, "nested too deeply"),
    ("? " * 5000, 1, "nested too deeply"),
    ("[" * DEEPEST + "a" + "]" * DEEPEST, 1, "nested too deeply"),
    ("x: &a [*a]", 1, "alias of itself"),
    (BOMB, None, "of too much"),
    (MERGED, None, "of too much"),
    ("x: [" + "a, " * MOST_VALUES + "]", 1, f"more than {MOST_VALUES} values"),
    ("x: *nowhere", 1, "undefined alias"),
    ("x:\n  *" + "n" * 5000, 2, "undefined alias"),
    ("x:\n\t- a", 2, "indented with a tab; use spaces"),
    ("x: 1\nx: 2", 2, "given twice"),
    ("a:\n  b: 1\n  b: 2", 3, "given twice"),
    ("x: 1\ny: \x00", 2, "a character that no text has"),
    ("x: \x1b[31m", 1, "a character that no text has"),
    ("a: 1\n---\nb: 2", 2, "several documents"),
    ("a: !!python/object/apply:os.system [id]", 1, "tag"),
    ("a: !mine b", 1, "tag"),
    ("a: 1\nb: 2025-13-45", 2, "looks like a number, a date or the like"),
    ("a: !!timestamp soon", 1, "looks like a number, a date or the like"),
    ("a: !!int ''", 1, "looks like a number, a date or the like"),
    ("a: !!bool maybe", 1, "looks like a number, a date or the like"),
    ("a: " + "9" * 5000, 1, "looks like a number, a date or the like"),
    ("a: 1" + ":59" * 50_000, 1, "looks like a number, a date or the like"),
    ("a: !!binary é", 1, "base64"),
    ("? [a]\n: 1", 1, "plain text"),
    ("x: [", 1, "not YAML"),
    ("", 1, "is a mapping with"),
    ("# nothing", 1, "is a mapping with"),
    ("- a", 1, "is a mapping with"),
    ("just text", 1, "is a mapping with"),
]
BYTES = [
    (b"a: 1\nb: caf\xe9", 2, "it is not UTF-8"),
    (b"\x89PNG\r\n\x1a\n\x00\x00", 1, "it is not UTF-8"),
    ("a: 1".encode("utf-16"), None, "it is UTF-16; save it as UTF-8"),
    ("\ufeffa: 1".encode("utf-16-be"), None, "it is UTF-16; save it as UTF-8"),
    ("a: 1".encode("utf-16-le"), 1, "a character that no text has"),
    (b"\x00" * 100, 1, "a character that no text has"),
    (b"#" * LARGEST + b"#", None, f"larger than {LARGEST // 1024} KiB"),
]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("content", "line", "said"), [*((text.encode(), *rest) for text, *rest in ODD), *BYTES])
def test_an_odd_file_is_refused_in_one_sentence(
    tmp_path: Path, reader: str, content: bytes, line: int | None, said: str
) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    with pytest.raises(PermanentError) as refused:
        READERS[reader](path)
    told = str(refused.value)
    assert told.startswith(f"{path}, line {line}" if line else str(path))
    assert said in told
    assert "\n" not in told
    assert len(told) < len(str(path)) + 300


@pytest.mark.parametrize("reader", READERS)
def test_what_cannot_be_read_is_named(tmp_path: Path, reader: str) -> None:
    for path in (tmp_path, tmp_path / "none.yaml", tmp_path / ("n" * 300)):
        with pytest.raises(PermanentError, match=r"cannot be read: [A-Z]"):
            READERS[reader](path)


@pytest.mark.parametrize(
    ("reader", "text", "said"),
    [
        ("streams", "name: a\ndimensions: [d]", "line 1, field measures: is missing"),
        ("streams", "name: 5\ndimensions: [d]\nmeasures: [m]", "line 1, field name: should be text"),
        ("streams", "name: a\ndimensions: {d: 5}\nmeasures: [m]", "field dimensions.d: should be a mapping"),
        ("streams", "name: a\ndimensions: [d]\nmeasures: {m: {required: 7}}", "m.required: should be true or false"),
        ("streams", "name: a\ndimensions: []\nmeasures: [m]", "field dimensions: should have at least 1 of them"),
        (
            "streams",
            "name: a\ndimensions: [d]\nmeasures: [m]\npolicies: {retention_days: 1.5}",
            "line 4, field policies.retention_days: should be a whole number",
        ),
        ("streams", "name: a\ndimensions: [d]\nmeasures: [m]\n5: 6", "field 5: "),
        ("prices", "sources: {a: {instruments: {A-B: '" + "x" * 9000 + "?'}}}", "x..."),
        ("prices", "sources: 5", "line 1, field sources: should be a mapping"),
        ("prices", "sources: {binance: 5}", "field sources.binance: should be a mapping"),
        ("prices", "sources: {binance: {instruments: [a]}}", "sources.binance.instruments: should be a mapping"),
        ("prices", "sources: {binance: {instruments: {BTC-USD: 5}}}", "instruments.BTC-USD: should be text"),
        ("prices", "sources: {a: {instruments: {A-B: C}, budget: {weight: x}}}", "budget.weight: should be a number"),
        ("routes", "routes: 5", "line 1, field routes: should be a list"),
        ("routes", "routes: [a]", "line 1, field routes.1: should be a mapping"),
        ("routes", "routes: [{name: a, url: 5, format: json}]", "field routes.1.url: should be text"),
        (
            "routes",
            "routes: [{name: a, url: u, format: json, digest_seconds: x}]",
            "digest_seconds: should be a number",
        ),
        ("routes", "routes: [{name: a, url: u, format: json, streams: 5}]", "field routes.1.streams: should be"),
    ],
)
def test_a_wrong_value_is_told_in_our_words(tmp_path: Path, reader: str, text: str, said: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(PermanentError) as refused:
        READERS[reader](path)
    told = str(refused.value)
    assert said in told
    assert len(told) < 1000
    assert all(foreign not in told for foreign in ("Input", "valid", "Field", "instance", "[", "  "))


def test_every_finding_of_pydantics_has_words_that_follow_a_fields_name() -> None:
    known = {each["type"]: each for each in list_all_errors()}
    assert set(WORDS) <= set(known)
    for kind, each in known.items():
        problem = {"type": kind, "msg": each["example_message_python"], "ctx": each.get("example_context") or {}}
        assert "Input should" not in in_words(problem, "docs/x.md"), kind
