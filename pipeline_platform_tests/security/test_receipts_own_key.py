"""Receipts: seen by the key that sent the request, not to be guessed, and without what is others'."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import redis

from pipeline_platform.core.entries import EntryId, Receipt, TaggedReceipt
from pipeline_platform.core.failures import Failure, FailureKind
from pipeline_platform.queue.keys import KEYS, KeyStore
from pipeline_platform.queue.receipt_secret import RECEIPT_SECRET, ReceiptSecret
from pipeline_platform.settings import Settings
from pipeline_platform_tests.integration.test_gateway.kit import GOOD, Client, Pipeline, serving
from pipeline_platform_tests.security import keys_kit

template_database = keys_kit.template_database
engine = keys_kit.engine
login_url = keys_kit.login_url
redis_client = keys_kit.redis_client
store = keys_kit.store
settings = keys_kit.settings
pipeline = keys_kit.pipeline
base = keys_kit.base
connected = keys_kit.connected

Connected = Callable[..., Client]


def _others(receipt: str) -> list[str]:
    """What somebody may try who has a receipt of another key's, or who guesses."""
    plain, tag = receipt.rsplit(".", 1)
    stream, entry = plain.split(".")
    after = Receipt(stream, EntryId.parse(entry).next())
    turned = tag[:-1] + ("a" if tag[-1] != "a" else "b")
    return [
        plain,
        f"{plain}.",
        f"{plain}.{turned}",
        f"{plain}.{'a' * 16}",
        f"{plain}.{tag.upper()}",
        f"{plain}.{tag[:15]}",
        f"{plain}.{tag}{tag}",
        f"{plain}.{tag}.{tag}",
        f"{after}.{tag}",
        f"orders.{entry}.{tag}",
    ]


def test_an_ingest_key_sees_its_own_receipts_only(connected: Connected, pipeline: Pipeline) -> None:
    mine, theirs, reader, admin = (connected(scope) for scope in ("ingest", "ingest", "read", "admin"))
    receipt: str = mine.post([GOOD, {"x": 1}]).json()["receipt"]
    another: str = theirs.post().json()["receipt"]
    for settled in (False, True):
        if settled:
            pipeline.run()
        assert mine.get(f"/v1/receipts/{receipt}").status_code == 200
        assert theirs.get(f"/v1/receipts/{another}").status_code == 200
        # The same answer as for what never was.
        for guess in (another, *_others(receipt), "telemetry.1-1", "nonsense"):
            answer = mine.get(f"/v1/receipts/{guess}")
            assert answer.status_code == 404, guess
            assert answer.json()["type"].endswith(":unknown-receipt")
        assert theirs.get(f"/v1/receipts/{receipt}").status_code == 404
        for client in (reader, admin):
            for asked in (receipt, another, receipt.rsplit(".", 1)[0]):
                document = client.get(f"/v1/receipts/{asked}").json()
                assert document["receipt"] == asked
                assert document["links"]["receipt"] == f"/v1/receipts/{asked}"


def test_an_ingest_key_hears_state_counts_and_reasons_and_nothing_of_others(
    connected: Connected, pipeline: Pipeline
) -> None:
    mine, reader = connected("ingest"), connected("read")
    where = mine.post([GOOD, {"x": 1}, {**GOOD, "value": "much"}]).headers["Location"]
    connected("ingest").post([GOOD] * 7)  # in the same batch
    (row,) = pipeline.plan("telemetry")
    pipeline.start(row, "run-secret")
    failure = Failure(FailureKind.PERMANENT, "X", "password of relation secret-detail", attempt=1, run_id="run-secret")
    pipeline.ledger.fail(row.id, failure, not_before=datetime.now(UTC) + timedelta(seconds=60))
    failed = mine.get(where)
    assert (failed.json()["state"], failed.json()["final"], failed.json()["error"]["kind"]) == (
        *("failed", False),
        "permanent",
    )
    assert reader.get(where).json()["error"]["message"] == failure.message
    again = pipeline.ledger.get(row.id)
    assert again is not None
    pipeline.start(again, "run-secret")
    pipeline.load(row, "run-secret")
    done = mine.get(where)
    for answer in (failed, done):
        document = answer.json()
        assert "secret" not in answer.text
        assert (document["batch"], document["run"]) == (None, None)
    document = done.json()
    assert (document["state"], document["final"], document["error"]) == ("partial", True, None)
    assert document["counts"] == {"received": 3, "loaded": 1, "negative": 0, "rejected": 2, "replayed": 0}
    assert document["reasons"] == {"bad_type": 1, "unknown_field": 1}
    whole = reader.get(where).json()
    assert (whole["batch"]["events"], whole["run"]["id"]) == (10, "run-secret")


def test_the_answer_of_a_wait_is_cut_likewise(connected: Connected, pipeline: Pipeline) -> None:
    headers = {"Idempotency-Key": "once"}
    mine, all_in_one = connected("ingest"), connected("ingest", "read")
    for client, sees_batch in ((mine, False), (all_in_one, True)):
        receipt = client.post([GOOD], headers=headers).json()["receipt"]
        pipeline.run()
        answer = client.post([GOOD], headers=headers, query="?wait=20")
        assert answer.status_code == 200
        assert answer.json()["receipt"] == receipt
        assert (answer.json()["batch"] is not None) == sees_batch


def test_the_same_idempotency_key_gives_the_same_receipt_at_every_gateway(
    settings: Settings, base: str, connected: Connected, redis_client: redis.Redis
) -> None:
    mine = connected("ingest")
    headers = {"Idempotency-Key": "once"}
    first = mine.post([GOOD], headers=headers)
    again = mine.post([GOOD], headers=headers)
    assert again.headers["Idempotency-Replayed"] == "true"
    with serving(settings) as other_base:
        elsewhere = Client(other_base, mine.token)
        third = elsewhere.post([GOOD], headers=headers)
        assert len({answer.json()["receipt"] for answer in (first, again, third)}) == 1
        assert elsewhere.get(first.headers["Location"]).status_code == 200
        elsewhere.close()
    assert first.headers["Location"] == f"/v1/receipts/{first.json()['receipt']}"


def test_the_tag_is_made_of_the_secret_that_gateways_share(
    connected: Connected, redis_client: redis.Redis, store: KeyStore
) -> None:
    mine = connected("ingest")
    receipt = TaggedReceipt.parse(mine.post().json()["receipt"])
    secret = redis_client.get(RECEIPT_SECRET)
    assert isinstance(secret, bytes)
    assert len(secret) == 32
    assert receipt.is_of(mine.token.split("_")[1], secret)
    record = redis_client.hget(KEYS, mine.token.split("_")[1])
    assert secret not in bytes(record or b"")  # type: ignore[arg-type]


def test_one_secret_wins_and_outlives_a_server_that_forgot_it(redis_client: redis.Redis) -> None:
    one, other = ReceiptSecret(redis_client), ReceiptSecret(redis_client)
    assert one.load() == other.load() == redis_client.get(RECEIPT_SECRET)
    redis_client.flushdb()
    assert other.load() == one.load() == redis_client.get(RECEIPT_SECRET)
    redis_client.set(RECEIPT_SECRET, b"of a restored backup")
    assert one.load() == other.load() == b"of a restored backup"


def test_a_receipt_with_its_tag_finds_batches_and_letters(connected: Connected, pipeline: Pipeline) -> None:
    receipt = connected("ingest").post([{"x": 1}]).json()["receipt"]
    pipeline.run()
    admin = connected("admin")
    for path in ("/v1/assets", "/v1/dead-letters"):
        for asked in (receipt, receipt.rsplit(".", 1)[0]):
            assert len(admin.get(f"{path}?receipt={asked}").json()["data"]) == 1
    body = {"filter": {"receipt": receipt}, "dry_run": True}
    answer = admin.http.post(f"{admin.base}/v1/dead-letters/discard", json=body, timeout=30)
    assert answer.json()["matched"] == 1
