"""The README's tour works as it is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_platform_tests.acceptance.stacks import Up

README = Path(__file__).resolve().parents[2] / "README.md"


def values(shown: str) -> list[float]:
    """The values of the kitchen's facts in a table of ts, source, metric and value."""
    rows = ([cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines())
    return [float(row[3]) for row in rows if row[1:3] == ["kitchen", "temperature_c"] and len(row) == 4]


@pytest.mark.timeout(180)
def test_every_block_of_the_tour_does_what_it_says(up: Up) -> None:
    tour = README.read_text().split("## Five-minute tour")[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", tour, re.DOTALL)
    assert len(blocks) >= 4
    script = "set -euo pipefail\n" + "\necho ----\n".join(blocks)
    environment = up.env | {"PIPELINE_STATE_DIR": str(up.state_dir), "COLUMNS": "200"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment, cwd=up.folder, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sent, job, asked, replayed, file = done.stdout.split("----\n")
    assert '"loaded":1' in sent.replace(" ", "")
    assert '"negative":1' in sent.replace(" ", "")
    assert '"rejected":1' in sent.replace(" ", "")
    assert "partial" in job
    assert "unknown_field" in asked
    assert "colour" in asked
    assert values(asked) == [21.5]
    assert values(replayed) == [21.5, 22.0]
    assert "tea" in file
