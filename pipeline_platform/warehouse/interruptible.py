"""A connection that an interrupt ends: what it was doing is stopped in the server too, and nobody uses it again.

The driver knows Ctrl-C alone. After any other interrupt, such as Dagster's of a canceled run, it would leave the
connection busy: the rollback that follows fails, and the statement goes on and keeps its locks.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

CANCEL_SECONDS = 2.0  # for the server to take the request to stop; its answer is not waited for
T = TypeVar("T")


class Connection(psycopg.Connection[Any]):
    """The driver's, except when what interrupts it is no Exception."""

    _dropped = False

    def wait(self, gen: PQGen[T], *args: Any, **named: Any) -> T:
        """Waits for the server; every use of a connection, COPY too, comes by here."""
        try:
            return super().wait(gen, *args, **named)
        except BaseException as error:
            if not isinstance(error, Exception):
                self.drop()
            raise

    def rollback(self) -> None:
        """Rolls back. The server has done it for a connection that was dropped, and does it for one that is busy."""
        if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            self.drop()
        if not self._dropped:
            super().rollback()

    def drop(self) -> None:
        """Asks the server to stop what it is doing, and closes."""
        self._dropped = True
        try:
            with suppress(psycopg.Error, OSError):
                if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                    self.cancel_safe(timeout=CANCEL_SECONDS)
        finally:
            self.close()
