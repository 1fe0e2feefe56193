"""`ingest`: sends a file of events, once, however often it is interrupted."""

from __future__ import annotations

import math
import threading
import time
import uuid
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pipeline_platform.cli.files.csv_rows import Dialect
from pipeline_platform.cli.files.encodings import require_encoding
from pipeline_platform.cli.files.event_files import EventFile, Format
from pipeline_platform.cli.gateway_client import is_loopback
from pipeline_platform.cli.ingest.batches import Target
from pipeline_platform.cli.ingest.progress import Meter
from pipeline_platform.cli.ingest.rejected_rows import rejected_path
from pipeline_platform.cli.ingest.session import Gateway, find_gateway, open_journal, send_file
from pipeline_platform.cli.ingest.uploads import Sent
from pipeline_platform.cli.options import AsJson, StateDir, console, key_option, print_json
from pipeline_platform.cli.outcomes import wait_for_outcomes
from pipeline_platform.errors import SettingError


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("ingest")(ingest)


def ingest(
    stream: Annotated[str, typer.Argument(help="The stream's name.", show_default=False)],
    file: Annotated[str, typer.Argument(help="A file, .gz and .zst too, or - for standard input.", show_default=False)],
    state_dir: StateDir = None,
    url: Annotated[str | None, typer.Option(help="Another gateway.", show_default=False)] = None,
    key: Annotated[str | None, key_option()] = None,
    form: Annotated[Format | None, typer.Option("--format", help="When the file's name does not say it.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=50_000, help="Events in one request.")] = 1000,
    concurrency: Annotated[int, typer.Option(min=1, max=32, help="Requests at the same time.")] = 2,
    compress: Annotated[
        bool | None, typer.Option("--gzip/--no-gzip", help="Compress requests (default: except to this machine).")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse events that break the stream's contract.")] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out what is refused, and write it to FILE.rejected.")
    ] = False,
    run_id: Annotated[str, typer.Option(help="A name that makes the same events new ones.", show_default=False)] = "",
    restart: Annotated[bool, typer.Option("--restart", help="Forget how far an earlier run came.")] = False,
    patience: Annotated[float, typer.Option(min=0, help="Seconds to try a request again.")] = 300.0,
    delimiter: Annotated[
        str,
        typer.Option(
            help="What separates the columns of a CSV, such as ';' or '\\t' (default: a comma).", show_default=False
        ),
    ] = "",
    decimal_comma: Annotated[
        bool, typer.Option("--decimal-comma", help="The numbers of the CSV are written 1,5 or 1.234,5.")
    ] = False,
    encoding: Annotated[
        str, typer.Option(help="Of text that is not UTF-8, such as utf-16 or windows-1252.", show_default=False)
    ] = "",
    max_rejected: Annotated[
        float, typer.Option(min=0, max=100, help="End when more than so many % of the rows are rejects, 500 at least.")
    ] = 20.0,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until what was sent is in the warehouse.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send a file of events: NDJSON, a JSON array, CSV with a header, or Parquet.

    Started again after an interruption, it goes on where it stopped and doubles
    nothing. A file that was sent completely is not sent again; --run-id NAME
    sends it as new events. What cannot be read again (standard input, a named
    pipe) is new each time, unless --run-id names it: then repeating it within
    a day doubles nothing.

    Example: pipeline-platform ingest telemetry readings.csv.gz --wait

    Example: my-exporter | pipeline-platform ingest orders - --run-id may-1st
    """
    if math.isnan(max_rejected):
        raise SettingError("--max-rejected is a number from 0 to 100.")
    dialect = Dialect.of(delimiter, decimal_comma=decimal_comma)
    source = EventFile.of(file, form, dialect, require_encoding(encoding) if encoding else "")
    settings, url, key = find_gateway(state_dir, url, key)
    if not source.kept and not run_id:
        run_id = uuid.uuid4().hex
    compress = not is_loopback(url) if compress is None else compress
    target = Target(stream, source.identity, run_id, strict, compress, skip_bad, batch_size, source.name)
    gateway = Gateway(url, key, patience, threading.Event(), Meter(source))
    client = gateway.client()  # complains about the URL or the key before anything is read
    journal = open_journal(settings, source, target, gateway, restart=restart)
    began, before = time.monotonic(), (journal.events, journal.skipped)
    rejected = rejected_path(source, target)
    if source.path is not None and source.kept and journal.fits(source.path):
        sent = Sent(resumed_after=journal.rows)
        gateway.meter.note(f"{source.name} was sent completely before; --run-id NAME sends it as new.")
    else:
        sent = send_file(source, target, journal, gateway, concurrency, max_rejected)
    report: dict[str, Any] = {"stream": stream, "file": source.name, **asdict(sent)}
    receipts: list[str] = report.pop("receipts")
    report |= {
        "seconds": round(time.monotonic() - began, 3),
        "first_receipt": receipts[0] if receipts else None,
        "last_receipt": receipts[-1] if receipts else None,
        "rejected_file": str(rejected) if journal.skipped else None,
    }
    if wait:
        gateway.stopped.clear()
        try:
            report["outcome"] = wait_for_outcomes(client, receipts or filter(None, [journal.last_receipt]), patience)
        except KeyboardInterrupt:
            gateway.meter.note("Interrupted. Everything was accepted and will be loaded; the waiting alone has ended.")
            raise
    client.close()
    if as_json:
        print_json(report)
    else:
        _print(report, *before)


def _print(report: dict[str, Any], acknowledged: int, left_out: int) -> None:
    rate = report["events"] / max(report["seconds"], 1e-3)
    lines = [
        f"{report['events']:,} events in {report['requests']:,} requests accepted "
        f"in {report['seconds']:.1f} s ({rate:,.0f}/s)"
    ]
    if acknowledged:
        lines.append(f"{acknowledged:,} events had been acknowledged before")
    if left_out:
        lines.append(f"{left_out:,} rows had been left out before; they are in {report['rejected_file']}")
    if report["repeated"]:
        lines.append(f"{report['repeated']:,} of the requests had arrived before and were not doubled")
    if report["skipped"]:
        lines.append(f"{report['skipped']:,} rows were left out; they are in {report['rejected_file']}")
    if report["first_receipt"]:
        lines.append(f"receipts {report['first_receipt']} to {report['last_receipt']}")
    if "outcome" in report:
        counts = report["outcome"]
        lines.append("in the warehouse: " + ", ".join(f"{counts[name]:,} {name}" for name in counts))
        if counts["rejected"]:
            shows = f"`pipeline-platform dlq list --stream {report['stream']}` shows why"
            lines.append(f"{counts['rejected']:,} of them are dead letters and not in the warehouse; {shows}")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
