"""`sql`: one read-only query against the warehouse."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import psycopg
import sqlalchemy as sa
import typer
from psycopg import errors
from psycopg.adapt import AdaptersMap

from pipeline_platform.cli import result_values
from pipeline_platform.cli.options import AsJson, StateDir, connections
from pipeline_platform.cli.result_sets import print_csv, print_json, print_table
from pipeline_platform.cli.result_values import NUMBERS, Column
from pipeline_platform.errors import PermanentError, SettingError, WarehouseUnavailableError, interrupt_behind

TABLE_ROWS = 1000
LONGEST = 2_147_483.0  # seconds that PostgreSQL can count
EMPTY = "The statement is empty."


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("sql")(sql)


def sql(
    query: Annotated[str | None, typer.Argument(help="One SQL statement.", show_default=False)] = None,
    state_dir: StateDir = None,
    file: Annotated[str | None, typer.Option(help="Read it from a file, or - for standard input.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    spreadsheet: Annotated[
        bool, typer.Option("--spreadsheet", help="In CSV, put ' before texts that a spreadsheet would run as formulas.")
    ] = False,
    as_json: AsJson = False,
    limit: Annotated[
        int | None,
        typer.Option(min=0, help="Rows to print (default: 1000 in a table, else all).", show_default=False),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0, max=LONGEST, help="Seconds the query may take; 0 for any.")] = 30.0,
) -> None:
    """Query the warehouse; nothing can be written.

    Values are printed as PostgreSQL writes them. In JSON, numbers, booleans,
    JSON and arrays are what JSON has of them; NaN and Infinity, which it does
    not have, and all else are texts.

    Each stream has a view of its events and one of its minutes, such as
    telemetry and telemetry_1m; the tables assets and dead_letters say what
    became of every batch and of every refused event.

    Example: pipeline-platform sql "select * from telemetry_1m order by window_start desc limit 5"

    Example: pipeline-platform sql --file report.sql --csv > report.csv
    """
    text = _text(query, file)
    if as_csv and as_json:
        raise SettingError("Choose one of --csv and --json.")
    if spreadsheet and not as_csv:
        raise SettingError("--spreadsheet goes with --csv.")
    _, where = connections(state_dir)
    values = result_values.as_json() if as_json else result_values.as_text()
    with _rows(where.warehouse_readonly_url, text, timeout, values) as (columns, rows):
        if as_csv:
            print_csv(columns, islice(rows, limit), spreadsheet=spreadsheet)
        elif as_json:
            print_json(columns, islice(rows, limit))
        else:
            print_table(columns, rows, TABLE_ROWS if limit is None else limit)


def _text(query: str | None, file: str | None) -> bytes:
    if (query is None) == (file is None):
        raise SettingError('Give one statement, as in `pipeline-platform sql "select 1"`, or --file.')
    try:
        text = query if file is None else sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{file} cannot be read: {error}.") from None
    if not text or not text.strip().strip(";"):
        raise SettingError(EMPTY)
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise SettingError("The statement is not UTF-8.") from None
    if b"\0" in encoded:
        raise SettingError("The statement has a character with the code 0, which SQL does not know.")
    return encoded


@contextmanager
def _rows(
    url: str, text: bytes, timeout: float, values: AdaptersMap
) -> Iterator[tuple[list[Column], Iterator[tuple[Any, ...]]]]:
    """Columns and rows, streamed. One statement in a read-only transaction: it cannot make itself a writer."""
    options = (
        f"-c default_transaction_read_only=on -c statement_timeout={int(timeout * 1000)} -c timezone=UTC "
        "-c datestyle=ISO -c intervalstyle=postgres -c bytea_output=hex"
    )
    plain = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        connection = psycopg.connect(
            plain,
            options=options,
            connect_timeout=10,
            application_name="pipeline-platform sql",
            client_encoding="utf8",
            context=values,
        )
    except psycopg.OperationalError as error:
        reason = next((line for line in str(error).splitlines() if "failed: " in line), str(error).splitlines()[-1])[
            :300
        ]
        raise WarehouseUnavailableError(f"The warehouse cannot be reached: {reason}") from None
    try:
        connection.read_only = True
        with connection.cursor() as cursor:
            # The extended protocol, which takes one statement only. The bytes are the user's own text.
            stream: Iterator[tuple[Any, ...]] = iter(cursor.stream(text))
            first = next(stream, None)
            yield _columns(cursor) if first is not None else _announced(connection, text), _chain(first, stream)
            stream.close()  # type: ignore[attr-defined]
    except psycopg.Error as error:
        if (interrupt := interrupt_behind(error)) is not None:
            raise interrupt from None
        raise PermanentError(_explain(error, text, timeout)) from None
    finally:
        connection.close()


def _columns(cursor: psycopg.Cursor[Any]) -> list[Column]:
    return [Column(each.name, each.type_code in NUMBERS) for each in cursor.description or ()]


def _announced(connection: psycopg.Connection[Any], text: bytes) -> list[Column]:
    """The columns of a query without rows, which a stream does not tell."""
    connection.pgconn.prepare(b"shape", text)
    shape = connection.pgconn.describe_prepared(b"shape")
    return [Column((shape.fname(number) or b"").decode()) for number in range(shape.nfields)]


def _chain(first: tuple[Any, ...] | None, rest: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    if first is not None:
        yield first
        yield from rest


def _explain(error: psycopg.Error, text: bytes, timeout: float) -> str:
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return f"`sql` only reads, and PostgreSQL refused to write: {error.diag.message_primary}."
    if isinstance(error, errors.QueryCanceled):
        return f"The query took longer than {timeout:g} s and was stopped; pass a longer --timeout (0 for any)."
    message = error.diag.message_primary or (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "multiple commands" in message:
        return "Give one statement at a time."
    if error.sqlstate is None:
        if isinstance(error, psycopg.ProgrammingError):  # the driver's own: it did not expect this to be streamed
            return "`sql` prints the rows of a query, and this statement has none."
        if "EMPTY_QUERY" in message:  # nothing but comments
            return EMPTY
        away = isinstance(error, psycopg.OperationalError)
        return f"The warehouse {'did not answer' if away else 'gave an answer that cannot be read'}: {message}."
    if error.diag.statement_position:
        before = text.decode()[: int(error.diag.statement_position) - 1]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        message += f" (line {line}, column {column})"
    hint = f" {error.diag.message_hint}" if error.diag.message_hint else ""
    return f"PostgreSQL says: {message}.{hint}"
