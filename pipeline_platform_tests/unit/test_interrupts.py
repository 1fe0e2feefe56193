"""What is behind an error: an interrupt that a clean-up hid is found, one that was handled before is not."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from pipeline_platform.errors import SourceUnavailableError, interrupt_behind
from pipeline_platform.orchestration.prices.troubles import Troubles


def plain() -> None:
    raise OSError


def itself() -> None:
    raise KeyboardInterrupt


def in_a_clean_up() -> None:
    try:
        raise KeyboardInterrupt
    finally:
        raise OSError


def as_its_cause() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as interrupt:
        raise OSError from interrupt


def said_to_be_from_nothing() -> None:
    try:
        in_a_clean_up()
    except OSError:
        raise ValueError from None


def behind_another_cause() -> None:
    try:
        in_a_clean_up()
    except OSError:
        raise ValueError from RuntimeError("the driver's")


def while_an_error_is_handled() -> None:
    try:
        raise OSError
    except OSError:
        raise KeyboardInterrupt from None


def in_a_circle() -> None:
    first, second = OSError(), ValueError()
    first.__context__, second.__context__ = second, first
    raise first


@pytest.mark.parametrize(
    ("work", "found"),
    [
        (plain, None),
        (itself, KeyboardInterrupt),
        (in_a_clean_up, KeyboardInterrupt),
        (as_its_cause, KeyboardInterrupt),
        (said_to_be_from_nothing, KeyboardInterrupt),
        (behind_another_cause, KeyboardInterrupt),
        (while_an_error_is_handled, KeyboardInterrupt),
        (in_a_circle, None),
    ],
)
def test_what_is_behind_an_error(work: Callable[[], None], found: type[BaseException] | None) -> None:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        work()
    behind = interrupt_behind(caught.value)
    assert type(behind) is (found or type(None))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_that_was_handled_before_is_no_reason(kind: type[BaseException]) -> None:
    try:
        raise kind
    except kind:
        before = sys.exception()
        with pytest.raises(OSError) as caught:  # noqa: PT011
            plain()
        assert interrupt_behind(caught.value, before) is None
        assert interrupt_behind(caught.value) is before


def test_a_source_s_error_that_came_of_an_interrupt_ends_the_run() -> None:
    troubles = Troubles()

    def away() -> None:
        raise SourceUnavailableError("away")

    def interrupted() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise SourceUnavailableError("its connection was closed")

    with troubles.of("a"):
        away()
    with pytest.raises(SourceUnavailableError, match="closed"), troubles.of("b"):
        interrupted()
    with pytest.raises(SourceUnavailableError, match=r"^a: away$"):
        troubles.tell()
