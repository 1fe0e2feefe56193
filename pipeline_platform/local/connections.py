"""Where a running stack is: written by `up`, read by every other command, so that none needs settings of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import sqlalchemy as sa

from pipeline_platform.errors import SettingError
from pipeline_platform.local.secret_files import write_private
from pipeline_platform.settings import Settings

FILE = "connections.json"


@dataclass(frozen=True)
class Connections:
    """URLs and the first API key. They hold passwords: the file is readable by its owner only.

    `warehouse_readonly_url` is for people, `warehouse_reader_url` the gateway's. `redis_url` is an admin's,
    `redis_users` has the other users' by name. Servers of one's own may have one login for all.
    """

    gateway_url: str
    dagster_url: str
    warehouse_url: str
    warehouse_loader_url: str
    warehouse_readonly_url: str
    dagster_database_url: str
    redis_url: str
    api_key: str = ""
    demo_prices_url: str = ""
    warehouse_reader_url: str = ""
    dagster_reader_url: str = ""
    redis_users: Mapping[str, str] = field(default_factory=dict)

    def queue_url(self, user: str) -> str:
        """The queue as one of its users."""
        return self.redis_users.get(user, self.redis_url)

    def save(self, state_dir: Path) -> None:
        """Writes the file, readable by its owner only, in one step."""
        write_private(state_dir / FILE, json.dumps(asdict(self), indent=1) + "\n")


def find_connections(settings: Settings) -> Connections:
    """The connections of the stack in the state folder, or those that the settings name.

    Raises SettingError when there are neither.
    """
    try:
        text = (settings.state_dir / FILE).read_text()
    except PermissionError:
        raise SettingError(
            f"{settings.state_dir / FILE} belongs to another user; run as the one who ran `up`."
        ) from None
    except OSError:
        return _from_settings(settings)
    known = {each.name for each in fields(Connections)}
    found = Connections(**{name: value for name, value in json.loads(text).items() if name in known})
    return replace(found, api_key=settings.api_key) if settings.api_key else found


def beside(database_url: str) -> str:
    """The database `<name>_dagster` on the same server: where Dagster keeps its own when nothing else is said."""
    url = sa.make_url(database_url).set(drivername="postgresql")
    return url.set(database=f"{url.database}_dagster").render_as_string(hide_password=False)


def _from_settings(settings: Settings) -> Connections:
    if not (settings.database_url and settings.redis_url):
        raise SettingError(
            f"There is no stack in {settings.state_dir}. Run `pipeline-platform up`, pass --state-dir, "
            "or set DATABASE_URL and REDIS_URL."
        )
    return Connections(
        gateway_url=f"http://{settings.host}:{settings.port}",
        dagster_url=settings.dagster_link,
        warehouse_url=settings.database_url,
        warehouse_loader_url=settings.loader_database_url or settings.database_url,
        warehouse_readonly_url=settings.analyst_database_url or settings.readonly_database_url or settings.database_url,
        dagster_database_url=settings.dagster_database_url or beside(settings.database_url),
        redis_url=settings.redis_url,
        api_key=settings.api_key or "",
        demo_prices_url=settings.demo_prices_url or "",
        warehouse_reader_url=settings.readonly_database_url or "",
    )
