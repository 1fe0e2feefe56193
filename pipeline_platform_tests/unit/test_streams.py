"""A stream is declared in a file; a mistake in it is named by file, line and field."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline_platform.core.names import MEASURE_SUFFIXES, TABLES
from pipeline_platform.core.streams import load_spec, load_specs, parse_spec
from pipeline_platform.errors import SpecError
from pipeline_platform.warehouse.dictionary import ORDER
from pipeline_platform_tests.unit.examples import MINIMAL


def refusal(text: str) -> str:
    with pytest.raises(SpecError) as error:
        parse_spec(text, "mine.yaml")
    return str(error.value)


def test_no_stream_is_named_like_a_table_of_the_platforms() -> None:
    assert set(ORDER) <= TABLES


def test_the_shipped_streams_load() -> None:
    specs = load_specs()
    assert set(specs) == {"telemetry", "orders"}
    assert specs["telemetry"].fields == {"source", "metric", "value", "ts", "event_id"}
    assert specs["orders"].measures["amount"].negatives == "reject"
    assert specs["orders"].policies.late_after == timedelta(days=1)


def test_a_list_stands_for_fields_without_options() -> None:
    assert parse_spec(MINIMAL, "a") == parse_spec("name: minimal\ndimensions: {source: }\nmeasures:\n  value:\n", "b")


@pytest.mark.parametrize(
    ("addition", "line", "field"),
    [
        ("polices: {}", 4, "polices"),
        ("unique_event_id: maybe", 4, "unique_event_id"),
        ("unique_event_id: true\npolicies:\n  unique_for: 59s", 6, "policies.unique_for"),
        ("unique_event_id: true\npolicies:\n  unique_for: 91d", 6, "policies.unique_for"),
        ("unique_event_id: true\npolicies:\n  retention_days: 6", 5, "policies.unique_for"),
        ("policies:\n  unique_for: 7", 5, "policies.unique_for"),
        ("policies:\n  late_after: soon", 5, "policies.late_after"),
        ("policies:\n  retention_days: 0", 5, "policies.retention_days"),
        ("policies:\n  retention_days: 3661", 5, "policies.retention_days"),
        ("policies:\n  retention_days: 36500", 5, "policies.retention_days"),
        (f"policies:\n  retention_days: 1{'0' * 30}", 5, "policies.retention_days"),
        ("policies:\n  retention_days: 3600\n  future_tolerance: 61d", 5, "policies.retention_days"),
        ("policies:\n  retention_days: 1\n  future_tolerance: 3660d", 6, "policies.future_tolerance"),
        ("policies:\n  future_tolerance: 36500d", 5, "policies.future_tolerance"),
        ("policies:\n  retention_days: 1\n  unknown_fields: maybe", 6, "policies.unknown_fields"),
        ("policies: []", 4, "policies"),
        ("description: 5", 4, "description"),
        ("name: again", 4, "name"),
        ("policies:\n  windows: 1m\n  windows: 1m", 6, "windows"),
    ],
)
def test_a_wrong_option_is_named_by_file_line_and_field(addition: str, line: int, field: str) -> None:
    assert re.match(rf"mine\.yaml, line {line}, field {field}: \S", refusal(MINIMAL + addition + "\n"))


@pytest.mark.parametrize(
    ("text", "line", "field"),
    [
        ("name: Big\ndimensions: [a]\nmeasures: [b]", 1, "name"),
        ("name: 5\ndimensions: [a]\nmeasures: [b]", 1, "name"),
        ("name: x\ndimensions: []\nmeasures: [b]", 2, "dimensions"),
        ("name: x\ndimensions: 5\nmeasures: [b]", 2, "dimensions"),
        ("name: x\ndimensions: [a, a]\nmeasures: [b]", 2, "dimensions"),
        ("name: x\ndimensions:\n  a:\n  Bad:\nmeasures: [b]", 4, "dimensions.Bad"),
        ("name: x\ndimensions:\n  a: {max_length: 0}\nmeasures: [b]", 3, "dimensions.a.max_length"),
        ("name: x\ndimensions:\n  a: {max_length: 2, default: abc}\nmeasures: [b]", 3, "dimensions.a"),
        ("name: x\ndimensions: [a]\nmeasures:\n  b:\n  a:\n", 5, "measures.a"),
        ("name: x\ndimensions: [a]\nmeasures:\n  b: {negatives: maybe}", 4, "measures.b.negatives"),
        ("name: x\ndimensions: [b_max]\nmeasures:\n  a:\n  b:\n", 5, "measures.b"),
        ("name: x\nmeasures: [b]", 1, "dimensions"),
    ],
)
def test_a_wrong_declaration_is_named_by_file_line_and_field(text: str, line: int, field: str) -> None:
    assert re.match(rf"mine\.yaml, line {line}, field {field}: \S", refusal(text))


def test_every_mistake_of_a_file_is_told_at_once() -> None:
    told = refusal("name: X\ndimensions: []\nmeasures: [v]\nmore: 1\n").splitlines()
    assert [line.split(":")[0] for line in told] == [
        "mine.yaml, line 1, field name",
        "mine.yaml, line 2, field dimensions",
        "mine.yaml, line 4, field more",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("- a", 1),
        ("just text", 1),
        ("name: a\ndimensions: [", 2),
        ("name: a\n\tb: c", 2),
        ("a: 1\n---\nb: 2", 2),
        ("a: 1\nb: \x00", 2),
        ("? [a]\n: 1", 1),
        ("a: !!python/object:os.system x", 1),
        ("a: *nowhere", 1),
    ],
)
def test_what_is_no_mapping_in_yaml_is_refused_by_line(text: str, line: int) -> None:
    assert re.match(rf"mine\.yaml, line {line}: \S", refusal(text))


@pytest.mark.parametrize("text", ["description: 2025-13-45", "x: &a\n  y: *a"])
def test_odd_yaml_is_a_refusal_and_no_traceback(text: str) -> None:
    assert refusal(MINIMAL + text).startswith("mine.yaml")


@pytest.mark.parametrize("suffix", MEASURE_SUFFIXES)
def test_a_dimension_is_not_named_like_an_aggregate(suffix: str) -> None:
    assert "field measures.value:" in refusal(MINIMAL.replace("source", f"value_{suffix}"))


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90s", timedelta(seconds=90)),
        ("5m", timedelta(minutes=5)),
        ("1h", timedelta(hours=1)),
        ("30 d", timedelta(days=30)),
        ("0s", timedelta(0)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, duration: timedelta) -> None:
    spec = parse_spec(f"{MINIMAL}policies: {{late_after: {text}, future_tolerance: {text}}}", "mine.yaml")
    assert (spec.policies.late_after, spec.policies.future_tolerance) == (duration, duration)


@pytest.mark.parametrize("text", ["5", "m", "-5m", "1.5h", "5w", "1h30m", "null", "[]", "99999999d", "999999999999d"])
def test_other_durations_are_refused(text: str) -> None:
    assert "line 4, field policies.late_after" in refusal(f"{MINIMAL}policies: {{late_after: {text}}}")


def test_a_users_file_replaces_a_shipped_stream_and_adds_others(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(MINIMAL.replace("minimal", "telemetry"))
    (tmp_path / "b.yaml").write_text(MINIMAL)
    (tmp_path / "notes.txt").write_text("no stream")
    specs = load_specs(tmp_path)
    assert set(specs) == {"telemetry", "orders", "minimal"}
    assert set(specs["telemetry"].dimensions) == {"source"}


def test_two_files_of_one_folder_declare_different_streams(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(MINIMAL)
    (tmp_path / "b.yaml").write_text(MINIMAL)
    with pytest.raises(
        SpecError, match=r"b\.yaml, line 1, field name: the stream 'minimal' is already declared in .*a\.yaml"
    ):
        load_specs(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="nowhere is not a folder"):
        load_specs(tmp_path / "nowhere")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(SpecError, match=r"latin\.yaml, line 1: cannot be read: it is not UTF-8"):
        load_spec(tmp_path / "latin.yaml")
