"""`sql`: one statement, read only, in three forms."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import psycopg
import pytest

from pipeline_platform_tests.integration.test_cli.conftest import Stack
from pipeline_platform_tests.integration.test_cli.kit import Done, run


def ask(servers: Stack, *arguments: object, stdin: str | None = None) -> Done:
    """Runs `sql`."""
    return run("sql", *arguments, "--state-dir", servers.folder, stdin=stdin)


def test_a_table_for_people(servers: Stack) -> None:
    done = ask(servers, "select n, null as nothing, '[red]x[/]' || chr(27) as odd from generate_series(1, 3) n")
    assert done.code == 0
    assert "nothing" in done.out
    assert "[red]x[/]\\x1b" in done.out
    assert "3 rows" in done.out


def test_a_long_table_is_cut_and_says_so(servers: Stack) -> None:
    done = ask(servers, "select n from generate_series(1, 100000) n", "--limit", 10)
    assert "│ 10 " in done.out
    assert "│ 11 " not in done.out
    assert "The first 10 rows; there are more" in done.err
    assert len(ask(servers, "select n from generate_series(1, 3000) n").out.splitlines()) == 1000 + 4
    assert len(ask(servers, "select n from generate_series(1, 3000) n", "--csv").out.splitlines()) == 3001


def test_csv_and_json_for_scripts(servers: Stack, tmp_path: Path) -> None:
    query = """select 1 as a, 2 as a, 1.5::numeric as n, 12345678901234567890::numeric as big, true as yes, null as no,
               timestamptz '2026-05-01 12:00+02' as t, '{"x": [1]}'::jsonb as j, 'NaN'::float8 as nan, 'é%s' as text"""
    (tmp_path / "q.sql").write_text(query)
    (row,) = ask(servers, "--file", tmp_path / "q.sql", "--json").document
    assert row == {
        "a": 1, "a_2": 2, "n": 1.5, "big": 12345678901234567890, "yes": True, "no": None,
        "t": "2026-05-01T10:00:00+00:00", "j": {"x": [1]}, "nan": None, "text": "é%s",
    }  # fmt: skip
    header, line = csv.reader(io.StringIO(ask(servers, "--file", "-", "--csv", stdin=query).out))
    assert header == ["a", "a", "n", "big", "yes", "no", "t", "j", "nan", "text"]
    assert line[2:] == [
        "1.5", "12345678901234567890", "true", "", "2026-05-01 10:00:00+00:00", '{"x":[1]}', "nan", "é%s",
    ]  # fmt: skip
    assert ask(servers, "select 1 where false", "--json").document == []
    assert ask(servers, "select 1 as x where false", "--csv").out == "x\n"
    assert "QUERY PLAN" in ask(servers, "explain select 1").out


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("select * from nowhere", 'PostgreSQL says: relation "nowhere" does not exist (line 1, column 15).'),
        ("select\n  1 +\n  é", 'column "é" does not exist (line 3, column 3)'),
        ("insert into dead_letters default values", "only reads"),
        ("create table x (a int)", "only reads"),
        ("drop table assets", "only reads"),
        ("select 1; drop table assets", "Give one statement at a time."),
        ("select nextval('assets_id_seq')", "only reads"),
        ("select set_config('transaction_read_only', 'off', false)", "read-write mode"),
        ("commit", "has none"),
        ("set default_transaction_read_only = off", "has none"),
        ("copy assets to stdout", "has none"),
        ("select 1 / 0", "division by zero"),
        (" ; ", "The statement is empty."),
    ],
)
def test_what_goes_wrong_is_one_sentence(servers: Stack, query: str, sentence: str) -> None:
    for form in ((), ("--json",), ("--csv",)):
        done = ask(servers, query, *form)
        assert done.code == 1
        assert sentence in done.error
        assert "\n" not in done.error
    with psycopg.connect(servers.where.warehouse_url) as connection:
        assert connection.execute("select count(*) from assets").fetchone() == (0,)


def test_a_slow_query_is_stopped(servers: Stack) -> None:
    done = ask(servers, "select pg_sleep(20)", "--timeout", 0.2)
    assert done.error.startswith("The query took longer than 0.2 s and was stopped")


def test_a_warehouse_that_is_away_is_one_sentence(servers: Stack) -> None:
    away = servers.where.__dict__ | {"warehouse_readonly_url": "postgresql://reader:geheim@127.0.0.1:9/x"}
    type(servers.where)(**away).save(servers.folder)
    done = ask(servers, "select 1")
    assert done.error.startswith("The warehouse cannot be reached:")
    assert "geheim" not in done.error
