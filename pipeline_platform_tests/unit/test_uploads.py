"""What a gateway refuses without saying which row is to blame: the batch is halved down to that row."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import threading
from typing import Any, cast

import pytest

from pipeline_platform.cli.files.event_rows import Row
from pipeline_platform.cli.gateway_client import Answer, GatewayClient, RefusedError
from pipeline_platform.cli.ingest.batches import Batch, Target
from pipeline_platform.cli.ingest.journal import Journal, Segment
from pipeline_platform.cli.ingest.uploads import ChangedError, Upload
from pipeline_platform.errors import PermanentError


class Narrow:
    """A gateway, or a proxy before it, that takes so many bytes in a request."""

    url = "http://gateway.test"

    def __init__(self, most: int) -> None:
        self._most = most
        self.taken: list[bytes] = []
        self.keys: set[str] = set()

    def post(self, _path: str, body: bytes, headers: dict[str, str]) -> Answer:
        if len(body) > self._most:
            raise RefusedError("The gateway refused: 413 Request Entity Too Large", 413, {})
        assert headers["Idempotency-Key"] not in self.keys
        self.keys.add(headers["Idempotency-Key"])
        self.taken += body.split(b"\n")
        return Answer({"receipt": f"r{len(self.keys)}"}, {})

    def close(self) -> None:
        pass


def upload(gateway: Narrow, journal: Journal, **options: Any) -> Upload:
    client = cast(GatewayClient, gateway)
    target = Target("telemetry", name="x.ndjson", **options)
    rejected = io.BytesIO()
    return Upload(lambda: client, target, journal, concurrency=2, stopped=threading.Event(), rejected=lambda: rejected)


def lines(sizes: list[int]) -> list[Row]:
    return [Row(at, b'{"n":%d,"x":"%s"}' % (at, b"x" * size)) for at, size in enumerate(sizes, 1)]


@pytest.mark.parametrize("most", [35, 100, 399, 10_000])
@pytest.mark.parametrize("large", [[], [1], [2], [20], [1, 2, 20], [3, 4, 5, 6], [7, 8, 13]])
def test_a_row_that_is_too_large_is_found(most: int, large: list[int]) -> None:
    rows = lines([most if at in large else 5 for at in range(1, 21)])
    gateway, journal = Narrow(most), Journal()
    sent = upload(gateway, journal, skip_bad=True, batch_size=8).run(rows)
    assert sorted(gateway.taken) == sorted(row.data for row in rows if row.number not in large)
    assert (sent.events, sent.skipped, journal.rows) == (20 - len(large), len(large), 20)
    assert len(sent.receipts) == sent.requests == len(gateway.keys)


@pytest.mark.parametrize("bad", [1, 2, 8, 12, 20])
def test_a_row_that_is_too_large_is_named(bad: int) -> None:
    rows = lines([100 if at == bad else 5 for at in range(1, 21)])
    gateway, journal = Narrow(90), Journal()
    with pytest.raises(PermanentError) as refused:
        upload(gateway, journal, batch_size=8).run(rows)
    size = len(rows[bad - 1].data)
    assert str(refused.value) == (
        f"x.ndjson, line {bad}: its {size} bytes are more than the gateway takes in one request. It was not sent; "
        "--skip-bad leaves it out and sends the others."
    )
    # What was taken is known: the same goes on, with --skip-bad, and doubles nothing.
    upload(gateway, journal, skip_bad=True, batch_size=5).run(rows)
    assert sorted(gateway.taken) == sorted(row.data for row in rows if row.number != bad)


def test_a_row_is_not_taken_out_before_others_that_were_sent() -> None:
    # Given a batch that was refused, and the next one that was acknowledged
    rows = lines([5] * 8 + [100] + [5] * 10)
    behind = Batch(0, rows[12:16], "done").segment
    acknowledged = hashlib.sha256(b"".join(row.data + b"\n" for row in rows[:8])).hexdigest()
    gateway, kept = Narrow(90), Journal(rows=8, digest=acknowledged, segments=[Segment(4, "free"), behind], events=12)
    for changed in ([*rows[:8], *rows[9:]], [*rows[:8], rows[0], *rows[8:]], [*rows[:14], rows[0], *rows[15:]]):
        with pytest.raises(ChangedError, match="rows 13 to 16, which were sent, are not where or what they were"):
            upload(gateway, dataclasses.replace(kept), skip_bad=True).run(changed)
    # What the sentence says: the row in its place, mended or left out.
    gateway = Narrow(90)
    upload(gateway, dataclasses.replace(kept), skip_bad=True).run(rows)
    assert sorted(gateway.taken) == sorted(row.data for row in [*rows[9:12], *rows[16:]])
    gateway, mended = Narrow(90), [*rows[:8], rows[0], *rows[9:]]
    upload(gateway, dataclasses.replace(kept)).run(mended)
    assert sorted(gateway.taken) == sorted(row.data for row in [*mended[8:12], *mended[16:]])
