"""Compressed bodies: any number of members and frames, bounded by bytes and ratio."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable

import pytest
import zstandard

from pipeline_platform.gateway.inflate import FREE_BYTES, inflate
from pipeline_platform.gateway.problems import ProblemError

LIMIT = 8 * 2**20
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstandard.compress}


def skippable(data: bytes, kind: int = 0) -> bytes:
    """A zstd frame that holds no data."""
    return struct.pack("<II", 0x184D2A50 + kind, len(data)) + data


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("members", [1, 2, 100, 101, 102, 5000])
def test_a_body_may_have_any_number_of_members(encoding: str, members: int) -> None:
    lines = [b'{"value": %d}\n' % n for n in range(members)]
    assert inflate(b"".join(map(PACK[encoding], lines)), encoding, LIMIT) == b"".join(lines)


@pytest.mark.parametrize("kind", range(16))
def test_a_skippable_frame_is_skipped_wherever_it_is(kind: int) -> None:
    a, b, skip = zstandard.compress(b"a"), zstandard.compress(b"b"), skippable(b"x" * 70_000, kind)
    for body in (skip + a + b, a + skip + b, a + b + skip, skip * 2 + a + skippable(b"") + b + skip):
        assert inflate(body, "zstd", LIMIT) == b"ab"


@pytest.mark.parametrize("padding", [0, 1, 255, 256, 257, 100_000])
def test_zeros_between_members_are_padding(padding: int) -> None:
    body = gzip.compress(b"a") + bytes(padding) + gzip.compress(b"b") + bytes(padding)
    assert inflate(body, "gzip", LIMIT) == b"ab"


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("members", [1, 50, 101, 400])
def test_many_members_are_held_to_the_bounds_of_bytes_and_ratio(encoding: str, members: int) -> None:
    body = b"".join([PACK[encoding](bytes(LIMIT // members + 1))] * members)
    with pytest.raises(ProblemError) as refused:
        inflate(body, encoding, LIMIT)
    assert (refused.value.status, refused.value.kind) == (413, "too-large")
    assert len(inflate(PACK[encoding](bytes(FREE_BYTES)), encoding, LIMIT)) == FREE_BYTES


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("cut", [1, 3, 8])
def test_a_last_member_that_is_cut_short_is_damage(encoding: str, cut: int) -> None:
    body = b"".join(PACK[encoding](b"%d" % 3**500) for _ in range(150))
    for damaged in (body[:-cut], body + b"\x1f", b"\0" + body):
        with pytest.raises(ProblemError) as refused:
            inflate(damaged, encoding, LIMIT)
        assert refused.value.status == 400
