"""docs/warehouse.md is what the tables' comments say."""

from __future__ import annotations

from pathlib import Path

from pipeline_platform.core.streams import load_specs
from pipeline_platform.warehouse.dictionary import EXAMPLE, ORDER, dictionary
from pipeline_platform.warehouse.schema import STATES, metadata
from pipeline_platform.warehouse.stream_tables import event_ids_table, stream_tables

FILE = Path(__file__).parents[2] / "docs" / "warehouse.md"


def test_the_file_is_up_to_date() -> None:
    again = "run `python -m pipeline_platform.warehouse.dictionary > docs/warehouse.md`"
    assert FILE.read_text(encoding="utf-8") == dictionary(load_specs()[EXAMPLE]), again


def test_every_table_and_state_is_in_it() -> None:
    text = dictionary(load_specs()[EXAMPLE])
    assert set(ORDER) == set(metadata.tables)
    for state in STATES:
        assert f"| `{state}` |" in text


def test_every_table_column_and_view_column_has_a_meaning() -> None:
    for spec in load_specs().values():
        tables = stream_tables(spec)
        for table in (*metadata.tables.values(), *tables.tables, event_ids_table(spec)):
            assert table.comment, table.name
            assert [column.name for column in table.columns if not column.comment] == []
        for view in tables.views:
            assert [column.name for column in view.columns if not column.comment] == []
