"""Settings from the environment, as compose files, .env files and people's shells leave it."""

from __future__ import annotations

from typing import get_args

import pytest

from pipeline_platform.errors import SettingError
from pipeline_platform.settings import Settings

ALIASED = {"database_url": "DATABASE_URL", "redis_url": "REDIS_URL"}
VARIABLES = [ALIASED.get(field, f"PIPELINE_{field.upper()}") for field in Settings.model_fields]


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*VARIABLES, "PIPELINE_DATABASE_URL", "PIPELINE_REDIS_URL"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("empty", ["", " ", "\t", "\r"], ids=repr)
def test_every_variable_that_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    defaults = Settings.load()
    for variable in VARIABLES:
        monkeypatch.setenv(variable, empty)
    assert Settings.load() == defaults


def test_another_name_of_an_empty_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("PIPELINE_DATABASE_URL", "postgresql://here/it")
    assert Settings.load().database_url == "postgresql://here/it"


@pytest.mark.parametrize("around", ["{} ", " {}", "{}\r"], ids=repr)
def test_blanks_around_a_value_are_not_of_it(monkeypatch: pytest.MonkeyPatch, around: str) -> None:
    monkeypatch.setenv("REDIS_URL", around.format("redis://queue:6379/0"))
    monkeypatch.setenv("PIPELINE_PORT", around.format("8001"))
    settings = Settings.load()
    assert (settings.redis_url, settings.port) == ("redis://queue:6379/0", 8001)


NUMBERS = {
    field: f"PIPELINE_{field.upper()}"
    for field, info in Settings.model_fields.items()
    if {info.annotation, *get_args(info.annotation)} & {int, float}
}


@pytest.mark.parametrize(
    "value", ["1_0", "1_000.5", "\u0661\u0660", "inf", "nan", "-Infinity", "1e400", "0x10", "1,5", "1 0"]
)
def test_every_number_has_the_one_reader(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert {"wait_max_seconds", "port", "keep_open_letters_days"} <= set(NUMBERS)
    for variable in NUMBERS.values():
        with monkeypatch.context() as one:
            one.setenv(variable, value)
            with pytest.raises(
                SettingError, match=rf"^{variable} is not usable: .* is not a ((finite|whole) )?number\.$"
            ):
                Settings.load()


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("PIPELINE_WAIT_MAX_SECONDS", "1e1", 10.0),
        ("PIPELINE_KEEP_OPEN_LETTERS_DAYS", "+7.50", 7.5),
        ("PIPELINE_WORKERS", "3.0", 3),
        ("PIPELINE_SENSOR_INTERVAL", "-1", -1),
        ("PIPELINE_PORT", "008000", 8000),
    ],
)
def test_a_number_may_be_written_in_any_way(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, read: float
) -> None:
    monkeypatch.setenv(variable, value)
    assert getattr(Settings.load(), variable.removeprefix("PIPELINE_").lower()) == read


def test_a_whole_number_has_no_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_WORKERS", "2.5")
    with pytest.raises(SettingError, match=r"^PIPELINE_WORKERS is not usable: '2.5' is not a whole number\.$"):
        Settings.load()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PIPELINE_PORT", "eighty"),
        ("PIPELINE_CHAOS", "2"),
        ("PIPELINE_DAEMON", "quick"),
        ("PIPELINE_PRICES_START", "yesterday"),
        ("PIPELINE_PRICES_START", "1970-01-01"),
        ("PIPELINE_OIDC_ROLES", "admins"),
        ("PIPELINE_EMBEDDED", "perhaps"),
        ("PIPELINE_GATEWAY_URL", "nonsense"),
        ("PIPELINE_GATEWAY_URL", "127.0.0.1:8000"),
        ("PIPELINE_GATEWAY_URL", "ftp://gateway"),
        ("PIPELINE_DAGSTER_URL", "http://"),
        ("PIPELINE_DAGSTER_URL", "http://host:port"),
        ("PIPELINE_DEMO_PRICES_URL", "http://[::1"),
        ("PIPELINE_OIDC_ISSUER", "login.example.com"),
    ],
)
def test_an_error_names_the_variable_whole(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingError, match=rf"^{variable} is not usable: [^\n]*\.$"):
        Settings.load()


def test_an_error_names_the_option_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_DAGSTER_PORT", "3000")
    with pytest.raises(SettingError, match=r"^--dagster-port is not usable: "):
        Settings.load(dagster_port=99_999)
