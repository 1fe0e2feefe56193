"""Aggregates as JSON, CSV and Arrow, filtered and in pages."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pyarrow as pa
import pytest
import sqlalchemy as sa

from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse.migrate import migrate
from pipeline_platform_tests.integration.batches import NOW_MS, entry, load_entries
from pipeline_platform_tests.integration.test_gateway.kit import Client, Pipeline, Shared, serving

NOW = datetime.now(UTC).replace(second=30, microsecond=0) - timedelta(minutes=30)
PATH = "/v1/streams/telemetry/aggregates"


@pytest.fixture
def loaded(client: Client, pipeline: Pipeline) -> Client:
    """Five minutes of three series of two events each."""
    events = [
        {
            "source": source,
            "metric": "m",
            "value": minute + extra,
            "ts": (NOW + timedelta(minutes=minute, seconds=extra)).isoformat(),
        }
        for minute in range(5)
        for source in ("a", "b", "c'\"; drop")
        for extra in (0, 10)
    ]
    assert client.post(events).status_code == 202
    pipeline.run()
    return client


def pages(client: Client, query: str) -> list[dict[str, Any]]:
    """All rows, page by page."""
    rows: list[dict[str, Any]] = []
    cursor = ""
    while True:
        answer = client.get(f"{PATH}?{query}{cursor}")
        assert answer.status_code == 200, answer.text
        rows += answer.json()["data"]
        if answer.json()["next_cursor"] is None:
            return rows
        assert 'rel="next"' in answer.headers["Link"]
        cursor = f"&cursor={answer.json()['next_cursor']}"


def test_pages_hold_every_row_once_in_order(loaded: Client) -> None:
    whole = pages(loaded, "limit=1000")
    assert len(whole) == 15
    assert pages(loaded, "limit=4") == pages(loaded, "limit=1") == pages(loaded, "limit=15") == whole
    keys = [(row["window_start"], row["source"]) for row in whole]
    assert keys == sorted(keys)
    row = whole[0]
    assert (row["source"], row["events"], row["value_count"], row["value_sum"]) == ("a", 2, 2, 10.0)
    assert (row["value_min"], row["value_max"], row["value_avg"], row["value_var"]) == (0.0, 10.0, 5.0, 25.0)
    assert row["window_start"].endswith("Z")


def test_dimensions_and_half_open_range(loaded: Client) -> None:
    assert {row["source"] for row in pages(loaded, "where.source=a&limit=2")} == {"a"}
    assert {row["source"] for row in pages(loaded, "where.source=a&where.source=b&where.metric=m")} == {"a", "b"}
    assert {row["source"] for row in pages(loaded, "where.source=c'%22%3B%20drop")} == {"c'\"; drop"}
    assert pages(loaded, "where.source=none") == []
    first = NOW.replace(second=0)
    start, end = first + timedelta(minutes=1), first + timedelta(minutes=3)
    millis = [int(moment.timestamp() * 1000) for moment in (start, end)]
    by_millis = pages(loaded, f"from={millis[0]}&to={millis[1]}")
    by_text = pages(loaded, f"from={start.isoformat()}&to={end.isoformat()}&limit=2")
    assert by_millis == by_text
    assert len(by_millis) == 6
    assert pages(loaded, f"to={millis[0] - 3_600_000}") == []


def test_csv_and_arrow_agree_with_json(loaded: Client) -> None:
    whole = pages(loaded, "limit=1000")
    answer = loaded.get(f"{PATH}?format=csv&limit=9")
    assert answer.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    answer = loaded.get(f"{PATH}?format=csv&limit=9&cursor={answer.headers['X-Next-Cursor']}")
    rows += list(csv.DictReader(io.StringIO(answer.text)))
    assert "X-Next-Cursor" not in answer.headers
    assert [(row["window_start"], row["source"], float(row["value_sum"])) for row in rows] == [
        (row["window_start"], row["source"], row["value_sum"]) for row in whole
    ]
    answer = loaded.get(f"{PATH}?format=arrow&limit=15")
    assert answer.headers["Content-Type"] == "application/vnd.apache.arrow.stream"
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.num_rows == 15
    assert table["value_sum"].to_pylist() == [row["value_sum"] for row in whole]
    empty = pa.ipc.open_stream(loaded.get(f"{PATH}?format=arrow&where.source=none").content).read_all()
    assert empty.schema == table.schema


@pytest.mark.parametrize(
    ("query", "status", "named"),
    [
        ("window=1h", 422, "window"),
        ("from=yesterday", 422, "from"),
        ("from=2026-01-01T00:00:00", 422, "from"),
        ("to=1900-01-01T00:00:00Z", 422, "to"),
        ("from=0001-01-01T00:00:00%2B23:59", 422, "from"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", 422, "from"),
        ("format=xml", 422, "format"),
        ("limit=0", 422, "limit"),
        ("limit=10001", 422, "limit"),
        ("colour=red", 422, "colour"),
        ("where.source=%00", 422, "where.source"),
        ("source=a", 422, "there are window, from, to, format, spreadsheet, limit, cursor, where.source, where.metric"),
        ("where.colour=red", 422, "where.colour"),
        ("where.=a", 422, "where."),
        ("where.where.source=a", 422, "where.where.source"),
        ("WHERE.source=a", 422, "WHERE.source"),
        ("where.limit=1", 422, "where.limit"),
        ("cursor=zzz", 400, "cursor"),
        ("cursor=", 400, "cursor"),
        ("cursor=%C3%BC", 400, "cursor"),
        ("cursor=WzEsMiwzXQ", 400, "cursor"),
    ],
)
def test_a_bad_parameter_is_named(shared: Shared, query: str, status: int, named: str) -> None:
    answer = shared.client.get(f"{PATH}?{query}")
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert named in answer.text


def test_a_cursor_is_good_for_its_own_query_only(loaded: Client) -> None:
    cursor = loaded.get(f"{PATH}?limit=2&where.source=a").json()["next_cursor"]
    assert loaded.get(f"{PATH}?limit=2&where.source=a&cursor={cursor}").status_code == 200
    assert loaded.get(f"{PATH}?limit=2&where.source=b&cursor={cursor}").status_code == 400
    for place in range(0, len(cursor), 7):
        changed = cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :]
        assert loaded.get(f"{PATH}?limit=2&where.source=a&cursor={changed}").status_code in (200, 400)


ODD = ("limit", "cursor", "window", "from", "to", "format", "spreadsheet", "where", "order", "select", "place")


def test_a_dimension_may_be_called_like_anything_the_api_has(
    settings: Settings, engine: sa.Engine, connected: Callable[..., Client]
) -> None:
    spec = StreamSpec.model_validate({"name": "values", "dimensions": list(ODD), "measures": ["cursor_", "bucket"]})
    migrate(engine, [spec])
    events = [{**{name: f"{name} {n}" for name in ODD}, "cursor_": n, "bucket": n, "ts": NOW_MS} for n in range(3)]
    assert load_entries(engine, spec, entry(0, *map(orjson.dumps, events))).loaded == 3
    asked = f"/v1/streams/values/aggregates?from={NOW_MS}&to={NOW_MS + 60_000}&limit=10"
    with serving(settings, {spec.name: spec}) as base:
        client = connected(base, "read")
        for name in ODD:
            rows = client.get(f"{asked}&where.{name}={name} 0&where.{name}={name} 2").json()["data"]
            assert [(row[name], row["bucket_sum"]) for row in rows] == [(f"{name} 0", 0.0), (f"{name} 2", 2.0)]
            assert client.get(f"{asked}&where.{name}=5").json()["data"] == []
