"""What every Queue does: it keeps all that it accepted, in order, until it is trimmed."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pipeline_platform.core.entries import ZERO, Entry, EntrySize
from pipeline_platform.queue.protocol import Appended, Position, Queue
from pipeline_platform_tests.contract.requests import FIRST, LAST, STREAM, append, backlog, request


def test_ids_ascend_within_a_call_and_from_call_to_call(queue: Queue) -> None:
    ids = [*append(queue, *[request()] * 20), *append(queue, request()), *append(queue, *[request()] * 20)]
    assert all(one < other for one, other in pairwise(ids))


def test_appending_nothing_does_nothing(queue: Queue) -> None:
    assert queue.append([]) == []
    assert queue.position(STREAM) == Position(ZERO, None, 0, 0, 0)


def test_what_was_appended_is_read_back_unchanged(queue: Queue) -> None:
    bodies = [b'{"a":1}\n', bytes(range(256)) + b"\n", '{"ü":"\\u0000"}\n'.encode(), b"x"]
    ids = append(queue, *[request(data, count=number) for number, data in enumerate(bodies, 1)])
    expected = [Entry(id_, number, data, "k1") for number, (id_, data) in enumerate(zip(ids, bodies, strict=True), 1)]
    assert list(queue.read(STREAM, FIRST, LAST)) == expected


def test_a_range_holds_both_its_ends(queue: Queue) -> None:
    ids = append(queue, *[request()] * 10)
    assert [entry.id for entry in queue.read(STREAM, ids[3], ids[6])] == ids[3:7]
    assert [entry.id for entry in queue.read(STREAM, ids[5], ids[5])] == [ids[5]]
    assert list(queue.read(STREAM, ids[6], ids[5])) == []


def test_what_is_waiting_is_told_without_its_payload(queue: Queue) -> None:
    ids = append(queue, request(b"1\n"), request(b"22\n", count=2), request(b"333\n", count=3))
    sizes = [EntrySize(id_, number, number + 1) for number, id_ in enumerate(ids, 1)]
    assert queue.waiting(STREAM, ZERO, 10) == sizes
    assert queue.waiting(STREAM, ZERO, 2) == sizes[:2]
    assert queue.waiting(STREAM, ids[0], 10) == sizes[1:]
    assert queue.waiting(STREAM, ids[2], 10) == []


def test_the_position_counts_what_waits_and_what_was_ever_accepted(queue: Queue) -> None:
    ids = append(queue, *[request(count=number) for number in (1, 2, 3, 4)])
    assert queue.position(STREAM) == Position(ids[3], ids[0], 4, 10, 10)


def test_trimming_forgets_what_is_below_and_keeps_the_rest(queue: Queue) -> None:
    ids = append(queue, *[request(count=number) for number in (1, 2, 3, 4)])
    assert queue.trim(STREAM, ids[2]) == 2
    assert [entry.id for entry in queue.read(STREAM, FIRST, LAST)] == ids[2:]
    assert [size.id for size in queue.waiting(STREAM, ZERO, 10)] == ids[2:]
    assert queue.position(STREAM) == Position(ids[3], ids[2], 2, 7, 10)
    assert queue.trim(STREAM, ids[2]) == 0


def test_a_stream_trimmed_empty_remembers_where_it_was(queue: Queue) -> None:
    [last] = append(queue, request(count=5))
    assert queue.trim(STREAM, last.next()) == 1
    assert queue.position(STREAM) == Position(last, None, 0, 0, 5)
    [following] = append(queue, request(count=2))
    assert following > last
    assert queue.position(STREAM) == Position(following, following, 1, 2, 7)


def test_a_stream_that_never_was_is_empty(queue: Queue) -> None:
    assert queue.waiting("nothing", ZERO, 10) == []
    assert list(queue.read("nothing", FIRST, LAST)) == []
    assert queue.trim("nothing", LAST) == 0
    assert queue.position("nothing") == Position(ZERO, None, 0, 0, 0)


def test_streams_do_not_touch_each_other(queue: Queue) -> None:
    append(queue, request(count=1), request(count=2, stream="orders"), request(count=3))
    assert backlog(queue.position(STREAM)) == (2, 4, 4)
    assert backlog(queue.position("orders")) == (1, 2, 2)
    queue.trim(STREAM, LAST)
    assert [entry.count for entry in queue.read("orders", FIRST, LAST)] == [2]


@pytest.mark.parametrize("body", ["hash", ""])
def test_a_repeated_request_gives_the_first_ones_id_and_is_there_once(queue: Queue, body: str) -> None:
    [first] = append(queue, request(b"1\n", key="abc", body=body))
    assert queue.append([request(b"1\n", key="abc", body=body)]) == [Appended(first, repeated=True)]
    assert backlog(queue.position(STREAM)) == (1, 1, 1)


def test_the_same_key_with_another_body_is_a_conflict_and_writes_nothing(queue: Queue) -> None:
    [first] = append(queue, request(b"1\n", key="abc", body="one"))
    assert queue.append([request(b"2\n", key="abc", body="two")]) == [Appended(first, repeated=True, conflict=True)]
    assert [entry.data for entry in queue.read(STREAM, FIRST, LAST)] == [b"1\n"]


def test_a_request_repeated_within_one_call_is_there_once(queue: Queue) -> None:
    first, second = queue.append([request(key="abc", body="one")] * 2)
    assert isinstance(first, Appended)
    assert second == Appended(first.id, repeated=True)
    assert backlog(queue.position(STREAM)) == (1, 1, 1)


def test_a_repeated_request_is_known_after_its_entry_was_trimmed(queue: Queue) -> None:
    [first] = append(queue, request(key="abc", body="one"))
    queue.trim(STREAM, first.next())
    assert queue.append([request(key="abc", body="one")]) == [Appended(first, repeated=True)]
    assert backlog(queue.position(STREAM)) == (0, 0, 1)


def test_other_keys_and_other_streams_are_other_requests(queue: Queue) -> None:
    items = [request(key="a", body="x"), request(key="b", body="x"), request(key="a", body="x", stream="orders")]
    assert [isinstance(result, Appended) and result.repeated for result in queue.append(items)] == [False] * 3


@pytest.mark.parametrize(
    "sizes",
    [[3] * 700, [300_000] * 12, [3] * 100 + [300_000] * 5 + [3] * 100, [3, 100_000] * 20, [1]],
    ids=["small", "large", "large between small", "alternating", "one"],
)
def test_every_entry_is_read_once_whatever_its_size(
    queue: Queue, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline_platform.queue.redis_streams.READ_BYTES", 64 * 1024)
    ids = append(queue, *[request(bytes([number % 256]) * size) for number, size in enumerate(sizes)])
    entries = list(queue.read(STREAM, FIRST, LAST))
    assert [entry.id for entry in entries] == ids
    assert [(entry.data[0], len(entry.data)) for entry in entries] == [(n % 256, size) for n, size in enumerate(sizes)]


def test_appending_while_reading_loses_and_repeats_nothing(queue: Queue) -> None:
    before = append(queue, *[request()] * 40)
    reading = queue.read(STREAM, FIRST, before[-1])
    seen = [next(reading).id for _ in range(10)]
    append(queue, *[request()] * 40)
    assert seen + [entry.id for entry in reading] == before
