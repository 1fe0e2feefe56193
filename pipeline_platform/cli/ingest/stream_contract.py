"""The contract of a stream as the gateway has it: what a file is compared with before its first row is sent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline_platform.cli.gateway_client import GatewayClient
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import PermanentError

_DURATIONS = ("late_after", "future_tolerance", "unique_for")


def ask_contract(client: GatewayClient, stream: str) -> StreamSpec:
    """The stream's spec; PermanentError when the gateway has no such stream, or not for this key."""
    try:
        specs: dict[str, Any] = {each["name"]: each["spec"] for each in client.get("/v1/streams")["streams"]}
        if stream in specs:
            policies = specs[stream]["policies"]
            as_time = TypeAdapter(timedelta).validate_python
            times = {name: as_time(policies[name]) for name in _DURATIONS}
            return StreamSpec.model_validate({**specs[stream], "policies": {**policies, **times}})
    except (KeyError, TypeError, ValidationError):
        raise PermanentError(f"{client.url} does not answer like a gateway of this version; is --url right?") from None
    there = f"; there are {', '.join(specs)}" if specs else ""
    raise PermanentError(f"There is no stream {stream!r} at {client.url}, or the key is not good for it{there}.")
