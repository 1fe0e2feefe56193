"""The ledger row of an ETL run."""

from __future__ import annotations

from pipeline_platform.orchestration.etl_runs import shorten


def test_a_ledger_row_names_its_partitions_in_one_text() -> None:
    assert shorten(["2024-01-01|a:b"]) == "2024-01-01|a:b"
    assert shorten(["2024-01-02|a:b", "2024-01-01|a:b"]) == "2024-01-01|a:b...2024-01-02|a:b"
