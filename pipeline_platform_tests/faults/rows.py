"""Rows of the suite's table: what was done to the stack, and what the oracle said. One JSON line a row, in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline_platform_tests.faults.form import FORM

FOLDER = Path(".pipeline-faults")
HEAD = "| Fault | Times | Events | Lost | Doubled | Aggregates | Back after | Drained after | Seed | Written |"
RULE = "|---|---:|---:|---:|---:|---|---:|---:|---:|---|"


@dataclass(frozen=True)
class Row:
    """One row. `events` were acknowledged meanwhile; `back` and `drained` are seconds: until every service was ready
    after the last fault, and from then until everything accepted was loaded."""

    family: str
    fault: str
    times: int
    events: int
    lost: int
    doubled: int
    differences: tuple[str, ...]
    back: float
    drained: float
    seed: int
    note: str = ""
    written: str = ""  # the day

    @property
    def markdown(self) -> str:
        """The row of the table."""
        equal = "NO" if any(each.startswith("aggregates") for each in self.differences) else "equal"
        return (
            f"| {self.fault} | {self.times} | {self.events:,} | {self.lost} | {self.doubled} | {equal} | "
            f"{self.back:.0f} s | {self.drained:.0f} s | {self.seed} | {self.written} |"
        )


def results_file(*, long: bool = FORM.long) -> Path:
    """Where rows are kept, so that families can be run one after the other: PIPELINE_FAULTS_ROWS, or the form's file.

    A row of the short form may have the name of one of the long form; it has no business in that one's table.
    """
    return Path(os.environ.get("PIPELINE_FAULTS_ROWS") or FOLDER / ("long.jsonl" if long else "short.jsonl"))


def keep(row: Row) -> None:
    """Prints the row and adds it, with today's date, to the file."""
    row = replace(row, written=f"{datetime.now(UTC):%Y-%m-%d}")
    print(f"\n{HEAD}\n{RULE}\n{row.markdown}", flush=True)
    for each in row.differences:
        print(f"  {each}", flush=True)
    if row.note:
        print(f"  {row.note}", flush=True)
    path = results_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def kept(path: Path) -> list[Row]:
    """The rows of a file, the latest of each fault, in the order they first came."""
    found: dict[str, Row] = {}
    for line in path.read_text().splitlines():
        known = json.loads(line)
        row = Row(**{**known, "differences": tuple(known["differences"])})
        found[row.fault] = row
    return list(found.values())


def table(rows: Iterable[Row], before: Mapping[str, str]) -> str:
    """The rows as Markdown: each takes the place of an older line of the same fault; new ones come last, by family."""
    ordered = sorted(rows, key=lambda row: row.family)  # stable: within a family as they came
    return "\n".join([HEAD, RULE, *(dict(before) | {row.fault: row.markdown for row in ordered}).values()])


def lines(text: str) -> dict[str, str]:
    """The lines of the tables in a text, by fault."""
    found = (line for line in text.splitlines() if line.startswith("| ") and line not in (HEAD, RULE))
    return {line.split("|")[1].strip(): line for line in found}
