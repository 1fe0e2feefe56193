"""Settings: the only reader of the environment.

Read by the CLI, `local`, `orchestration/definitions.py` and the gateway's app factory; everything below receives
values. Every field is an environment variable `PIPELINE_<FIELD>`; `DATABASE_URL` and `REDIS_URL` are read by their
customary names. A variable that is there and empty, as compose files make them, is not set.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import AliasChoices, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pipeline_platform.core.mistakes import in_words
from pipeline_platform.core.numbers import float_in, whole_number_in
from pipeline_platform.errors import SettingError

LOOPBACK = {None, "127.0.0.1", "::1", "localhost"}


class Settings(BaseSettings):
    """What a deployment may choose. Sizes are bytes, times are seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(
        env_prefix="PIPELINE_",
        env_ignore_empty=True,
        str_strip_whitespace=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    state_dir: Path = Field(Path(".pipeline"), description="Everything that `up` keeps: data, logs, secrets.")
    streams_dir: Path | None = Field(None, description="A folder of stream files beside the shipped ones.")

    database_url: str | None = Field(
        None,
        validation_alias=AliasChoices("DATABASE_URL", "PIPELINE_DATABASE_URL", "database_url"),
        description="The warehouse, as its owner. Unset: `up` starts an embedded PostgreSQL.",
    )
    loader_database_url: str | None = Field(None, description="The warehouse as the loader role. Default: the owner.")
    readonly_database_url: str | None = Field(None, description="The warehouse as the gateway's read-only login.")
    dagster_database_url: str | None = Field(
        None, description="Dagster's own database, on the same or another server. The gateway reads metrics from it."
    )
    redis_url: str | None = Field(
        None,
        validation_alias=AliasChoices("REDIS_URL", "PIPELINE_REDIS_URL", "redis_url"),
        description="The queue's server (Redis protocol). Unset: `up` starts an embedded Valkey.",
    )
    broker_url: str | None = Field(None, description="Celery's broker. Default: database 1 of `redis_url`.")
    analyst_database_url: str | None = Field(
        None, description="The warehouse as people's read-only login. Default: the gateway's."
    )

    api_key: str | None = Field(None, repr=False, description="The API key of commands that ask the gateway.")

    host: str = Field("127.0.0.1", description="The address the gateway and the Dagster UI bind to.")
    port: int = Field(8000, ge=1, le=65535, description="The gateway's port.")
    dagster_port: int = Field(3000, ge=1, le=65535, description="The Dagster UI's port.")
    code_socket: Path | None = Field(
        None, description="Where the code server listens, as workspace.yaml reads it; `up` sets it for its processes."
    )
    code_token: str | None = Field(
        None,
        repr=False,
        description="The secret of calls to a code server on TCP. Unset: it has a Unix socket.",
    )
    dagster_url: str | None = Field(None, description="Where people reach the Dagster UI, for links.")
    gateway_url: str | None = Field(None, description="Where people reach the gateway, for links.")
    worker_ready_file: Path | None = Field(None, description="A file that a worker makes when it takes tasks.")
    worker_max_runs: int = Field(5_000, ge=1, description="A worker's child is replaced after so many runs.")
    worker_max_memory: int = Field(1_500 * 2**20, ge=2**28, description="A worker's child is replaced beyond this.")
    redeliver_after: float = Field(
        86_400.0, gt=0, description="A run that its worker did not finish goes to another; longer than any run."
    )
    daemon_cadence: float = Field(0.05, gt=0, le=5, description="The least seconds between two looks at the sensors.")
    daemon: Literal["fast", "stock"] = Field("fast", description="Our sensor loop, or Dagster's own for comparison.")
    dagster_yaml: Path | None = Field(None, description="Another dagster.yaml than the shipped one.")
    workers: int = Field(2, ge=1, le=64, description="Celery children that execute ingest runs.")
    etl_workers: int = Field(1, ge=1, le=64, description="Celery children of `up` for all other runs: ETL, backfills.")

    batch_max_events: int = Field(1_000_000, ge=1, description="The most events one run loads.")
    batch_max_bytes: int = Field(128 * 2**20, ge=1024, description="The most payload bytes one run loads.")
    batches_in_flight: int = Field(4, ge=1, le=64, description="The most unsettled batches a stream may have.")
    sensor_interval: int = Field(
        -1, ge=-1, description="The ingest sensors' interval; -1: the next tick follows at once, for our sensor loop."
    )
    sensor_hold_seconds: float = Field(2.5, gt=0, le=20, description="How long a tick waits on the queue for data.")
    linger_seconds: float = Field(0.05, ge=0, le=10, description="After the first entry, wait so long for more.")
    runs_per_second: float = Field(
        1.0, gt=0, description="Sustained runs of one stream; under load batches grow instead."
    )
    runs_burst: float = Field(5.0, ge=1, description="Runs of one stream that may be requested without waiting.")
    lost_run_after: float = Field(60.0, gt=0, description="A requested batch without a live run is requested again.")
    breaker_share: float = Field(
        0.2, gt=0, le=1, description="More rejects than this share of the last events pause a stream."
    )
    breaker_window_events: int = Field(10_000, ge=1, description="How many last events the share is taken of.")
    breaker_min_rejects: int = Field(100, ge=1, description="Fewer rejects among them never pause a stream.")
    breaker_pause_seconds: float = Field(
        60.0, gt=0, le=900, description="A paused stream tries a small batch after so long; twice that the next time."
    )
    breaker_probe_events: int = Field(
        1_000, ge=1, description="The most events of that small batch, which is one request at least."
    )
    retry_jitter: float = Field(
        0.0, ge=0, le=1, description="An op's next try waits 2, 4, 8 s, and by chance up to this share longer."
    )
    alerts_file: Path | None = Field(None, description="A file of routes: who is told of which alerts.")
    alerts_allow_private: bool = Field(False, description="Webhooks may lead to addresses that are not public.")
    keep_alerts_days: float = Field(30.0, gt=0, description="How long alerts are kept after their end or last raise.")
    keep_replayed_letters_days: float = Field(30.0, ge=1, description="How long dead letters stay once replayed.")
    keep_discarded_letters_days: float = Field(30.0, ge=1, description="How long dead letters stay once discarded.")
    keep_open_letters_days: float | None = Field(
        None, ge=1, description="How long dead letters stay that nobody has settled. Unset: for ever."
    )
    keep_batches_days: float = Field(
        90.0, ge=1, description="How long `assets` keeps what was loaded, and failed ETL runs. Dead batches stay."
    )
    keep_audit_days: float = Field(365.0, ge=1, description="How long the audit keeps who did what.")
    rollup_interval: int = Field(5, ge=1, description="How often marked hours and days are looked for.")
    rollup_pause: float = Field(
        30.0, ge=0, description="While late events come all the time, hours and days are corrected this often."
    )
    prices_file: Path | None = Field(None, description="Which prices come from where. Default: the shipped file.")
    demo_prices_url: str | None = Field(
        None, description="A local server of made-up prices; then nothing else is asked. Set by `up --demo`."
    )
    prices_start: date = Field(
        date(2020, 1, 1),
        ge=date(1999, 1, 4),  # the euro's first; every day is a partition of every instrument
        description="The first day that candles can be backfilled from, not before 1999-01-04.",
    )
    prices_quotes_cron: str = Field("*/2 * * * *", description="When the latest prices are fetched, UTC.")
    prices_candles_cron: str = Field("1 * * * *", description="When new candles are fetched, UTC.")
    prices_days_cron: str = Field("20 0 * * *", description="When yesterday is closed over all sources, UTC.")
    prices_catch_up_days: int = Field(7, ge=1, le=60, description="How far back missed candles are looked for.")
    prices_catch_up_seconds: int = Field(60, ge=5, description="How often missed candles are looked for.")
    keep_quotes_days: float = Field(30.0, gt=0, description="How long quotes are kept; a symbol's latest for ever.")
    keep_succeeded_runs_hours: float = Field(24.0, gt=0, description="How long Dagster keeps runs that succeeded.")
    keep_failed_runs_days: float = Field(14.0, gt=0, description="How long Dagster keeps runs that failed.")
    max_run_seconds: int = Field(900, ge=10, description="A run that takes longer is ended and its batch retried.")

    body_max_bytes: int = Field(8 * 2**20, ge=1024, description="The largest body, after decompression.")
    line_max_bytes: int = Field(64 * 2**10, ge=256, description="The longest event.")
    request_max_events: int = Field(50_000, ge=1, description="The most events in one request.")
    json_max_depth: int = Field(8, ge=1, le=64, description="How deep an event may be nested.")
    backlog_max_events: int = Field(20_000_000, ge=1, description="Accepted, unloaded events a stream may hold.")
    queue_memory_share: float = Field(0.85, gt=0, lt=1, description="The share of Redis's maxmemory open to events.")
    queue_max_memory: int = Field(2 * 2**30, ge=64 * 2**20, description="The embedded Valkey's maxmemory.")
    idempotency_ttl: int = Field(86_400, ge=60, description="How long an Idempotency-Key is remembered.")
    rate_limit_key: float = Field(100_000.0, gt=0, description="Requests a second for one API key.")
    rate_limit_ip: float = Field(100_000.0, gt=0, description="Requests a second for one client address.")
    rate_limit_burst: float = Field(2.0, ge=1, description="Seconds' worth of requests that may come at once.")
    rate_limit_reads: float = Field(
        20.0, gt=0, description="Reads a second of one API key at one gateway; long pages count as several."
    )
    rate_limit_open: float = Field(
        5.0,
        gt=0,
        description="Requests a second of one address at one gateway to /metrics, /docs and others without key.",
    )
    rate_limit_reads_burst: float = Field(5.0, ge=1, description="Seconds' worth of either that may come at once.")
    rate_limit_probes: float = Field(
        20.0, gt=0, description="Probes of /healthz and /readyz a second of one address; more are answered later."
    )
    rate_limit_refusals: float = Field(
        5.0, gt=0, description="Refusals (401, 403, 404, 429) a second of one address; more are answered later."
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Comma-separated addresses or networks whose X-Forwarded-For is believed."
    )
    wait_max_seconds: float = Field(30.0, ge=0, description="The longest `?wait=`.")
    connections_max: int = Field(2_000, ge=10, description="Connections of a gateway; more are answered 503.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Comma-separated names that lead to the gateway, beside addresses, localhost and `gateway_url`; "
        "`.example.com` for all below, `*` for any.",
    )
    connections_per_address: int = Field(
        200, ge=1, description="Connections of one address; trusted proxies may have any number."
    )

    # Logins of people, in the Dagster UI and the gateway alike.
    dagster_login: Literal["on", "off"] = Field(
        "on", description="`off`: everybody who reaches the Dagster UI is an admin there; on loopback only."
    )
    public_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Comma-separated further addresses that browsers reach the servers by, as `https://host`."
    )
    session_seconds: float = Field(28_800.0, ge=60, description="A login ends after so long, however it is used.")
    session_idle_seconds: float = Field(3_600.0, ge=60, description="A login ends when it is not used for so long.")
    proxy_secret: str | None = Field(
        None,
        repr=False,
        min_length=16,
        description="With it in X-Proxy-Secret, a trusted proxy's X-Forwarded-User and -Groups are believed.",
    )
    oidc_roles: Annotated[tuple[tuple[str, str], ...], NoDecode] = Field(
        (), description="Roles of an identity provider's or a trusted proxy's groups: `data-admins=admin,data=viewer`."
    )
    oidc_issuer: str | None = Field(None, description="The identity provider's issuer; switches on single sign-on.")
    oidc_client_id: str | None = Field(None, description="Our name at the identity provider.")
    oidc_client_secret: str | None = Field(None, repr=False, description="Our secret at the identity provider.")
    oidc_scopes: str = Field("openid profile email", description="What we ask the identity provider for.")
    oidc_groups_claim: str = Field("groups", description="The claim of the ID token that names somebody's groups.")

    embedded: bool = Field(False, description="Set by `up` for its processes when both servers are embedded.")
    chaos: float = Field(0.0, ge=0, le=1, description="The share of loads that fail, to watch; set by `up --chaos`.")
    chaos_seed: int = Field(0, description="The same seed makes the same loads fail.")

    @model_validator(mode="before")
    @classmethod
    def _set(cls, values: dict[str, object]) -> dict[str, object]:
        return {name: value for name, value in values.items() if not (isinstance(value, str) and not value.strip())}

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: object, info: ValidationInfo) -> object:
        """Numbers have one reader everywhere; pydantic would take `1_0` for ten, and `inf` for a number of seconds."""
        kinds = _kinds(cls.model_fields[info.field_name or ""].annotation)
        if not isinstance(value, str) or not kinds & {int, float}:
            return value
        number = whole_number_in(value) if int in kinds else float_in(value)
        if math.isinf(number):
            raise ValueError(f"{value[:40]!r} is not a finite number")
        return number

    @model_validator(mode="after")
    def _no_chaos_in_earnest(self) -> Settings:
        hosts = {urlsplit(url).hostname for url in (self.database_url, self.loader_database_url, self.redis_url) if url}
        if self.chaos and not (self.embedded and hosts <= LOOPBACK):
            raise ValueError("chaos is for `pipeline-platform up --chaos` with its embedded servers, nowhere else")
        return self

    @field_validator("gateway_url", "dagster_url", "demo_prices_url", "oidc_issuer")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        try:
            parts = urlsplit(value or "http://unset")
            whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            whole = False
        if not whole:
            raise ValueError(f"{value!r} is not a URL with scheme and host, such as https://pipeline.example.com")
        return value

    @field_validator("oidc_roles", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        parts = cls._split(value)
        if not isinstance(parts, tuple) or not all(isinstance(part, str) for part in parts):
            return value
        if wrong := [part for part in parts if not re.fullmatch(r".+=(viewer|operator|admin)", part)]:
            raise ValueError(f"{wrong[0]!r} is not `group=role` with a role of viewer, operator, admin")
        return tuple(tuple(each.strip() for each in part.rsplit("=", 1)) for part in parts)

    @field_validator("public_urls", "trusted_proxies", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @classmethod
    def load(cls, **overrides: object) -> Settings:
        """Settings from the environment with `overrides` on top; SettingError names the variable that is wrong."""
        try:
            return cls(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
        except ValidationError as error:
            first = error.errors()[0]
            if not first["loc"]:  # two settings that do not go together
                raise SettingError(f"{first['msg'].removeprefix('Value error, ').capitalize()}.") from None
            said = in_words(first, "docs/settings.md").rstrip(".")
            raise SettingError(f"{_name(str(first['loc'][0]), overrides)} is not usable: {said}.") from None

    @property
    def broker(self) -> str:
        """Celery's broker URL: `broker_url`, or database 1 of `redis_url`."""
        if self.broker_url:
            return self.broker_url
        parts = urlsplit(require(self.redis_url, "REDIS_URL"))
        query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name != "db"])
        return urlunsplit(parts._replace(path="/1", query=query))

    @property
    def dagster_link(self) -> str:
        """The base of links to the Dagster UI, without a trailing slash."""
        return (self.dagster_url or f"http://{self.host}:{self.dagster_port}").rstrip("/")

    @property
    def gateway_link(self) -> str:
        """The base of links to the gateway, without a trailing slash."""
        return (self.gateway_url or f"http://{self.host}:{self.port}").rstrip("/")


def _kinds(annotation: object) -> set[object]:
    return {annotation, *get_args(annotation)}


def _name(field: str, overrides: Mapping[str, object]) -> str:
    """What its author calls a setting: the option of a command, or the whole name of the environment variable."""
    if overrides.get(field) is not None:
        return f"--{field.replace('_', '-')}"
    return f"PIPELINE_{field.upper()}" if field in Settings.model_fields else field


def require(value: str | None, name: str) -> str:
    """`value`, or a SettingError that names the missing variable."""
    if not value:
        raise SettingError(f"{name} is not set. Run `pipeline-platform up`, or set it to a server of your own.")
    return value
