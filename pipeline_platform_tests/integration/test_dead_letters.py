"""Dead letters found, counted, paged, exported and purged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from pipeline_platform.errors import PermanentError
from pipeline_platform.warehouse import dead_letters
from pipeline_platform.warehouse.dead_letters import (
    LetterFilter,
    count,
    counts_by,
    get_letter,
    list_letters,
    purge,
    stream_letters,
)
from pipeline_platform_tests.integration.batches import (
    NOW_MS,
    TELEMETRY,
    WIDE,
    entry,
    event,
    execute,
    load_entries,
    rows,
    wide,
)

T0 = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def letters(engine: sa.Engine) -> sa.Engine:
    """Letters 1-3 of one request, 4 and 5 of another, 6 of another stream; letter n last failed on day n."""
    load_entries(engine, TELEMETRY, entry(0, event(colour="RED"), event(value="x"), b"100%_\\"), entry(1, event()))
    load_entries(engine, TELEMETRY, entry(2, event(value="y"), event(colour="blue")))
    load_entries(engine, WIDE, entry(3, wide(a="z")))
    execute(engine, "update dead_letters set last_failed_at = cast(:t as timestamptz) + id * interval '1 day'", t=T0)
    execute(engine, "update dead_letters set state = 'discarded', settled_at = last_failed_at where id = 5")
    return engine


@pytest.mark.parametrize(
    ("which", "ids"),
    [
        (LetterFilter(), {1, 2, 3, 4, 5, 6}),
        (LetterFilter(streams=("telemetry",)), {1, 2, 3, 4, 5}),
        (LetterFilter(streams=("telemetry", "wide")), {1, 2, 3, 4, 5, 6}),
        (LetterFilter(reasons=("bad_type", "malformed")), {2, 3, 4, 6}),
        (LetterFilter(states=("open",)), {1, 2, 3, 4, 6}),
        (LetterFilter(fields=("value", "a")), {2, 4, 6}),
        (LetterFilter(receipt=f"telemetry.{NOW_MS}-0"), {1, 2, 3}),
        (LetterFilter(batch_id=2), {4, 5}),
        (LetterFilter(since=T0 + timedelta(days=3), until=T0 + timedelta(days=5)), {3, 4}),
        (LetterFilter(ids=(2, 6, 99)), {2, 6}),
        (LetterFilter(text="red"), {1}),
        (LetterFilter(text="NO SUCH FIELD"), {1, 5}),  # in the message
        (LetterFilter(text="100%_\\"), {3}),
        (LetterFilter(text="1%"), set()),  # no pattern
        (LetterFilter(reasons=("bad_type",), streams=("wide",)), {6}),
    ],
)
def test_each_part_of_a_filter_narrows(letters: sa.Engine, which: LetterFilter, ids: set[int]) -> None:
    assert {letter.id for letter in stream_letters(letters, which)} == ids
    assert {letter.id for letter in list_letters(letters, which, limit=100).letters} == ids
    assert count(letters, which) == len(ids)
    assert sum(each.letters for each in counts_by(letters, which)) == len(ids)


def test_pages_hold_every_letter_once_the_newest_first(letters: sa.Engine) -> None:
    found, after = [], None
    for _ in range(10):
        page = list_letters(letters, LetterFilter(streams=("telemetry",)), limit=2, after_id=after)
        found.append([letter.id for letter in page.letters])
        after = page.next
        if after is None:
            break
    assert found == [[5, 4], [3, 2], [1]]
    assert list_letters(letters, LetterFilter(), limit=6).next is None


def test_a_letter_tells_all_of_itself(letters: sa.Engine) -> None:
    letter = get_letter(letters, 1)
    assert letter is not None
    assert (letter.stream, letter.reason, letter.field) == ("telemetry", "unknown_field", "colour")
    assert letter.state == "open"
    assert (letter.payload, letter.line, letter.receipt) == (event(colour="RED").decode(), 0, f"telemetry.{NOW_MS}-0")
    assert (letter.batch_id, letter.run_id, letter.attempts, letter.replay_id) == (1, "run-1", 1, None)
    assert letter.received_at == datetime.fromtimestamp(NOW_MS / 1000, UTC)
    assert get_letter(letters, 99) is None


def test_counts_are_by_stream_reason_and_state(letters: sa.Engine) -> None:
    assert [tuple(each) for each in counts_by(letters, LetterFilter())] == [
        ("telemetry", "bad_type", "open", 2),
        ("telemetry", "malformed", "open", 1),
        ("telemetry", "unknown_field", "discarded", 1),
        ("telemetry", "unknown_field", "open", 1),
        ("wide", "bad_type", "open", 1),
    ]


def test_an_export_sees_one_snapshot(letters: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "CHUNK", 2)
    exported = stream_letters(letters, LetterFilter())
    first = next(exported)
    execute(letters, "delete from dead_letters where id > 1")
    assert [first.id, *(letter.id for letter in exported)] == [1, 2, 3, 4, 5, 6]


def test_purging_keeps_what_is_young_open_or_under_way(letters: sa.Engine) -> None:
    execute(letters, "update dead_letters set state = 'replayed', settled_at = last_failed_at where id in (1, 2)")
    execute(letters, "update dead_letters set settled_at = settled_at + interval '30 days' where id = 2")
    execute(letters, "update dead_letters set state = 'replaying' where id = 3")
    keep = {"replayed": timedelta(days=10), "discarded": timedelta(days=20)}
    assert purge(letters, keep, T0 + timedelta(days=20), step=1) == {"replayed": 1, "discarded": 0}
    assert purge(letters, keep, T0 + timedelta(days=26)) == {"replayed": 0, "discarded": 1}
    assert rows(letters, "select id from dead_letters order by id") == [(2,), (3,), (4,), (6,)]
    assert purge(letters, {"open": timedelta(days=10)}, T0 + timedelta(days=15)) == {"open": 1}
    assert rows(letters, "select id from dead_letters order by id") == [(2,), (3,), (6,)]
    with pytest.raises(PermanentError, match="replaying"):
        purge(letters, {"replaying": timedelta()}, T0)
