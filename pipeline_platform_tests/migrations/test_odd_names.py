"""Every odd name that is allowed: its tables and views are made as `up` makes them, loaded, rolled up and asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import RESERVED_WORDS

from pipeline_platform.core.names import LONGEST_IDENTIFIER, LONGEST_STREAM, RESERVED, SYSTEM_COLUMNS, why_no_stream
from pipeline_platform.core.rollups import Grain, Span
from pipeline_platform.core.streams import StreamSpec, load_specs
from pipeline_platform.core.windows import to_datetime
from pipeline_platform.warehouse.migrate import migrate
from pipeline_platform.warehouse.partitions import close_days
from pipeline_platform.warehouse.queries import AggregateQuery, read_aggregates
from pipeline_platform.warehouse.reconcile import rollups_equal_facts
from pipeline_platform.warehouse.rollups import roll_up
from pipeline_platform_tests.integration.batches import NOW_MS, entry, ledger_agrees, load_entries, minutes_agree, rows

STREAMS = ("l" * LONGEST_STREAM, "values", "between", "row", "s", "key", "public", "name")
# What the API, the statements of the warehouse and the columns of the core are made of.
OURS = (
    *("limit", "cursor", "window", "from", "to", "format", "spreadsheet", "where", "strict", "wait", "field", "reason"),
    *("place", "bucket", "mean", "excluded", "old", "new", "unmarked", "grain", "origin", "start", "end", "day"),
    *("s", "e", "m", "t", "b", "f", "w", "k", "c0", "z0", "d0", "p", "window_us", "series_code", "series", "line"),
    *("entry", "value", "values", "keys", "items", "index", "name", "dtype", "metadata", "columns", "key", "type"),
    *("oid", "rowid", "id", "payload", "receipt", "state", "kind", "count", "sum", "first", "last", "avg", "a" * 40),
)
HOUR = timedelta(hours=1)


def _reserved(engine: sa.Engine) -> list[str]:
    """Words that PostgreSQL reserves: some, and all of those that SQLAlchemy does not know of and would not quote."""
    found = rows(engine, "select word from pg_get_keywords() where catcode in ('R', 'T', 'C') and word ~ '^[a-z]'")
    wanted = "select word from pg_get_keywords() where catcode in ('R', 'T')"
    assert {str(word) for (word,) in rows(engine, wanted)} == RESERVED
    words = sorted(str(word) for (word,) in found)
    return [word for word in words if word not in RESERVED_WORDS] + words[::10]


def _streams(names: list[str]) -> Iterator[StreamSpec]:
    """Streams with the names as dimensions and, which costs more, our own words as measures."""
    left = sorted(OURS, reverse=True)
    for number, start in enumerate(range(0, len(names), 16)):
        dimensions = names[start : start + 16]
        measures = [each for each in left if each not in dimensions][:9]
        left = [each for each in left if each not in measures] or ["m"]
        fields: dict[str, object] = {"dimensions": dimensions, "measures": measures, "unique_event_id": number == 0}
        stream = STREAMS[number] if number < len(STREAMS) else f"odd{number}"
        yield StreamSpec.model_validate({"name": stream, **fields})


def test_tables_a_load_rollups_and_queries(engine: sa.Engine) -> None:
    names = sorted({*OURS, *_reserved(engine)})
    specs = list(_streams(names))
    assert len(names) > 100
    assert len(specs) >= len(STREAMS) - 1
    assert {name for spec in specs for name in spec.measures} >= set(OURS)
    migrate(engine, [*load_specs().values(), *specs])
    hour = Span(to_datetime(NOW_MS * 1000), to_datetime(NOW_MS * 1000) + HOUR)
    day = Span(hour.start.replace(hour=0), hour.start.replace(hour=0) + 24 * HOUR)
    for number, spec in enumerate(specs):
        texts = {name: f"{name} of {number}" for name in spec.dimensions}
        events = [
            {**texts, **dict.fromkeys(spec.measures, value), "ts": NOW_MS, "event_id": str(value)}
            for value in (1.0, 3.0)
        ]
        loaded = load_entries(engine, spec, entry(number * 10, *map(orjson.dumps, events)))
        assert (loaded.loaded, loaded.rejected) == (2, 0)
        assert minutes_agree(engine, spec).holds
        assert roll_up(engine, spec, Grain.HOUR, hour).events == 2
        assert roll_up(engine, spec, Grain.DAY, day, recompute=True).events == 2
        assert rollups_equal_facts(engine, spec, Grain.HOUR, hour.start, hour.end).holds
        filters = {name: [value] for name, value in texts.items()}
        page = read_aggregates(engine, spec, AggregateQuery(hour.start, hour.end, filters, 10))
        (row,) = [dict(zip(page.columns, each, strict=True)) for each in page.rows]
        assert {name: row[name] for name in texts} == texts
        assert {row[f"{name}_avg"] for name in spec.measures} == {2.0}
        picked = ", ".join(f'"{name}"' if name in RESERVED else name for name in (*spec.dimensions, *spec.measures))
        assert rows(engine, f"select {picked} from {spec.name}")[0][0] == texts[next(iter(spec.dimensions))]
        if number == 0 or len(spec.name) == LONGEST_STREAM:
            assert len(close_days(engine, spec, datetime.now(UTC))) == 1
            assert ledger_agrees(engine, spec).holds
    _the_list_is_complete(engine, {spec.name for spec in specs} | set(load_specs()))


def _the_list_is_complete(engine: sa.Engine, streams: set[str]) -> None:
    """Whatever has a name in the database, a stream or a field cannot have it."""
    of_schema = "select relname from pg_class where relnamespace = '{}'::regnamespace"
    there = {str(name) for (name,) in rows(engine, of_schema.format("public"))} - streams
    assert [name for name in sorted(there) if why_no_stream(name) is None] == []
    assert max(map(len, there)) == LONGEST_IDENTIFIER
    assert all(why_no_stream(str(name)) for (name,) in rows(engine, of_schema.format("pg_catalog")))
    system = rows(engine, "select attname from pg_attribute where attrelid = 'assets'::regclass and attnum < 0")
    assert {str(name) for (name,) in system} == SYSTEM_COLUMNS
