"""`sql`: one statement, read only, in three forms."""

from __future__ import annotations

import csv
import io
import os
import signal
import threading
from pathlib import Path

import psycopg
import pytest

from pipeline_platform_tests.integration.runtime_worker_kit import wait_until
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
        "t": "2026-05-01 10:00:00+00", "j": {"x": [1]}, "nan": "NaN", "text": "é%s",
    }  # fmt: skip
    header, line = csv.reader(io.StringIO(ask(servers, "--file", "-", "--csv", stdin=query).out))
    assert header == ["a", "a", "n", "big", "yes", "no", "t", "j", "nan", "text"]
    assert line[2:] == [
        "1.5", "12345678901234567890", "t", "", "2026-05-01 10:00:00+00", '{"x": [1]}', "NaN", "é%s",
    ]  # fmt: skip
    assert ask(servers, "select 1 where false", "--json").document == []
    assert ask(servers, "select 1 as x where false", "--csv").out == "x\n"
    assert "QUERY PLAN" in ask(servers, "explain select 1").out


# Each with what JSON has of it; without, the text that PostgreSQL writes.
VALUES: dict[str, object] = {
    "date '10000-01-01'": ...,
    "date 'infinity'": ...,
    "date '4713-01-01 BC'": ...,
    "timestamptz '-infinity'": ...,
    "timestamp '294276-12-31 23:59:59.999999'": ...,
    "time '24:00'": ...,
    "timetz '12:00:00.000001-15:59:59'": ...,
    "interval '1 year 2 months 3 days 04:05:06.7'": ...,
    "interval '-178000000 years'": ...,
    "'NaN'::numeric": ...,
    "'-Infinity'::numeric": ...,
    "'Infinity'::float4": ...,
    "1.10::numeric": 1.1,
    "1e30::float8": 1e30,
    "5e-324::float8": 5e-324,
    "(-9223372036854775808)::int8": -9223372036854775808,
    "10::numeric ^ 40": 10**40,
    "false": False,
    "null::date": None,
    "array[1.5, null, 'NaN']::numeric[]": [1.5, None, "NaN"],
    "array[[true, false], [null, true]]": [[True, False], [None, True]],
    "'[5:6]={7,8}'::int[]": [7, 8],
    "array[date 'infinity', '12000-02-29']": ["infinity", "12000-02-29"],
    "array['a,b', 'c\"d', null]": ["a,b", 'c"d', None],
    "array['{\"x\": 1}']::json[]": [{"x": 1}],
    "tstzrange('-infinity', '10000-01-01')": ...,
    "'{[1,2),[5,6)}'::int4multirange": ...,
    "numrange(1.5, null)": ...,
    "E'{\"a\":\\n 1e400}'::json": ...,
    "'[1, {\"b\": null}]'::jsonb": [1, {"b": None}],
    "'\\x00ff'::bytea": ...,
    "row(1, null, 'a b', date 'infinity')": ...,
    "b'101'": ...,
    "'12.30'::money": ...,
    "'::ffff:1.2.3.4/128'::inet": ...,
    "point(1.5, 'NaN')": ...,
    "'{(1,1),(2,2);(3,3),(4,4)}'::box[]": ["(2,2),(1,1)", "(4,4),(3,3)"],
    "'a & b'::tsquery": ...,
    "'\\303'::\"char\"": ...,
    "'assets'::regclass": ...,
    "'(1,2)'::tid": ...,
}


def test_values_are_printed_as_postgresql_writes_them(servers: Stack) -> None:
    query = "select " + ", ".join(f"{value} as c{number}" for number, value in enumerate(VALUES))
    words = "select " + ", ".join(f"format('%s', {value})" for value in VALUES)
    with psycopg.connect(servers.where.warehouse_url) as connection:
        expected = list(connection.execute(words.encode()).fetchone() or ())
    _, line = csv.reader(io.StringIO(ask(servers, query, "--csv").out))
    assert line == expected
    table = ask(servers, query).out
    assert [text for text in expected if text.splitlines()[:1] and text.splitlines()[0] not in table] == []
    printed = ask(servers, query, "--json")
    assert len(printed.out.splitlines()) == 3
    (row,) = printed.document
    wanted = {value: text if own is ... else own for (value, own), text in zip(VALUES.items(), expected, strict=True)}
    wanted["E'{\"a\":\\n 1e400}'::json"] = {"a": float("inf")}  # the number itself is there, too large for Python
    assert dict(zip(VALUES, row.values(), strict=True)) == wanted
    assert '"a":  1e400' in printed.out


def test_csv_is_what_postgresql_makes_of_it(servers: Stack) -> None:
    """To the byte; so null and an empty text are two things, and `\\copy` reads both back."""
    query = """
        select null as "a b", '' as "c,d", ' ' as "e""f", '"' as g, E'\\n' as h, E'x\\ry' as i, ',' as j, 1 as k,
            E'x\\ty' as l, '""' as m, 'ü' as n, '{}'::text[] as o, null::int as p
        union all select '', null, null, '', null, 'a b', null, null, null, null, null, null, 2"""
    for asked in (query, "select null as x union all select ''", "select '' as x where false"):
        with (
            psycopg.connect(servers.where.warehouse_url) as connection,
            connection.cursor().copy(f"copy ({asked}) to stdout (format csv, header)".encode()) as copy,
        ):
            expected = b"".join(bytes(part) for part in copy).decode()
        assert ask(servers, asked, "--csv").out == expected


def test_numbers_stand_to_the_right_and_are_no_formulas(servers: Stack) -> None:
    query = "select -1 as n, '-1' as text, array[-1] as list union all select 100, '+x', '{}' order by 1"
    assert ask(servers, query, "--csv", "--spreadsheet").out.splitlines()[1:] == ["-1,'-1,{-1}", "100,'+x,{}"]
    assert "│  -1 │ -1   │" in ask(servers, query).out


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
        ("select 1 / (500 - n) from generate_series(1, 1000) n", "division by zero"),
        ("select date '10000-01-01', 1 / 0", "division by zero"),
        ("select 'infinity'::date + 1 = 'x'", "invalid input syntax for type date"),
        ("select 'x'::json", "invalid input syntax for type json"),
        (" ; ", "The statement is empty."),
        ("/* nothing */", "The statement is empty."),
        ("select '\udcff'", "The statement is not UTF-8."),
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


def test_ctrl_c_ends_the_query_in_the_server_too(servers: Stack) -> None:
    asking = "select pid from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"
    with psycopg.connect(servers.where.warehouse_url, autocommit=True) as connection:

        def interrupt() -> None:
            wait_until("the query sleeps", lambda: connection.execute(asking).fetchone() is not None)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        done = ask(servers, "select 1 from generate_series(1, 66), pg_sleep(66)", "--timeout", 0)
        thread.join()
        assert (done.code, done.error) == (130, "")
        wait_until("the server has stopped", lambda: connection.execute(asking).fetchone() is None)


def test_a_warehouse_that_is_away_is_one_sentence(servers: Stack) -> None:
    away = servers.where.__dict__ | {"warehouse_readonly_url": "postgresql://reader:geheim@127.0.0.1:9/x"}
    type(servers.where)(**away).save(servers.folder)
    done = ask(servers, "select 1")
    assert done.error.startswith("The warehouse cannot be reached:")
    assert "geheim" not in done.error
