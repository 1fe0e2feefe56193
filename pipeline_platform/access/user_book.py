"""The warehouse's users as logins know them."""

from __future__ import annotations

import time
from collections.abc import Callable

import sqlalchemy as sa

from pipeline_platform.access.doorkeeper import User
from pipeline_platform.access.roles import Role
from pipeline_platform.errors import PermanentError, TransientError, WarehouseUnavailableError
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.users import find_user

_PAUSE = 1.0  # after a failure: requests must not queue for a silent server


class UserBook:
    """Reads users by a login that may; every failure is a TransientError, for a login that cannot be looked at."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._failed_at = float("-inf")

    @classmethod
    def of(cls, url: str) -> UserBook:
        """The users of the warehouse at `url`; it need not be up."""
        parsed = sa.make_url(url)
        options = [*parsed.normalized_query.get("options", ()), "-c statement_timeout=3000"]
        patient = parsed.update_query_dict({"options": " ".join(options)})
        return cls(connect(patient.render_as_string(hide_password=False), pool_size=1, application="pipeline-logins"))

    def find(self, name: str) -> User | None:
        """The user of this name."""
        if self._clock() - self._failed_at < _PAUSE:
            raise WarehouseUnavailableError("The users cannot be read for now.")
        try:
            row = find_user(self._engine, name)
        except TransientError:
            self._failed_at = self._clock()
            raise
        except PermanentError as error:  # no right to read them, or a warehouse that is not migrated
            raise WarehouseUnavailableError(f"The users cannot be read. {error}") from error
        if row is None:
            return None
        stamp = row.sessions_from.isoformat()
        return User(row.name, row.digest, Role(row.role), stamp, disabled=row.disabled_at is not None)

    def close(self) -> None:
        """Ends the connections."""
        self._engine.dispose()
