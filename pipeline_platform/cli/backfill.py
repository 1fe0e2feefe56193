"""`backfill`: partitions of an asset again, or for the first time, in as few runs and requests as they allow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline_platform.cli.options import StateDir, connections, console, day
from pipeline_platform.cli.terminal import SafeConsole
from pipeline_platform.core.parking import Refusal
from pipeline_platform.core.price_partitions import day_ranges
from pipeline_platform.core.prices import Instrument
from pipeline_platform.errors import PermanentError, PlatformError, SettingError, TransientError
from pipeline_platform.local.backfills import CANDLES, CandleWork, plan_candles
from pipeline_platform.local.dagster_api import BackfillStatus, DagsterApi, Partitions
from pipeline_platform.sources.catalog import load_plan
from pipeline_platform.warehouse.engine import connect as connect_warehouse
from pipeline_platform.warehouse.refusals import in_words, known_refusals

POLL_SECONDS = 1.0
PATIENCE = 60.0  # seconds that Dagster may be away while we wait
SHOWN = 12  # instruments in a table
ROLLUPS = ("_1h", "_1d")
ONLY_GAPS = {"ops": {"prices__candles": {"config": {"only_gaps": True}}}}


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("backfill")(backfill)


def backfill(
    asset: Annotated[
        str, typer.Argument(help="The asset, such as prices/candles or prices/daily.", show_default=False)
    ],
    first: Annotated[str, typer.Option("--from", help="The first UTC day, YYYY-MM-DD.")],
    last: Annotated[str | None, typer.Option("--to", help="The last UTC day, YYYY-MM-DD. (default: today)")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Only this source's instruments; repeatable.")] = None,
    symbol: Annotated[
        list[str] | None, typer.Option(help="Only this instrument, BTC-USD or BTCUSDT; repeatable.")
    ] = None,
    only_gaps: Annotated[bool, typer.Option("--only-gaps", help="Only what is missing: also to go on later.")] = False,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Of a stream's hours and days: from the facts, not from finer windows.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would fetch and cost.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end and show how far it is.")] = True,
    state_dir: StateDir = None,
) -> None:
    """Backfill partitions of an asset through Dagster, as its UI would: visible there, and to be canceled there.

    Ending the command does not end the backfill. What is loaded stays; run it again with --only-gaps to go on.

    Example: pipeline-platform backfill prices/candles --from 2023-01-01 --only-gaps --dry-run
    """
    today = datetime.now(UTC).date()
    begin, end = day(first, "--from"), day(last, "--to") if last is not None else today
    if begin > today:
        raise SettingError(f"--from {begin} is after today, {today}: there is nothing to backfill yet.")
    if end < begin:
        raise SettingError(f"--to {end} is before --from {begin}.")
    end = min(end, today)
    settings, where = connections(state_dir)
    api = DagsterApi(where.dagster_url, where.api_key)
    partitions = api.partitions(asset)
    if recompute and not asset.endswith(ROLLUPS):
        raise SettingError(f"--recompute is for hours and days of streams, such as warehouse/orders_1h; not {asset}.")
    if asset == CANDLES:
        plan = load_plan(settings.prices_file, settings.demo_prices_url or where.demo_prices_url or None)
        begin = max(begin, earliest := _first_day(partitions))
        if end < begin:
            raise SettingError(f"{end} is before the first day of {asset}, {earliest}; PIPELINE_PRICES_START says it.")
        engine = connect_warehouse(where.warehouse_readonly_url)
        try:
            work = plan_candles(
                engine,
                plan,
                begin,
                end,
                datetime.now(UTC),
                sources=source or (),
                symbols=symbol or (),
                only_gaps=only_gaps,
            )
            refused = known_refusals(engine, "candles")
        finally:
            engine.dispose()
        _show(work, begin, end)
        for each in work.work:
            if (known := refused.get(each.instrument)) is not None and known.parked_at is not None:
                console.print(
                    f"{in_words(known)} This backfill asks for it all the same.", markup=False, soft_wrap=True
                )
        keys, config = _known(work, partitions), ONLY_GAPS if only_gaps else None
    else:
        if source or symbol:
            raise SettingError(f"--source and --symbol choose partitions of {CANDLES}; {asset} has none of those.")
        keys = _keys(asset, partitions, begin, end, only_gaps=only_gaps)
        config = _recomputing(asset) if recompute else None
        console.print(f"{len(keys):,} partitions of {escape(asset)} from {begin} to {end}.")
    if not keys:
        console.print(
            "Nothing to do: all of it is there, or its source has nothing."
            if only_gaps
            else "There are no such partitions."
        )
        return
    if dry_run:
        return
    title = f"{asset} {begin} to {end}" + (" (gaps)" if only_gaps else "")
    started = api.launch(asset, keys, title=title, tags={"pipeline/requested_by": "cli"}, run_config=config)
    console.print(f"Backfill {started}: {where.dagster_url}/runs/b/{started}", soft_wrap=True)
    if wait and not _wait(api, started, len(keys)).succeeded:
        raise typer.Exit(1)


def _recomputing(asset: str) -> dict[str, Any]:
    return {"ops": {asset.replace("/", "__"): {"config": {"recompute": True}}}}


def _first_day(partitions: Partitions) -> date:
    return date.fromisoformat(min(partitions.dimensions["day"], default=f"{date.max}"))


def _known(work: CandleWork, partitions: Partitions) -> list[str]:
    """The partitions that Dagster has; SettingError when it has another plan than we."""
    days, instruments = set(partitions.dimensions["day"]), set(partitions.dimensions["instrument"])
    keys = [key for key in work.partitions if key[:10] in days]
    if strange := sorted({key[11:] for key in keys} - instruments):
        raise SettingError(
            f"Dagster does not know {strange[0]}: it was started with another prices.yaml. Set PIPELINE_PRICES_FILE "
            "as it was for `up`, or restart it."
        )
    return keys


def _keys(asset: str, partitions: Partitions, begin: date, end: date, *, only_gaps: bool) -> list[str]:
    """Partitions of an asset of time alone; `only_gaps` leaves out what Dagster has materialized."""
    if len(partitions.dimensions) != 1:
        raise PermanentError(f"{asset} has several dimensions; backfill it from the Dagster UI.")
    (keys,) = partitions.dimensions.values()
    return [
        key
        for key in keys
        if begin.isoformat() <= key[:10] <= end.isoformat() and not (only_gaps and key in partitions.materialized)
    ]


def _show(work: CandleWork, begin: date, end: date) -> None:
    table = Table("instrument", "days", box=None)
    for name in ("partitions", "candles", "requests"):
        table.add_column(name, justify="right")
    for each in work.work[:SHOWN]:
        ranges = day_ranges([span for spans in each.ranges.values() for span in spans])
        days = ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in ranges[:3])
        days += f" and {len(ranges) - 3} more" if len(ranges) > 3 else ""
        name = f"{each.instrument.source}:{each.instrument.symbol}"
        table.add_row(name, days, f"{len(each.partitions):,}", f"{each.candles:,}", f"{each.requests:,}")
    if work.work:
        console.print(table)
    if len(work.work) > SHOWN:
        console.print(f"... and {len(work.work) - SHOWN} more instruments")
    console.print(
        f"{len(work.partitions):,} partitions from {begin} to {end}: {work.candles:,} candles in {work.requests:,} "
        f"requests and {work.runs:,} runs, about {_duration(work.seconds)} within the sources' budgets.",
        soft_wrap=True,
    )


def parked_words(work: CandleWork, refused: Mapping[Instrument, Refusal]) -> list[str]:
    """What to say of symbols that are parked: who asks for them by hand is obeyed."""
    known = [refused[each.instrument] for each in work.work if each.instrument in refused]
    return [f"{in_words(each)} It is asked for all the same." for each in known if each.parked_at is not None]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _ending(status: BackfillStatus, canceled: int) -> str:
    """How it ended. Dagster counts the partitions of canceled runs as failed, and leaves out those never begun."""
    if status.state != "CANCELED" and not canceled:
        colour = "green" if status.succeeded else "red"
        return f"[{colour}]{status.state}[/]: {status.materialized:,} materialized, {status.failed:,} failed."
    what = f"{canceled:,} of its runs were canceled" if canceled else "the backfill was canceled"
    left = max(status.targeted - status.materialized, status.failed)
    return f"[yellow]CANCELED[/]: {what}; {status.materialized:,} partitions materialized, {left:,} not."


def _wait(
    api: DagsterApi,
    backfill: str,
    total: int,
    *,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> BackfillStatus:
    """Shows how far it is until it has ended; outages of the webserver are waited out."""
    stderr = SafeConsole(stderr=True)
    columns: Sequence[TextColumn | BarColumn | MofNCompleteColumn | TimeElapsedColumn] = (
        TextColumn("partitions"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[yellow]{task.fields[note]}"),
    )
    seen = clock()
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task("", total=total, note="waiting for Dagster to begin")
        while True:
            asked = clock()
            try:
                status = api.status(backfill)
            except TransientError:
                if clock() - seen > PATIENCE:
                    raise
                sleep(POLL_SECONDS)
                continue
            seen = clock()
            note = f"{status.failed:,} failed" if status.failed else ""
            if status.in_progress or status.materialized:
                bar.update(task, note=note)
            bar.update(task, completed=status.materialized + status.failed)
            if status.ended:
                break
            # The webserver counts all partitions for every answer: it is not kept busy with that.
            sleep(max(POLL_SECONDS, 5 * (seen - asked)))
    console.print(_ending(status, 0 if status.succeeded else api.canceled_runs(backfill)), soft_wrap=True)
    if status.error:
        raise PlatformError(f"Dagster says: {status.error}")
    if not status.succeeded:
        console.print("What was loaded stays. Run the command again with --only-gaps to go on.")
    return status
