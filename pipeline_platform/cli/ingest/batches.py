"""One batch of rows -> one request, with the Idempotency-Key that makes sending it again harmless."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property

import orjson

from pipeline_platform.cli.files.event_rows import Row
from pipeline_platform.cli.gateway_client import Answer, GatewayClient, RefusedError
from pipeline_platform.cli.ingest.journal import Segment, SegmentState
from pipeline_platform.cli.ingest.reasons import clause
from pipeline_platform.errors import PermanentError

_PLACE = re.compile(r"\A(?:Line|Event) [0-9]+:? ")
_NO_OBJECT = "not a JSON object"
GZIP_RATIO = 50


class TooLargeError(PermanentError):
    """The gateway takes less in one request than the rows together have, and does not say which is to blame."""


@dataclass(frozen=True)
class Target:
    """Where batches go and how. `source` is what the file is known by: its path; `run_id` makes its rows new ones."""

    stream: str
    source: str = "-"
    run_id: str = ""
    strict: bool = False
    gzip: bool = False
    skip_bad: bool = False
    batch_size: int = 1000
    name: str = "standard input"


@dataclass
class Batch:
    """Consecutive rows, sent as one request. `start` is how many rows are before it."""

    start: int
    rows: list[Row]
    state: SegmentState
    dropped: list[Row] = field(default_factory=list)
    receipt: str = ""
    repeated: bool = False

    @cached_property
    def digest(self) -> str:
        """What the rows are known by."""
        return hashlib.sha256(b"\n".join(row.data for row in self.rows)).hexdigest()

    @property
    def segment(self) -> Segment:
        """The batch as the journal has it."""
        return Segment(len(self.rows), self.state, "" if self.state == "free" else self.digest)


def idempotency_key(target: Target, start: int, body: bytes) -> str:
    """The same for the same rows at the same place of the same file and run, today and after an interruption."""
    digest = hashlib.sha256(
        f"{target.stream}\n{target.source}\n{target.run_id}\n{start}\n".encode("utf-8", "surrogateescape")
    )
    digest.update(body)
    return f"ingest-{digest.hexdigest()}"


def send_batch(client: GatewayClient, target: Target, batch: Batch) -> Batch:
    """Sends until there is an answer. PermanentError names the file and the line that the gateway refuses.

    With `skip_bad` such rows are left out, and the rest is sent. TooLargeError asks for two batches instead.
    """
    rows = batch.rows
    while True:
        if target.skip_bad:
            rows = _without(batch, rows, {at: row.problem or _NO_OBJECT for at, row in enumerate(rows) if _is_bad(row)})
        for row in rows:
            if row.problem:
                raise PermanentError(f"{target.name}, {row.unit} {row.number}: {row.problem}.{_nothing(batch)}")
        if not rows:
            return batch
        try:
            answer = _post(client, target, batch.start, b"\n".join(row.data for row in rows))
        except RefusedError as error:
            bad = _blamed(error, rows)
            if error.status == 413 and not bad:
                raise TooLargeError(str(error)) from None
            if not target.skip_bad or not bad:
                raise PermanentError(_explain(error, target, batch, rows, bad)) from None
            rows = _without(batch, rows, bad)
            continue
        batch.receipt = str(answer.document.get("receipt", ""))
        batch.repeated = answer.headers.get("Idempotency-Replayed") == "true"
        if not batch.receipt:
            raise PermanentError(f"{client.url} does not answer like a gateway; is --url right?")
        return batch


def _post(client: GatewayClient, target: Target, start: int, body: bytes) -> Answer:
    headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": idempotency_key(target, start, body)}
    if target.gzip:
        packed = gzip.compress(body, 3, mtime=0)
        if len(body) < GZIP_RATIO * len(packed):  # the gateway takes a body that shrinks more for an attack
            headers["Content-Encoding"] = "gzip"
            body = packed
    query = "?strict=true" if target.strict else ""
    return client.post(f"/v1/streams/{target.stream}/events{query}", body, headers)


def _without(batch: Batch, rows: list[Row], bad: dict[int, str]) -> list[Row]:
    """The rows but those at `bad`, which are left out for the reasons given."""
    batch.dropped += [rows[at]._replace(problem=why) for at, why in sorted(bad.items())]
    return [row for at, row in enumerate(rows) if at not in bad]


def _is_bad(row: Row) -> bool:
    try:
        return bool(row.problem) or not isinstance(orjson.loads(row.data), dict)
    except orjson.JSONDecodeError:
        return True


def _blamed(error: RefusedError, rows: list[Row]) -> dict[int, str]:
    """The rows that a refusal names, by their place in the request, and why; the only one whatever it names."""
    if error.status == 413 and len(rows) == 1:
        return {0: f"its {len(rows[0].data):,} bytes are more than the gateway takes in one request"}
    found: dict[int, str] = {}
    for entry in (error.problem, *error.problem.get("errors", ())):
        place = entry.get("index") if isinstance(entry, dict) else None
        if isinstance(place, int) and 0 <= place < len(rows):
            detail = _PLACE.sub("", str(entry.get("detail", "refused"))).rstrip(".")
            code = f" ({entry['code']})" if "code" in entry else ""
            found[place] = f"{clause(str(entry.get('field') or ''), str(entry.get('message') or detail))}{code}"
    return found


def _explain(error: RefusedError, target: Target, batch: Batch, rows: list[Row], bad: dict[int, str]) -> str:
    if not bad:
        return str(error)
    row, why = rows[min(bad)], bad[min(bad)]
    more = f" {error.problem['detail']}" if error.problem.get("errors") and error.problem.get("detail") else ""
    return f"{target.name}, {row.unit} {row.number}: {why}.{more}{_nothing(batch)}"


def _nothing(batch: Batch) -> str:
    first, last = batch.rows[0], batch.rows[-1]
    if first is last:
        return " It was not sent; --skip-bad leaves it out and sends the others."
    return f" Nothing of {first.unit}s {first.number} to {last.number} was sent; --skip-bad sends the others."
