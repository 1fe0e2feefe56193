"""What a console prints is printed whatever its environment says of its width."""

from __future__ import annotations

import io

import pytest

from pipeline_platform.cli.terminal import SafeConsole


@pytest.mark.parametrize("columns", ["0", "00", "1", "-3", "x", "", "200"])
def test_a_width_of_nothing_prints_all_the_same(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = io.StringIO()
    SafeConsole(file=out).print("receipts telemetry.1 to telemetry.2", markup=False, soft_wrap=True)
    assert out.getvalue() == "receipts telemetry.1 to telemetry.2\n"
