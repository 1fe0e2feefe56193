"""`streams`: what is declared, and what a change of a declaration would do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table
from rich.text import Text

from pipeline_platform.cli.gateway_client import GatewayClient
from pipeline_platform.cli.ingest.session import find_gateway
from pipeline_platform.cli.options import AsJson, StateDir, connections, console, key_option, print_json
from pipeline_platform.core.names import RESERVED, no_stream
from pipeline_platform.core.streams import SHIPPED, StreamSpec, clashes, load_spec, load_specs, stream_files
from pipeline_platform.errors import PlatformError, SettingError, SpecError
from pipeline_platform.local.connections import Connections
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse.engine import connect as connect_warehouse
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.stream_changes import Change, plan_changes
from pipeline_platform.warehouse.stream_tables import stream_tables

group = typer.Typer(help="Look at the declared streams.  Example: pipeline-platform streams list", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(group, name="streams")


@group.command("list")
def list_streams(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """List the declared streams and, when the queue can be asked, how many events wait in it.

    Example: pipeline-platform streams list --json
    """
    settings, where = _stack(state_dir)
    rows: list[dict[str, Any]] = []
    backlogs = _backlogs(where, specs := load_specs(settings.streams_dir))
    for name, spec in specs.items():
        fields = {"dimensions": list(spec.dimensions), "measures": list(spec.measures)}
        rows.append({"name": name, "description": spec.description, **fields, "backlog": backlogs.get(name)})
    if as_json:
        print_json(rows)
        return
    table = Table("name", "dimensions", "measures", "backlog", "description")
    for row in rows:
        backlog = "" if row["backlog"] is None else f"{row['backlog']:,}"
        cells = (row["name"], " ".join(row["dimensions"]), " ".join(row["measures"]), backlog, row["description"])
        table.add_row(*map(Text, cells))
    console.print(table)


def _stack(state_dir: Path | None) -> tuple[Settings, Connections | None]:
    """The settings, and the servers where there are any."""
    try:
        return connections(state_dir)
    except SettingError:
        return Settings.load(state_dir=state_dir), None


def _backlogs(where: Connections | None, specs: dict[str, StreamSpec]) -> dict[str, int]:
    if where is None:
        return {}
    client = connect_queue(where.redis_url, timeout=3.0)
    try:
        queue = RedisStreams(client)
        return {name: queue.position(name).events for name in specs}
    except PlatformError:
        return {}
    finally:
        client.close()


@group.command("resume")
def resume(
    name: Annotated[str, typer.Argument(help="The stream's name.", show_default=False)],
    state_dir: StateDir = None,
    url: Annotated[str | None, typer.Option(help="Another gateway.", show_default=False)] = None,
    key: Annotated[str | None, key_option("operate")] = None,
    as_json: AsJson = False,
) -> None:
    """Close a stream's breaker, which too many rejects have opened: planning goes on, whatever was rejected.

    Example: pipeline-platform streams resume telemetry
    """
    _, url, key = find_gateway(state_dir, url, key)
    client = GatewayClient(url, key, patience=5.0)
    try:
        document = client.post(f"/v1/streams/{quote(name, safe='')}/resume", b"", {}).document
    finally:
        client.close()
    if as_json:
        print_json(document)
    elif document["resumed"]:
        console.print(f"{name} goes on.", markup=False)
    else:
        console.print(f"{name} was not paused. It is {document['health']['state']}.", markup=False)


@group.command("show")
def show(
    name: Annotated[str, typer.Argument(help="The stream's name.", show_default=False)],
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Show one stream: its fields, policies, endpoint, tables and views.

    Example: pipeline-platform streams show telemetry
    """
    settings, where = _stack(state_dir)
    specs = load_specs(settings.streams_dir)
    spec = specs.get(name)
    if spec is None:
        raise SettingError(no_stream(name, specs))
    tables = stream_tables(spec)
    gateway = where.gateway_url if where else f"http://{settings.host}:{settings.port}"
    document = {
        **spec.model_dump(mode="json"),
        "endpoint": f"{gateway}/v1/streams/{name}/events",
        "tables": [table.name for table in tables.tables],
        "views": [view.name for view in tables.views],
    }
    if as_json:
        print_json(document)
        return
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("stream", Text(f"{name}  {spec.description}"))
    for field, dimension in spec.dimensions.items():
        default = "" if dimension.default is None else f" (default {dimension.default!r})"
        table.add_row("dimension", Text(f"{field}{default}  {dimension.description}"))
    for field, measure in spec.measures.items():
        presence = "" if measure.required else ", optional"
        table.add_row("measure", Text(f"{field} (negatives: {measure.negatives}{presence})  {measure.description}"))
    policies = document["policies"] if isinstance(document["policies"], dict) else {}
    table.add_row("policies", Text(", ".join(f"{key}={value}" for key, value in policies.items())))
    table.add_row("endpoint", Text(f"POST {document['endpoint']}"))
    table.add_row("tables", Text(" ".join(document["tables"])))
    table.add_row("views", Text(" ".join(document["views"])))
    console.print(table)


@group.command("check")
def check(
    path: Annotated[Path | None, typer.Argument(help="A stream file, or a folder of them.", show_default=False)] = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Check stream files, and say what `migrate` would change in the warehouse; nothing is changed.

    Without a path, the streams that are in use. Exit code 1 when a file is
    wrong or a change would lose data.

    Example: pipeline-platform streams check my-streams/
    """
    settings, where = _stack(state_dir)
    specs, problems = _read(path or settings.streams_dir, only_path=path is not None)
    changes, compared = _compare(where, specs)
    destructive = [change for change in changes if change.destructive]
    ok = not problems and not destructive
    if as_json:
        document = {
            "ok": ok,
            "streams": sorted(specs),
            "errors": problems,
            "compared": compared == "",
            "note": compared or None,
            "notes": _notes(specs),
            "changes": [{"change": change.sentence, "destructive": change.destructive} for change in changes],
        }
        print_json(document)
    else:
        _print_check(specs, problems, changes, compared)
    if not ok:
        raise typer.Exit(1)


def _read(path: Path | None, *, only_path: bool) -> tuple[dict[str, StreamSpec], list[str]]:
    """The specs that can be read, and what is wrong with the others, a sentence a mistake."""
    if not only_path:
        try:
            return load_specs(path), []
        except SpecError as error:
            if path is None or not path.is_dir():
                return {}, str(error).splitlines()
    if path is None or not path.exists():
        return {}, [f"{path} does not exist."]
    files = stream_files(path) if path.is_dir() else [path]
    specs: dict[str, StreamSpec] = {}
    beside = [(load_spec(shipped).name, shipped) for shipped in stream_files(SHIPPED)]
    problems = [] if files else [f"{path} holds no .yaml file."]
    for file in files:
        try:
            spec = load_spec(file)
        except SpecError as error:
            problems += str(error).splitlines()
            continue
        specs[spec.name] = spec
        beside.append((spec.name, file))
    return specs, problems + clashes(beside)


def _compare(where: Connections | None, specs: dict[str, StreamSpec]) -> tuple[list[Change], str]:
    """What the warehouse lacks, or why it was not asked."""
    if where is None:
        return [], "There is no stack here, so the tables were not compared."
    engine = connect_warehouse(where.warehouse_readonly_url, pool_size=1)
    try:
        with warehouse_errors(), engine.connect() as connection:
            return [change for spec in specs.values() for change in plan_changes(connection, spec).changes], ""
    except PlatformError as error:
        return [], f"{error} The tables were not compared."
    finally:
        engine.dispose()


def _notes(specs: dict[str, StreamSpec]) -> list[str]:
    """What works, and is to be known before somebody types it."""
    reserved = {name: [f'"{field}"' for field in sorted(spec.fields & RESERVED)] for name, spec in specs.items()}
    said = "these columns are called like words of SQL, and need quotes in it"
    return [f"{name}: {said}: {', '.join(quoted)}." for name, quoted in reserved.items() if quoted]


def _print_check(specs: dict[str, StreamSpec], problems: list[str], changes: list[Change], compared: str) -> None:
    for problem in problems:
        console.print(problem, style="red", markup=False, soft_wrap=True)
    for change in changes:
        style, mark = ("red", "REFUSED") if change.destructive else ("yellow", "migrate would")
        console.print(f"{mark}: {change.sentence}", style=style, markup=False, soft_wrap=True)
    for note in _notes(specs):
        console.print(note, style="yellow", markup=False, soft_wrap=True)
    if specs and not problems:
        console.print(f"Well-formed: {', '.join(sorted(specs))}.", markup=False, soft_wrap=True)
    if compared:
        console.print(compared, style="yellow", markup=False, soft_wrap=True)
    elif not changes:
        console.print("The warehouse has all of it already.")
