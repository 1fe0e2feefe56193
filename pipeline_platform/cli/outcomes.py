"""Waits for the outcome of accepted requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from pipeline_platform.cli.gateway_client import GatewayClient
from pipeline_platform.core.entries import TaggedReceipt
from pipeline_platform.errors import PlatformError, TransientError

POLL_FIRST, POLL_LIMIT = 0.1, 2.0


def find_receipt(client: GatewayClient, receipt: str) -> dict[str, Any]:
    """The gateway's document of a receipt; PermanentError when it is none, or was never given out."""
    return client.get(f"/v1/receipts/{TaggedReceipt.parse(receipt)}")


def is_settled(document: dict[str, Any]) -> bool:
    """Whether nothing more will happen to the request by itself."""
    return document.get("final") is True


def wait_for_receipt(
    client: GatewayClient,
    receipt: str,
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """The receipt's document as soon as it is settled, or as it is after `seconds`."""
    deadline, pause = clock() + seconds, POLL_FIRST
    while True:
        document = find_receipt(client, receipt)
        left = deadline - clock()
        if is_settled(document) or left <= 0:
            return document
        sleep(min(pause, left))
        pause = min(POLL_LIMIT, pause * 1.5)


def wait_for_outcomes(client: GatewayClient, receipts: Iterable[str], patience: float) -> dict[str, int]:
    """The counts of all receipts; TransientError when none is settled for `patience` seconds."""
    totals = {"received": 0, "loaded": 0, "negative": 0, "rejected": 0}
    for receipt in receipts:
        later = f"ask later with `pipeline-platform job {receipt}`."
        try:
            document = wait_for_receipt(client, receipt, patience)
        except PlatformError as error:
            raise TransientError(
                f"Everything was accepted, but its outcome is not known: {error} You can {later}"
            ) from None
        if not is_settled(document):
            raise TransientError(
                f"Everything was accepted, but {receipt} is still {document['state']} after {patience:.0f} s; {later}"
            )
        for name in totals:
            totals[name] += (document.get("counts") or {}).get(name) or 0
    return totals
