"""Running stacks, each kept for as many trials as it stays sound; the next trial then gets a new one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import pytest

from pipeline_platform_tests.faults.form import FORM
from pipeline_platform_tests.faults.own_servers import ProxiedStand
from pipeline_platform_tests.faults.stand import Stand

S = TypeVar("S", bound=Stand)


class _Kept(Generic[S]):
    """Keeps a stack from test to test until one of them has spoiled it."""

    def __init__(self, make: Callable[[], S]) -> None:
        self._make = make
        self._stand: S | None = None

    def take(self) -> S:
        if self._stand is not None and self._stand.spoiled:
            self.drop()
        if self._stand is None:
            self._stand = self._make()
            self._stand.start()
        return self._stand

    def drop(self) -> None:
        if self._stand is not None:
            self._stand.remove()
            self._stand = None


@pytest.fixture(scope="package")
def _embedded() -> Iterator[_Kept[Stand]]:
    kept = _Kept(Stand)
    yield kept
    kept.drop()


@pytest.fixture(scope="package")
def _proxied() -> Iterator[_Kept[ProxiedStand]]:
    kept = _Kept(lambda: ProxiedStand(FORM.seed))
    yield kept
    kept.drop()


@pytest.fixture
def stand(_embedded: _Kept[Stand], _proxied: _Kept[ProxiedStand]) -> Stand:
    """A running stack with embedded servers."""
    _proxied.drop()  # one stack at a time: the machine may be small
    return _embedded.take()


@pytest.fixture
def proxied(_proxied: _Kept[ProxiedStand], _embedded: _Kept[Stand]) -> ProxiedStand:
    """A running stack on servers of its own behind proxies, with bugs and a fragile decoder planted."""
    _embedded.drop()
    return _proxied.take()


@pytest.fixture(scope="module")
def proxied_for_bugs(_proxied: _Kept[ProxiedStand], _embedded: _Kept[Stand]) -> ProxiedStand:
    """The same, for a whole module."""
    _embedded.drop()
    return _proxied.take()
