"""A name that cannot work is refused by file, line and field; all others may be had, however odd they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline_platform.core.names import (
    INDEXES,
    LONGEST_IDENTIFIER,
    LONGEST_STREAM,
    MEASURE_SUFFIXES,
    OWN_COLUMNS,
    RESERVED,
    SUFFIXES,
    SYSTEM_COLUMNS,
    TABLES,
    derived_from,
    why_no_field,
    why_no_stream,
)
from pipeline_platform.core.streams import StreamSpec, load_specs, parse_spec
from pipeline_platform.errors import SpecError
from pipeline_platform.gateway.openapi import describe
from pipeline_platform.warehouse.stream_tables import stream_tables

LISTED = """name: odd
dimensions:
  - source
  - {dimension}
measures:
  {measure}:
"""
ODD = ["limit", "cursor", "window", "from", "to", "format", "spreadsheet", "where", "strict", "wait", "select", "user"]
ODD += ["order", "lateral", "place", "bucket", "oid", "count", "sum", "first", "type", "a" * 40, "x_", "x__y", "z9"]
FIELDS: dict[str, object] = {"dimensions": ["source"], "measures": ["m"]}


def refusal(dimension: str = "d", measure: str = "m", stream: str = "odd") -> str:
    """What is said of a file with these names."""
    text = LISTED.format(dimension=dimension, measure=measure).replace("odd", stream, 1)
    with pytest.raises(SpecError) as error:
        parse_spec(text, "mine.yaml")
    return str(error.value)


@pytest.mark.parametrize("name", sorted(OWN_COLUMNS | SYSTEM_COLUMNS))
def test_a_column_that_is_there_anyway_is_no_field(name: str) -> None:
    why = "(this name is the platform's own|PostgreSQL has a column).*; choose another"
    assert re.match(rf"mine.yaml, line 4, field dimensions.{name}: {why}", refusal(dimension=name))
    assert re.match(rf"mine.yaml, line 6, field measures.{name}: {why}", refusal(measure=name))


@pytest.mark.parametrize("name", ["X", "xmIn", "9a", "_a", "a-b", "a.b", "a b", "", "é", "a" * 41, "a$", "where.a"])
def test_what_is_no_name_is_no_field(name: str) -> None:
    told = refusal(dimension=f"'{name}'")
    assert told.startswith(f"mine.yaml, line 4, field dimensions.{name}: a field's name is")


@pytest.mark.parametrize(("word", "value"), [("on", True), ("no", False), ("null", None), ("1", 1), ("~", None)])
def test_a_word_that_yaml_reads_as_something_else_has_to_be_quoted(word: str, value: object) -> None:
    why = rf"YAML reads a name as {value!r}; put it between quotes"
    assert re.match(f"mine.yaml, line 2, field dimensions: {why}", refusal(dimension=word))
    assert re.match(f"mine.yaml, line 5, field measures: {why}", refusal(measure=word))


@pytest.mark.parametrize(
    ("first", "second"),
    [("a", "a_max"), ("a", "a_first_ts"), ("a_b", "a_b_avg"), ("count", "count_count"), ("x", "x_m2")],
)
def test_two_names_that_become_one_column_are_refused(first: str, second: str) -> None:
    told = refusal(dimension=second, measure=first)
    assert told.startswith(f"mine.yaml, line 6, field measures.{first}: {second} would name both a column of the ")
    assert derived_from(first).isdisjoint(derived_from(second))


@pytest.mark.parametrize(
    "name",
    [
        *sorted(TABLES | INDEXES),
        *(f"telemetry{suffix}" for suffix in SUFFIXES),
        *("telemetry_events_20260101", "telemetry_events_20260101_ts_brin", "orders_series_key", "orders_series_pkey"),
        *sorted(RESERVED),
        *("a_minutes_by_time", "a_event_ids_by_batch", "assets_pkey", "alerts_id_seq", "pipeline_alembic_version_pkc"),
        *("price", "pg_class", "pg_mine", "l" * (LONGEST_STREAM + 1), "Big", "a-b", "a/b", "9", "_a"),
    ],
)
def test_a_name_that_the_warehouse_or_postgresql_has_is_no_stream(name: str) -> None:
    assert refusal(stream=f"'{name}'").startswith("mine.yaml, line 1, field name: ")


@pytest.mark.parametrize(
    "name", ["prices", "price_", "events", "series", "days", "users_", "values", "pg", "key", "a_b"]
)
def test_a_stream_may_be_called_like_much_else(name: str) -> None:
    assert why_no_stream(name) is None


def test_two_streams_that_become_one_job_are_refused(tmp_path: Path) -> None:
    for name in ("a_batch", "a", "b_batch"):
        text = LISTED.format(dimension="d", measure="m").replace("odd", name, 1)
        (tmp_path / f"{name}.yaml").write_text("description: x\n" + text)
    with pytest.raises(SpecError, match=r"a_batch\.yaml, line 2, field name: the streams 'a' and 'a_batch' cannot"):
        load_specs(tmp_path)
    (tmp_path / "a.yaml").unlink()
    assert {"a_batch", "b_batch"} < set(load_specs(tmp_path))


@pytest.mark.parametrize("name", [*ODD, *sorted(RESERVED - {*ODD})])
def test_an_odd_name_is_a_field(name: str) -> None:
    assert why_no_field(name) is None
    assert set(parse_spec(LISTED.format(dimension=f"'{name}'", measure="m"), "x").dimensions) == {"source", name}
    assert set(parse_spec(LISTED.format(dimension="d", measure=f"'{name}'"), "x").measures) == {name}


def test_every_name_fits_and_every_column_is_in_the_list() -> None:
    """Tables and views of a stream with the longest names there are."""
    stream, dimension, measure = "s" * LONGEST_STREAM, "d" * 40, "m" * 40
    fields: dict[str, object] = {"dimensions": [dimension], "measures": [measure], "unique_event_id": True}
    tables = stream_tables(StreamSpec.model_validate({"name": stream, **fields}))
    columns = {column.name for table in tables.tables for column in table.columns}
    columns |= {column.name for view in tables.views for column in view.columns}
    assert columns - {dimension, measure} - OWN_COLUMNS == {f"{measure}_{suffix}" for suffix in MEASURE_SUFFIXES}
    relations = {table.name for table in tables.tables} | {view.name for view in tables.views}
    relations |= {str(index.name) for table in tables.tables for index in table.indexes}
    assert max(map(len, columns | relations)) <= LONGEST_IDENTIFIER
    assert all(why_no_stream(name.replace(stream, "short")) for name in relations - {stream})


def test_no_two_streams_share_a_name_in_the_document_of_the_api() -> None:
    names = ("a_b", "a__b", "ab", "a_b_", "audit_event", "problem")
    specs = {name: StreamSpec.model_validate({"name": name, **FIELDS}) for name in names}
    there = "/v1/streams/{stream}"
    document = describe({"paths": {f"{there}/aggregates": {"get": {"parameters": []}}}}, specs, f"{there}/events")
    assert {f"{name}.event" for name in names} <= set(document["components"]["schemas"])
    (where,) = document["paths"][f"{there}/aggregates"]["get"]["parameters"]
    assert (where["name"], where["schema"]["type"]) == ("where.source", "array")
