"""The resumable sender: rows of a file -> batches -> acknowledged requests, and a journal of how far it came."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import IO

from pipeline_platform.cli.files.event_rows import Row
from pipeline_platform.cli.gateway_client import GatewayClient
from pipeline_platform.cli.ingest.batches import Batch, Target, TooLargeError, send_batch
from pipeline_platform.cli.ingest.journal import Journal, Segment
from pipeline_platform.cli.ingest.reject_limit import RejectLimit
from pipeline_platform.cli.ingest.rejected_rows import record
from pipeline_platform.errors import PermanentError, PlatformError, SettingError

BATCH_BYTES = 4 * 2**20  # half of what the gateway takes by default
WINDOW = 64  # batches held back behind one that is not acknowledged yet


@dataclass
class Sent:
    """What one run of `ingest` did."""

    events: int = 0
    requests: int = 0
    repeated: int = 0
    skipped: int = 0
    resumed_after: int = 0
    receipts: list[str] = field(default_factory=list)


class ChangedError(PermanentError):
    """The file is not the one that the journal is of, so that there is nothing to go on with."""


class Upload:
    """Sends a file's rows by several threads; the journal is always ahead of what was sent.

    `client` makes the client of a thread, `stopped` ends the clients' waiting, `progress` hears how many rows are
    settled, `limit` may hold rows back or end the upload before they are sent, and what --skip-bad leaves out goes to
    `rejected`.
    """

    def __init__(
        self,
        client: Callable[[], GatewayClient],
        target: Target,
        journal: Journal,
        *,
        concurrency: int,
        stopped: threading.Event,
        progress: Callable[[int], None] = lambda _: None,
        limit: RejectLimit | None = None,
        rejected: Callable[[], IO[bytes]] | None = None,
    ) -> None:
        self._client = client
        self._target = target
        self._journal = journal
        self._concurrency = concurrency
        self._stopped = stopped
        self._progress = progress
        self._limit = limit
        self._rejected = rejected
        self._pool = ThreadPoolExecutor(concurrency, "ingest")
        self._flying: dict[Future[Batch], Batch] = {}
        self._local = threading.local()
        self._clients: list[GatewayClient] = []
        self._digest = hashlib.sha256()
        self._known: tuple[Segment, ...] = tuple(journal.segments)
        self._window: tuple[Batch, ...] = ()
        self._broken: PermanentError | None = None
        self.asked = False  # whether any request was made
        self.sent = Sent(resumed_after=journal.rows)

    def run(self, rows: Iterable[Row]) -> Sent:
        """Sends what is not acknowledged yet; raises what stopped it, with the journal up to date."""
        iterator = iter(rows)
        self._skip(iterator)
        try:
            held: list[Batch] = []
            for batch in self._cut(iterator):
                if batch.state != "done":
                    held.append(batch)
                    if self._limit is None or self._limit.judge(batch.rows):
                        self._launch(*held)
                        held.clear()
                while self._flying and (len(self._flying) >= self._concurrency or len(self._window) >= WINDOW):
                    self._settle()
            if held and self._limit and not self._journal.events:
                self._limit.end()
            if held:
                self._launch(*held)
            while self._flying:
                self._settle()
        finally:
            self._stopped.set()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._take_stock()
            for client in self._clients:
                client.close()
        self._journal.complete, self._journal.completed = True, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        self._save()
        return self.sent

    def _skip(self, rows: Iterator[Row]) -> None:
        """Passes the acknowledged rows, which have to be what they were."""
        for count, row in enumerate(islice(rows, self._journal.rows), 1):
            self._digest.update(row.data + b"\n")
            if count % 10_000 == 0:
                self._progress(count)
        name, journal = self._target.name, self._journal
        if self._digest.hexdigest() != journal.digest and journal.complete:
            raise ChangedError(
                f"A file named {name} was sent completely on {journal.completed} ({journal.rows:,} rows), and this is "
                "another one: pass --run-id NAME to send it as new events."
            )
        if self._digest.hexdigest() != journal.digest:
            raise ChangedError(
                f"{name} has changed since it was sent in part: its first {journal.rows:,} rows, which were "
                "acknowledged, are not what they were. Make them so again, and the same command goes on behind them; "
                "or pass --run-id NAME to send all of it as new events."
            )
        journal.complete = False

    def _moved(self, start: int, rows: int) -> ChangedError:
        """Behind a batch that was refused there are some that were not."""
        return ChangedError(
            f"{self._target.name} has changed since it was sent in part: rows {start + 1:,} to {start + rows:,}, which "
            "were sent, are not where or what they were. What was taken out or added before them has to be undone: a "
            "bad row is mended in its place, or left there for --skip-bad. Or pass --run-id NAME to send all of it as "
            "new events."
        )

    def _cut(self, rows: Iterator[Row]) -> Iterator[Batch]:
        """Batches as the journal has them, then by size. Each is in the window before it is given out."""
        start = self._journal.rows
        while True:
            segment, *rest = self._known or (Segment(self._target.batch_size, "free"),)
            if segment.state == "free":
                batch = Batch(start, self._take(rows, min(segment.rows, self._target.batch_size)), "free")
                left = segment.rows - len(batch.rows)
                if self._known and left:
                    rest = [Segment(left, "free"), *rest]
            else:
                batch = Batch(start, list(islice(rows, segment.rows)), segment.state)
                if batch.digest != segment.digest:
                    raise self._moved(start, segment.rows)
            if not batch.rows:
                return
            start += len(batch.rows)
            # No call between the two stores, so that Ctrl-C cannot come between them.
            window, known = (*self._window, batch), tuple(rest)
            self._window, self._known = window, known
            yield batch

    def _take(self, rows: Iterator[Row], most: int) -> list[Row]:
        """Up to `most` rows, fewer when they are large; what cannot be read behind them is raised the next time."""
        if self._broken is not None:
            raise self._broken
        taken: list[Row] = []
        size = 0
        try:
            for row in islice(rows, most):
                taken.append(row)
                size += len(row.data) + 1
                if size >= BATCH_BYTES:
                    break
        except PermanentError as error:
            self._broken = error
            if not taken:
                raise
        return taken

    def _send(self, batch: Batch) -> Batch:
        client: GatewayClient | None = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = self._client()
            self._clients.append(client)
        return send_batch(client, self._target, batch)

    def _launch(self, *batches: Batch) -> None:
        for batch in batches:
            batch.state = "sent"
        self._save()
        for batch in batches:
            self._flying[self._pool.submit(self._send, batch)] = batch
        self.asked = True

    def _settle(self) -> None:
        """Waits for an answer and notes it; raises what went wrong."""
        done, _ = wait(self._flying, return_when=FIRST_COMPLETED)
        for future in done:
            try:
                self._note(future.result())
            except TooLargeError:
                self._halve(self._flying.pop(future))
            else:
                del self._flying[future]
        self._advance()

    def _halve(self, batch: Batch) -> None:
        """Sends a batch as two, until each is taken or a single row is to blame."""
        middle = len(batch.rows) // 2
        at = next(at for at, each in enumerate(self._window) if each is batch)
        halves = (
            Batch(batch.start, batch.rows[:middle], "free"),
            Batch(batch.start + middle, batch.rows[middle:], "free"),
        )
        self._window = (*self._window[:at], *halves, *self._window[at + 1 :])
        self._launch(*halves)

    def _take_stock(self) -> None:
        """After the last thread has ended: what was acknowledged, refused or never begun; the rest may have arrived."""
        for future, batch in self._flying.items():
            if future.cancelled() or isinstance(future.exception(), PermanentError):
                batch.state = "free"
            elif future.exception() is None:
                with contextlib.suppress(PlatformError):  # it is said already, and the batch stays one to repeat
                    self._note(batch)
        self._advance()
        self._save()

    def _note(self, batch: Batch) -> None:
        journal, events = self._journal, len(batch.rows) - len(batch.dropped)
        if batch.dropped and self._rejected:
            file = self._rejected()
            try:
                file.write(b"".join(map(record, sorted(batch.dropped))))
                file.flush()
            except OSError as error:
                raise SettingError(f"The rows left out cannot be written to {file.name} ({error.strerror}).") from None
            journal.rejected_bytes = file.tell()
        batch.state = "done"
        for tally in (self.sent, journal):
            tally.events += events
            tally.skipped += len(batch.dropped)
            tally.requests += bool(batch.receipt)
        self.sent.repeated += batch.repeated
        if batch.receipt:
            self.sent.receipts.append(batch.receipt)
            journal.first_receipt = journal.first_receipt or batch.receipt
            journal.last_receipt = batch.receipt

    def _advance(self) -> None:
        """Moves the acknowledged rows up to the first that are not."""
        while self._window and self._window[0].state == "done":
            for row in self._window[0].rows:
                self._digest.update(row.data + b"\n")
            self._journal.rows += len(self._window[0].rows)
            self._window = self._window[1:]
        self._progress(self._journal.rows)

    def _save(self) -> None:
        self._journal.digest = self._digest.hexdigest()
        self._journal.segments = [*(batch.segment for batch in self._window), *self._known]
        self._journal.save()
