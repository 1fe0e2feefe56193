"""The fault suite's table: kept row by row, the latest of each fault, and written between the page's marks."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline_platform_tests.faults.__main__ import BEGIN, END, PAGE, write
from pipeline_platform_tests.faults.rows import HEAD, Row, keep, kept, results_file


def _row(fault: str, lost: int = 0, family: str = "kill -9") -> Row:
    return Row(family, fault, 20, 1234, lost, 0, ("aggregates: series 1",) if lost else (), 0.4, 12.6, 7)


def test_a_family_that_is_run_again_replaces_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, page = tmp_path / "rows.jsonl", tmp_path / "page.md"
    monkeypatch.setenv("PIPELINE_FAULTS_ROWS", str(rows))
    for row in (_row("Valkey", lost=3), _row("planted: bug", 5, "planted"), _row("the daemon"), _row("Valkey")):
        keep(row)
    older = f"{HEAD}\n| the gateway | 9 | 7 | 0 | 0 | equal |\n| the daemon | 1 | 1 | 1 | 1 | NO |"
    page.write_text(f"before\n{BEGIN}\nold\n{older}\n\n| planted: older | 1 |\n{END}\nafter\n")
    write(page, rows, "make test-faults")
    text = page.read_text()
    assert [row.fault for row in kept(rows)] == ["Valkey", "planted: bug", "the daemon"]
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert f"| Valkey | 20 | 1,234 | 0 | 0 | equal | 0 s | 13 s | 7 | {today} |" in text
    assert f"| planted: bug | 20 | 1,234 | 5 | 0 | NO | 0 s | 13 s | 7 | {today} |" in text
    assert text.count("| the daemon |") == 1
    assert "| the gateway | 9 | 7 | 0 | 0 | equal |\n" in text
    assert text.index("| the gateway |") < text.index("Bugs that were planted") < text.index("| planted: older |")
    assert text.index("Bugs that were planted") < text.index("| planted: bug") < text.index(END)
    assert text.startswith("before\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old\n" not in text


def test_the_page_has_the_marks_and_the_long_form() -> None:
    text = PAGE.read_text()
    assert text.index(BEGIN) < text.index(END)
    assert "every part" not in text.partition(BEGIN)[2]  # a row of the short form


def test_rows_of_the_short_form_are_kept_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIPELINE_FAULTS_ROWS", raising=False)
    assert results_file(long=True) != results_file(long=False)
