"""The client's patience: the last try is when it is at its end, and the sentence says how long it was."""

from __future__ import annotations

import pytest

from pipeline_platform.cli.gateway_client import GatewayClient
from pipeline_platform.errors import TransientError


@pytest.mark.parametrize(
    ("patience", "pause", "said"),
    [
        (0.0, 0.0, "gave up after 0 s."),
        (2.0, 0.0, "gave up after 2 s."),
        (2.0, 2.0, "gave up after 2 s."),
        (60.0, 0.0, "gave up after 60 s."),
        (2.0, 30.0, "gave up after 0 s, as it asks for 30 s more."),
        (70.0, 30.0, "gave up after 60 s, as it asks for 30 s more."),
    ],
)
def test_it_gives_up_when_its_patience_is_at_its_end(
    monkeypatch: pytest.MonkeyPatch, patience: float, pause: float, said: str
) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        assert seconds > 0
        now[0] += seconds

    client = GatewayClient("http://127.0.0.1:9", "key", patience, sleep, lambda: now[0])
    monkeypatch.setattr(client, "_once", lambda *_: ("is busy", pause))
    with pytest.raises(TransientError) as gone:
        client.get("/v1/streams")
    assert str(gone.value) == f"http://127.0.0.1:9 is busy; {said}"
    client.close()
