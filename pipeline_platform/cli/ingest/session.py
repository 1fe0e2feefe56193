"""What surrounds one `ingest`: which gateway, which journal, where refused rows go."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pipeline_platform.cli.files.event_files import EventFile, OpenedFile
from pipeline_platform.cli.gateway_client import GatewayClient
from pipeline_platform.cli.ingest.batches import Target
from pipeline_platform.cli.ingest.journal import Journal, journal_path
from pipeline_platform.cli.ingest.progress import Meter
from pipeline_platform.cli.ingest.reject_limit import RejectLimit
from pipeline_platform.cli.ingest.rejected_rows import rejected_rows
from pipeline_platform.cli.ingest.stream_contract import ask_contract
from pipeline_platform.cli.ingest.uploads import ChangedError, Sent, Upload
from pipeline_platform.cli.options import connections
from pipeline_platform.errors import PermanentError, PlatformError, SettingError, TransientError
from pipeline_platform.queue.keys import token_id
from pipeline_platform.settings import Settings


@dataclass(frozen=True)
class Gateway:
    """Where to send, and how long to try; `stopped` ends every wait."""

    url: str
    key: str
    patience: float
    stopped: threading.Event
    meter: Meter

    def client(self) -> GatewayClient:
        """A client of one thread's own."""
        return GatewayClient(self.url, self.key, self.patience, self._sleep, time.monotonic, self.meter.say)

    def _sleep(self, seconds: float) -> None:
        if self.stopped.wait(seconds):
            raise TransientError("The waiting was ended.")


def find_gateway(state_dir: Path | None, url: str | None, key: str | None) -> tuple[Settings, str, str]:
    """The settings, the gateway's URL and the API key: as given, or those of the stack."""
    settings = Settings.load(state_dir=state_dir)
    key = key or settings.api_key
    if url and key:
        return settings, url, key
    settings, where = connections(state_dir)
    found = key or where.api_key
    if not found:
        raise SettingError("There is no API key; make one with `pipeline-platform keys create` and pass it as --key.")
    return settings, url or where.gateway_url, found


def open_journal(settings: Settings, source: EventFile, target: Target, gateway: Gateway, *, restart: bool) -> Journal:
    """The journal of this file, stream, gateway and run; what cannot be read again has none."""
    if not source.kept:
        return Journal()
    parts = (gateway.url.rstrip("/"), target.stream, target.source, target.run_id)
    path = journal_path(settings.state_dir.absolute(), parts)
    if path is None:
        gateway.meter.note(f"{settings.state_dir} cannot be written: a repetition relies on Idempotency-Keys alone.")
        return Journal()
    if restart:
        path.unlink(missing_ok=True)
    journal = Journal.load(path, target.source)
    key_id = token_id(gateway.key) or ""
    if any(segment.state == "sent" for segment in journal.segments) and journal.key_id not in ("", key_id):
        raise SettingError(
            f"The interrupted run used the API key {journal.key_id} and its last requests may have arrived: go on with "
            "that key, since the gateway knows a repeated request by its key. If it is gone, look at what the "
            "warehouse has, then pass --restart or --run-id."
        )
    journal.key_id = key_id
    return journal


def send_file(
    source: EventFile, target: Target, journal: Journal, gateway: Gateway, concurrency: int, max_rejected: float
) -> Sent:
    """Sends what is not acknowledged yet. Whatever ends it, its message says what was, what was not, how to go on."""
    upload: Upload | None = None
    with _interruptible(), contextlib.ExitStack() as stack:
        try:
            spec = ask_contract(stack.enter_context(contextlib.closing(gateway.client())), target.stream)
            if source.path is not None and source.kept:
                status = source.path.stat()  # before it is read: what is added meanwhile makes it another file
                journal.size, journal.mtime_ns = status.st_size, status.st_mtime_ns
            opened = stack.enter_context(contextlib.closing(OpenedFile(source, spec)))
            stack.enter_context(gateway.meter.running(opened))
            limit = RejectLimit(spec, max_rejected / 100, source.name, target.skip_bad)
            upload = Upload(
                gateway.client,
                target,
                journal,
                concurrency=concurrency,
                stopped=gateway.stopped,
                progress=gateway.meter.advance,
                limit=limit,
                rejected=stack.enter_context(rejected_rows(source, target, journal)),
            )
            sent = upload.run(opened.rows())
            if not target.strict and (said := limit.summary()):
                gateway.meter.note(said)
            return sent
        except (PlatformError, KeyboardInterrupt) as error:
            stack.close()
            if isinstance(error, ChangedError):
                rest = "The rest was not sent." if upload is not None and upload.asked else "Nothing was sent."
                raise PermanentError(f"{error} {rest}") from None
            asked, passing = upload is not None and upload.asked, not isinstance(error, PermanentError)
            said = _so_far(source, target, journal, asked=asked, mend=not passing)
            if isinstance(error, KeyboardInterrupt):
                gateway.meter.note(f"Interrupted. {said}")
                raise
            kind = TransientError if passing else PermanentError
            raise kind(f"{error} {said}") from None


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """A request to end, or the terminal's end, interrupts like Ctrl-C: the journal is written and the message said."""

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # only there is a handler allowed
        return
    ending = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]  # no nohup
    before = {each: signal.signal(each, interrupt) for each in ending}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _so_far(source: EventFile, target: Target, journal: Journal, *, asked: bool, mend: bool) -> str:
    """What was acknowledged, what was not, and how to go on; `mend`: not before something has changed."""
    unsure = sum(segment.rows for segment in journal.segments if segment.state == "sent")
    if not journal.events and not asked:
        return "Nothing was sent."
    done = f"{journal.events:,} events were acknowledged" if journal.events else "No event was acknowledged"
    again = (
        "the same command goes on from there"
        if source.kept
        else f"the same input with --run-id {target.run_id} doubles nothing"
    )
    when = "when that is mended, " if mend else ""
    unanswered = f"{unsure:,} rows may have arrived without an answer; the" if unsure else "The"
    return f"{done}; {when}{again}. {unanswered} rest was not sent."
