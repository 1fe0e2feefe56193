"""What a receipt, the totals and the rates say after a replay."""

from __future__ import annotations

from typing import Any

from pipeline_platform.core.edits import Edit
from pipeline_platform.warehouse.dead_letters import LetterFilter
from pipeline_platform.warehouse.replays import begin
from pipeline_platform_tests.integration.batches import execute
from pipeline_platform_tests.integration.letters import Replays
from pipeline_platform_tests.integration.test_gateway.kit import GOOD, Client, Pipeline

SPOILT = {**GOOD, "colour": "red"}
EDIT = Edit.parse({"merge": {"colour": None}})


def test_a_receipt_says_how_many_of_its_rejected_events_are_replayed(client: Client, pipeline: Pipeline) -> None:
    receipt = client.post([GOOD, SPOILT, {**SPOILT, "value": -1}, {"source": "x"}]).json()["receipt"]
    pipeline.run()

    def outcome() -> dict[str, Any]:
        document: dict[str, Any] = client.get(f"/v1/receipts/{receipt}").json()
        return {"state": document["state"], **document["counts"]}

    first = {"received": 4, "loaded": 1, "negative": 0, "rejected": 3}
    assert outcome() == {"state": "partial", **first, "replayed": 0}
    _replay(pipeline, EDIT)
    assert outcome() == {"state": "partial", **first, "replayed": 2}
    totals = client.get("/v1/streams/telemetry").json()["totals"]
    assert (totals["read"], totals["loaded"], totals["negative"], totals["rejected"]) == (4, 2, 1, 1)
    _replay(pipeline, Edit.parse({"merge": {"metric": "m", "value": 1}}))
    assert outcome() == {"state": "loaded", **first, "replayed": 3}


def test_a_receipt_of_a_row_that_was_dead_is_loaded_once_it_is_replayed(client: Client, pipeline: Pipeline) -> None:
    receipt = client.post([SPOILT]).json()["receipt"]
    pipeline.run()
    execute(pipeline.engine, "update assets set state = 'dead', events_read = 1")
    assert client.get(f"/v1/receipts/{receipt}").json()["state"] == "failed"
    _replay(pipeline, EDIT)
    document = client.get(f"/v1/receipts/{receipt}").json()
    assert (document["state"], document["batch"]["state"]) == ("loaded", "replayed")
    assert document["counts"] == {"received": 1, "loaded": 0, "negative": 0, "rejected": 1, "replayed": 1}


def _replay(pipeline: Pipeline, edit: Edit) -> None:
    begun = begin(pipeline.engine, LetterFilter(), edit, requested_by="test", streams=("telemetry",))
    assert Replays(pipeline.engine).finish(begun).state == "done"
