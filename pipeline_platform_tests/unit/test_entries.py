"""Entry ids and receipts: what is printed is read back, what is not one is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.core.entries import ZERO, Entry, EntryId, Receipt, TaggedReceipt
from pipeline_platform.errors import PermanentError

ids = st.builds(EntryId, st.integers(0, 10**15 - 1), st.integers(0, 2**64 - 1))


@given(ids)
def test_an_id_is_read_back_as_it_was_printed(entry: EntryId) -> None:
    assert EntryId.parse(str(entry)) == entry


@given(ids, st.from_regex(r"\A[a-z][a-z0-9_]{0,39}\Z"))
def test_a_receipt_is_read_back_as_it_was_printed(entry: EntryId, stream: str) -> None:
    assert Receipt.parse(str(Receipt(stream, entry))) == Receipt(stream, entry)


@pytest.mark.parametrize("text", ["", "1", "-", "1-", "-1", "1-2-3", "a-b", "1-2\n", " 1-2", "+1-2", "1.0-2", "١-٢"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(PermanentError, match="is not an entry id"):
        EntryId.parse(text)


@pytest.mark.parametrize("text", ["", "telemetry", ".1-2", "telemetry.", "telemetry.1", "1-2", "a.b.1-2"])
def test_what_is_no_receipt_is_refused(text: str) -> None:
    with pytest.raises(PermanentError):
        Receipt.parse(text)


def test_a_long_wrong_receipt_is_not_repeated_in_full() -> None:
    with pytest.raises(PermanentError) as refusal:
        Receipt.parse("x" * 10_000)
    assert len(str(refusal.value)) < 200


streams = st.from_regex(r"\A[a-z][a-z0-9_]{0,39}\Z")


@given(ids, streams, st.text("0123456789abcdef", min_size=8, max_size=8))
def test_a_tag_is_read_back_and_good_for_its_key_receipt_and_secret_only(
    entry: EntryId, stream: str, key_id: str
) -> None:
    receipt = Receipt(stream, entry)
    tagged = TaggedReceipt.of(receipt, key_id, b"secret")
    assert TaggedReceipt.parse(str(tagged)) == tagged
    assert TaggedReceipt.parse(str(receipt)) == TaggedReceipt(receipt)
    assert tagged.is_of(key_id, b"secret")
    assert not tagged.is_of(key_id, b"another")
    assert not tagged.is_of(key_id + "0", b"secret")
    assert not TaggedReceipt(receipt).is_of(key_id, b"secret")
    assert not TaggedReceipt(Receipt(stream, entry.next()), tagged.tag).is_of(key_id, b"secret")
    assert not TaggedReceipt(Receipt(stream + "x", entry), tagged.tag).is_of(key_id, b"secret")


@pytest.mark.parametrize(
    "tag", ["", "a" * 15, "a" * 17, "A" * 16, "1" * 16, "a" * 16 + "\n", "a" * 16 + "." + "a" * 16]
)
def test_what_is_no_tag_is_refused(tag: str) -> None:
    with pytest.raises(PermanentError):
        TaggedReceipt.parse(f"telemetry.1-2.{tag}")


@given(ids, ids)
def test_ids_sort_by_time_and_then_by_counter(one: EntryId, other: EntryId) -> None:
    assert (one < other) == ((one.ms, one.seq) < (other.ms, other.seq))


@given(ids)
def test_no_id_lies_between_an_id_and_its_next(entry: EntryId) -> None:
    assert entry < entry.next()
    assert entry.next() == EntryId(entry.ms, entry.seq + 1)
    assert entry >= ZERO


def test_an_entry_was_received_when_its_id_says() -> None:
    assert Entry(EntryId(1_763_712_000_123, 7), 1, b"{}\n").received_us == 1_763_712_000_123_000
