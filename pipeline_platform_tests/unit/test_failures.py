"""Failures by kind, and what they mean for the next attempt."""

from __future__ import annotations

import pytest

from pipeline_platform.core.failures import (
    Failure,
    FailureKind,
    NextStep,
    next_step,
    of_http_status,
    of_redis_error,
    of_sqlstate,
)

TRANSIENT, PERMANENT, POISON, LOST, CANCELED = FailureKind
CAREFUL = NextStep.CAREFUL


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("08006", TRANSIENT),
        ("40001", TRANSIENT),
        ("40P01", TRANSIENT),
        ("53100", TRANSIENT),
        ("53300", TRANSIENT),
        ("55P03", TRANSIENT),
        ("57014", TRANSIENT),
        ("57P01", TRANSIENT),
        ("58030", TRANSIENT),
        ("25006", TRANSIENT),
        ("25P03", TRANSIENT),
        ("25001", PERMANENT),
        ("42P01", PERMANENT),
        ("42501", PERMANENT),
        ("28P01", PERMANENT),
        ("23505", PERMANENT),
        ("22003", POISON),
        ("22021", POISON),
        ("54000", POISON),
        ("XX000", PERMANENT),
    ],
)
def test_sqlstates(state: str, kind: FailureKind) -> None:
    assert of_sqlstate(state) is kind


@pytest.mark.parametrize(
    ("state", "hint", "kind"),
    [
        ("53200", 'You might need to increase "max_locks_per_transaction".', PERMANENT),
        ("53200", "Sie müssen möglicherweise »max_locks_per_transaction« erhöhen.", PERMANENT),
        ("53200", "You might need to increase max_pred_locks_per_transaction.", PERMANENT),
        ("53400", "", PERMANENT),
        ("53200", "", TRANSIENT),
        ("53300", "", TRANSIENT),
        ("53100", "Check free disk space.", TRANSIENT),
        ("40P01", "max_locks_per_transaction", TRANSIENT),
    ],
)
def test_a_resource_that_a_setting_is_too_small_for_does_not_come_back(
    state: str, hint: str, kind: FailureKind
) -> None:
    assert of_sqlstate(state, hint) is kind


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("LOADING Redis is loading the dataset in memory", TRANSIENT),
        ("OOM command not allowed when used memory > 'maxmemory'.", TRANSIENT),
        ("MISCONF Errors writing to the AOF file: No space left on device", TRANSIENT),
        ("READONLY You can't write against a read only replica.", TRANSIENT),
        ("NOAUTH Authentication required.", PERMANENT),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", PERMANENT),
        ("", PERMANENT),
    ],
)
def test_redis_errors(message: str, kind: FailureKind) -> None:
    assert of_redis_error(message) is kind


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, TRANSIENT) for status in (408, 418, 425, 429, 500, 502, 503, 504, 599)),
        *((status, PERMANENT) for status in (302, 400, 401, 403, 404, 451, 501, 505)),
    ],
)
def test_http_statuses(status: int, kind: FailureKind) -> None:
    assert of_http_status(status) is kind


@pytest.mark.parametrize("kind", [TRANSIENT, PERMANENT, CANCELED])
def test_no_outage_no_wrong_setting_and_no_cancel_ever_gives_data_up(kind: FailureKind) -> None:
    for mode in (NextStep.PLAIN, CAREFUL, NextStep.BURY):
        assert next_step([_failure(kind, mode)] * 1000, 1) is NextStep.PLAIN


def test_a_crash_is_looked_into_at_once_and_a_lost_run_when_it_happens_again() -> None:
    assert next_step([], 9) is NextStep.PLAIN
    assert next_step([_failure(POISON)], 9) is CAREFUL
    assert next_step([_failure(LOST)], 9) is NextStep.PLAIN
    assert next_step([_failure(LOST)] * 2, 9) is CAREFUL


def test_what_care_does_not_help_is_halved_and_a_lone_request_buried() -> None:
    tried = [_failure(POISON), _failure(POISON, CAREFUL)]
    assert next_step(tried, 9) is CAREFUL
    assert next_step([*tried, _failure(POISON, CAREFUL)], 2) is NextStep.SPLIT
    assert next_step([*tried, _failure(POISON, CAREFUL)], 1) is NextStep.BURY
    too_many = Failure(POISON, "TooManyBadLinesError", "100 and more", mode=CAREFUL)
    assert next_step([_failure(POISON), too_many], 2) is NextStep.SPLIT


def test_runs_that_are_lost_make_a_batch_smaller_but_bury_nothing() -> None:
    lost = [_failure(LOST)] * 2 + [_failure(LOST, CAREFUL)] * 3
    assert next_step(lost, 2) is NextStep.SPLIT
    assert next_step(lost * 100, 1) is CAREFUL


def _failure(kind: FailureKind, mode: NextStep = NextStep.PLAIN) -> Failure:
    return Failure(kind, "E", "m", mode=mode)
