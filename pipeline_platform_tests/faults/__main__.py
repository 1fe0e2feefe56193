"""Runs the long form and writes its table into docs/reliability.md.

    python -m pipeline_platform_tests.faults --long [-k kills] [--kills 200] [--events 1000000] [--rounds 20]

A family or a part at a time (`-k disks`, `-k gateway`) replaces its own lines of the page, so that the long form can be
run in pieces; `--fresh` forgets the rows of earlier runs, not the page's lines.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from pipeline_platform_tests.faults.rows import kept, lines, results_file, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- begin: written by pipeline_platform_tests.faults -->", "<!-- end -->"


def main(arguments: list[str]) -> int:
    """Returns pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="the long form; without it, the short one of `make test`")
    parser.add_argument("--fresh", action="store_true", help="forget the rows of earlier runs")
    parser.add_argument("--table-only", action="store_true", help="run nothing, write the table of the rows there are")
    parser.add_argument("-k", default="", help="the families or parts to run, as pytest's -k")
    for size in ("kills", "events", "rounds", "overload", "outage", "seed"):
        parser.add_argument(f"--{size}", type=int)
    options = parser.parse_args(arguments)
    rows = results_file(long=options.long).absolute()
    if options.fresh:
        rows.unlink(missing_ok=True)
    sizes = {name: getattr(options, name) for name in ("kills", "events", "rounds", "overload", "outage")}
    env = os.environ | {f"PIPELINE_FAULTS_{name.upper()}": str(size) for name, size in sizes.items() if size}
    env |= {"PIPELINE_FAULTS_ROWS": str(rows)} | ({"PIPELINE_FAULTS": "long"} if options.long else {})
    if options.seed is not None:
        env["PIPELINE_SEED"] = str(options.seed)
    code = 0
    if not options.table_only:
        command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), "-s"]
        command += ["-k", options.k] if options.k else []
        code = subprocess.run(command, env=env, check=False).returncode
    if options.long and rows.exists():
        said = [argument for argument in arguments if argument != "--table-only"]
        write(PAGE, rows, shlex.join(["python", "-m", "pipeline_platform_tests.faults", *said]))
    return code


def write(page: Path, rows: Path, command: str) -> None:
    """Puts the tables of the rows between the page's marks. Lines of faults that have no row stay as they are."""
    found = kept(rows)
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    old, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{page} has not the marks {BEGIN} and {END}; put them where the table belongs.")
    where = f"{os.cpu_count()} cores, Linux {platform.release().partition('-')[0]}"
    said = f"Last written on {datetime.now(UTC):%Y-%m-%d} by `{command}` on {where}."
    known = lines(old)
    bugs = {fault: line for fault, line in known.items() if fault.startswith("planted")}
    faults = {fault: line for fault, line in known.items() if fault not in bugs}
    suite = table((row for row in found if row.family != "planted"), faults)
    planted = table((row for row in found if row.family == "planted"), bugs)
    parts = [BEGIN, said, suite, "Bugs that were planted, each of which has to be found:", planted, END]
    page.write_text(before + "\n\n".join(parts) + after)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
