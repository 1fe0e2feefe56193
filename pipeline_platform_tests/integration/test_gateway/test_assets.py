"""/v1/assets: every batch is found by what is known of it, page by page, and a failed one can be tried again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from pipeline_platform.core.failures import Failure, FailureKind
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse.failed_runs import FailedRun, record_failed_runs
from pipeline_platform.warehouse.ledger_rows import LedgerRow
from pipeline_platform_tests.integration.test_gateway.kit import GOOD, Client, Pipeline, serving

PAUSE = datetime(2100, 1, 1, tzinfo=UTC)


def failed(pipeline: Pipeline, row: LedgerRow, message: str = "the disk is full") -> None:
    """The row's next attempt begins and fails; nothing is due for a long time."""
    pipeline.start(row, run_id=f"run-{row.id}")
    failure = Failure(
        FailureKind.PERMANENT, "PermanentError", message, attempt=row.attempt + 1, op="load", run_id=f"run-{row.id}"
    )
    assert pipeline.ledger.fail(row.id, failure, not_before=PAUSE)


def ids(client: Client, query: str) -> list[int]:
    """The rows that a query finds."""
    answer = client.get(f"/v1/assets?{query}")
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()["data"]]


@pytest.fixture
def batches(client: Client, pipeline: Pipeline) -> list[LedgerRow]:
    """One loaded, one failing and one planned batch of telemetry, and a failed run of a job."""
    receipts = []
    for _ in range(3):
        receipts.append(client.post([GOOD, {**GOOD, "value": -1}, {"source": "x"}]).json()["receipt"])
        pipeline.plan("telemetry")
    rows = pipeline.ledger.unsettled("telemetry")
    pipeline.start(rows[0], run_id="run-a")
    pipeline.load(rows[0], run_id="run-a")
    failed(pipeline, rows[1])
    now = datetime.now(UTC)
    lost = FailedRun("run-job", "maintain_warehouse", FailureKind.LOST, "RunCanceled", "The run was canceled.", now)
    assert record_failed_runs(pipeline.engine, [lost]) == 1
    return [row for row in map(pipeline.ledger.get, range(1, 4)) if row is not None]


def test_a_row_tells_all_about_its_batch(client: Client, batches: list[LedgerRow]) -> None:
    loaded, failing = client.get("/v1/assets/1").json(), client.get("/v1/assets/2").json()
    assert (loaded["state"], loaded["kind"], loaded["failing"], loaded["error"]) == ("loaded", "ingest", False, None)
    counts = loaded["counts"]
    assert counts["read"] == counts["loaded"] + counts["negative"] + counts["rejected"] == counts["planned"] == 3
    assert loaded["run"] == {"id": "run-a", "url": "http://dagster.test:3000/runs/run-a"}
    assert loaded["links"]["dead_letters"] == "/v1/dead-letters?batch=1"
    assert loaded["links"]["asset"] == "http://dagster.test:3000/assets/warehouse/telemetry_events"
    assert loaded["range"]["first_receipt"] == f"telemetry.{batches[0].first_id}"
    assert set(loaded["seconds"]) == {"waiting", "starting", "running"}
    assert failing["failing"]
    assert failing["error"]["kind"] == "permanent"
    assert failing["error"]["message"] == "load: the disk is full"
    assert failing["error"]["next_attempt_at"].startswith("2100-01-01")
    assert [(each["op"], each["final"], each["run_id"]) for each in failing["failures"]] == [("load", True, "run-2")]
    assert [run["id"] for run in failing["runs"]] == ["run-2"]


@pytest.mark.usefixtures("batches")
def test_rows_are_found_by_everything_that_is_known_of_them(client: Client, pipeline: Pipeline) -> None:
    receipt = client.get("/v1/assets/2").json()["range"]["first_receipt"]
    hour = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for query, found in {
        "": [4, 3, 2, 1],
        "kind=ingest": [3, 2, 1],
        "kind=etl&kind=replay": [4],
        "stream=telemetry&stream=orders": [3, 2, 1],
        "stream=orders": [],
        "asset_key=job/maintain_warehouse": [4],
        "job=maintain_warehouse": [4],
        "state=loaded&state=planned": [3, 1],
        "state=failing": [4, 2],
        "state=failing&kind=ingest": [2],
        "state=failing&state=loaded": [4, 2, 1],
        "run_id=run-2": [2],
        "run_id=run-job": [4],
        f"receipt={receipt}": [2],
        "text=DISK": [2],
        "text=runcanceled": [4],
        "text=%25": [],
        f"since={hour}".replace("+", "%2B"): [],
        f"until={hour}": [4, 3, 2, 1],
        "since=0&until=1": [],
        "replay=7": [],
    }.items():
        assert ids(client, query) == found, query


@pytest.mark.usefixtures("batches")
def test_pages_show_each_row_once_while_new_ones_come(client: Client, pipeline: Pipeline) -> None:
    seen: list[int] = []
    cursor = ""
    for _ in range(10):
        page: dict[str, Any] = client.get(f"/v1/assets?limit=1{cursor}").json()
        seen += [row["id"] for row in page["data"]]
        client.post()
        pipeline.plan("telemetry")
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == [4, 3, 2, 1]
    other = client.get(f"/v1/assets?kind=etl{cursor}")
    assert (other.status_code, other.json()["type"].rsplit(":", 1)[1]) == (400, "bad-cursor")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("sate=failing", "There is no parameter 'sate' here"),
        ("state=wrong", "state"),
        ("receipt=x", "There never was a receipt"),
        ("since=yesterday", "since"),
        ("text=%00", "NUL"),
        ("limit=0", "limit"),
        ("cursor=WzFd", "cursor"),
        ("replay=99999999999999999999", "replay"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_reason(client: Client, query: str, says: str) -> None:
    answer = client.get(f"/v1/assets?{query}")
    assert answer.status_code in (400, 404, 422)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert says in answer.json()["detail"]


def test_a_failing_batch_is_due_at_once_when_it_is_replayed(client: Client, batches: list[LedgerRow]) -> None:
    answer = client.http.post(f"{client.base}/v1/assets/2/replay", json={"note": "disk is larger now"}, timeout=30)
    assert answer.status_code == 200, answer.text
    audit = answer.json()["replay"]
    assert [audit[name] for name in ("action", "filter", "note", "state")] == [
        *("retry", {"asset_id": 2}, "disk is larger now", "done"),
    ]
    assert "due now" in answer.json()["message"]
    due = client.get("/v1/assets/2").json()["error"]["next_attempt_at"]
    assert datetime.fromisoformat(due) <= datetime.now(UTC)
    for row, says in ((1, "1 rejected events are dead letters"), (3, "about to begin")):
        refused = client.http.post(f"{client.base}/v1/assets/{row}/replay", timeout=30)
        assert (refused.status_code, refused.json()["type"].rsplit(":", 1)[1]) == (409, "nothing-to-replay")
        assert says in refused.json()["detail"]
    partition = client.http.post(f"{client.base}/v1/assets/4/replay", timeout=30)
    assert "is requested within seconds" in partition.json()["message"], partition.text
    assert client.http.post(f"{client.base}/v1/assets/99/replay", timeout=30).status_code == 404
    assert client.get("/v1/assets/99").json()["type"].endswith("unknown-row")
    wrong = client.http.post(f"{client.base}/v1/assets/2/replay", json={"nota": "x"}, timeout=30)
    assert "nota" in wrong.json()["detail"]


def test_reading_needs_the_scope_read_and_replaying_admin(base: str, connected: Callable[..., Client]) -> None:
    reader, producer = connected(base, "read"), connected(base, "ingest")
    assert reader.get("/v1/assets").status_code == 200
    assert producer.get("/v1/assets").status_code == 403
    assert reader.http.post(f"{base}/v1/assets/1/replay", timeout=30).status_code == 403
    assert connected(base).get("/v1/assets").status_code == 401


def test_admins_change_things_where_the_gateway_reads_as_a_role_that_may_not_write(
    settings: Settings, pipeline: Pipeline, client: Client, connected: Callable[..., Client]
) -> None:
    # As in `up`: the gateway's queries run as the reader.
    url = sa.make_url(str(settings.database_url))
    reading = url.update_query_dict({"options": "-c default_transaction_read_only=on"})
    client.post()
    failed(pipeline, pipeline.plan("telemetry")[0])
    apart = settings.model_copy(
        update={"readonly_database_url": reading.render_as_string(hide_password=False)},
    )
    with serving(apart) as base:
        admin = connected(base, "admin")
        assert admin.http.post(f"{base}/v1/assets/1/replay", timeout=30).status_code == 200
        with psycopg.connect(str(settings.database_url)) as connection:
            connection.execute("insert into breakers (stream, state) values ('telemetry', 'open')")
        resumed = admin.http.post(f"{base}/v1/streams/telemetry/resume", timeout=30)
        assert (resumed.status_code, resumed.json()["resumed"]) == (200, True)
