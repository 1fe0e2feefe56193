"""What only a real server can do to the queue: forget its scripts, run out of memory, be away."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from pipeline_platform.core.entries import ZERO
from pipeline_platform.errors import QueueFullError, QueueRefusedError, QueueUnavailableError
from pipeline_platform.queue.connection import connect, queue_errors
from pipeline_platform.queue.protocol import Appended, QueueRefusal
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform_tests.contract.requests import FIRST, LAST, STREAM, append, backlog, request

QUARTER_MB = b"x" * 2**18


def memory_limit(client: redis.Redis) -> str:
    """The server's maxmemory as it is set."""
    return str(client.config_get("maxmemory")["maxmemory"])


@pytest.fixture
def little_memory(client: redis.Redis, streams: RedisStreams) -> Iterator[None]:
    """Room for about 2 MB more than there is."""
    append(streams, request())
    configured = memory_limit(client)
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 2 * 2**20)
    yield
    client.config_set("maxmemory", configured)


@pytest.fixture
def nowhere() -> Iterator[RedisStreams]:
    """A queue whose server is away: the port is bound, but nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with connect(f"redis://:secret@127.0.0.1:{closed.getsockname()[1]}/0", timeout=1) as client:
            yield RedisStreams(client)


def test_a_script_that_the_server_forgot_is_sent_again(client: redis.Redis, streams: RedisStreams) -> None:
    [first] = append(streams, request())
    client.script_flush()
    ids = append(streams, request(count=2), request(count=3, key="abc", body="one"))
    assert [entry.id for entry in streams.read(STREAM, FIRST, LAST)] == [first, *ids]
    assert backlog(streams.position(STREAM)) == (3, 6, 6)


@pytest.mark.usefixtures("little_memory")
def test_a_full_server_refuses_the_items_that_do_not_fit_and_keeps_the_others(streams: RedisStreams) -> None:
    results = streams.append([request(QUARTER_MB, key=f"k{n}", body="b") for n in range(20)])
    kept = [result for result in results if isinstance(result, Appended)]
    refused = [result for result in results if isinstance(result, QueueRefusal)]
    assert kept
    assert refused
    assert all(refusal.full and "x" * 20 not in refusal.message for refusal in refused)
    assert [entry.id for entry in streams.read(STREAM, FIRST, LAST)][1:] == [result.id for result in kept]
    assert [size.id for size in streams.waiting(STREAM, ZERO, 100)][1:] == [result.id for result in kept]
    assert backlog(streams.position(STREAM)) == (len(kept) + 1,) * 3


@pytest.mark.usefixtures("little_memory")
def test_a_full_server_still_reads_and_knows_repeats_and_takes_more_after_a_trim(streams: RedisStreams) -> None:
    [known] = append(streams, request(key="abc", body="one"))
    while isinstance(streams.append([request(QUARTER_MB)])[0], Appended):
        pass
    assert streams.append([request(key="abc", body="one")]) == [Appended(known, repeated=True)]
    [refused] = streams.append([request(QUARTER_MB, key="new", body="two")])
    assert isinstance(refused, QueueRefusal)
    assert len(list(streams.read(STREAM, FIRST, LAST))) == streams.position(STREAM).entries
    assert streams.trim(STREAM, LAST) > 1
    [accepted] = streams.append([request(QUARTER_MB, key="new", body="two")])
    assert isinstance(accepted, Appended)
    assert not accepted.repeated


@pytest.mark.usefixtures("little_memory")
def test_a_full_server_gives_the_script_again_after_it_was_forgotten(
    client: redis.Redis, streams: RedisStreams
) -> None:
    while isinstance(streams.append([request(QUARTER_MB)])[0], Appended):
        pass
    client.script_flush()
    [refused] = streams.append([request(QUARTER_MB)])
    assert isinstance(refused, QueueRefusal)
    assert refused.full


def test_the_used_share_of_memory_is_told(client: redis.Redis, streams: RedisStreams) -> None:
    assert 0 < streams.memory_share() < 1
    configured = memory_limit(client)
    client.config_set("maxmemory", 0)
    assert streams.memory_share() == 0
    client.config_set("maxmemory", configured)


def test_a_server_that_is_away_is_told_as_such_by_every_method(nowhere: RedisStreams) -> None:
    calls: list[Callable[[], object]] = [
        lambda: nowhere.append([request()]),
        lambda: nowhere.waiting(STREAM, ZERO, 1),
        lambda: list(nowhere.read(STREAM, FIRST, LAST)),
        lambda: nowhere.trim(STREAM, ZERO),
        lambda: nowhere.position(STREAM),
        lambda: nowhere.memory_share(),
    ]
    for call in calls:
        with pytest.raises(QueueUnavailableError) as error:
            call()
        assert "secret" not in str(error.value)


def test_a_wrong_password_is_a_refusal_that_will_not_pass(redis_url: str) -> None:
    scheme, _, rest = redis_url.partition("://")
    with connect(f"{scheme}://:wrong@{rest.rpartition('@')[2]}") as client:
        streams = RedisStreams(client)
        with pytest.raises(QueueRefusedError):
            streams.append([request()])
        with pytest.raises(QueueRefusedError):
            streams.position(STREAM)


def test_a_refused_command_is_an_error_of_ours(client: redis.Redis) -> None:
    client.set("text", "x")
    with pytest.raises(QueueRefusedError, match="refused: WRONGTYPE"), queue_errors():
        client.xlen("text")
    with pytest.raises(QueueUnavailableError, match="refused: MISCONF"), queue_errors():
        raise redis.exceptions.ResponseError("MISCONF Errors writing to the AOF file: No space left on device")
    with pytest.raises(QueueFullError), queue_errors():
        raise redis.exceptions.OutOfMemoryError("OOM")


def test_an_idempotency_key_lives_as_long_as_it_was_told(client: redis.Redis) -> None:
    append(RedisStreams(client, ttl=90), request(key="abc", body="one"))
    assert 80 < client.ttl("pp:{telemetry}:idem:abc") <= 90


def test_all_keys_of_a_stream_are_in_one_slot_of_a_cluster(client: redis.Redis, streams: RedisStreams) -> None:
    append(streams, request(key="abc", body="one"))
    keys: Any = client.keys("*")
    assert len(keys) == 4
    assert {key.split(b"}")[0] for key in keys} == {b"pp:{telemetry"}
