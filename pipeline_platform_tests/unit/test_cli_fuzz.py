"""No input to any command ends in a traceback: arguments made from the commands themselves, with no server to be found.

PIPELINE_FUZZ is how many command lines are tried; 150 by default.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from enum import Enum
from functools import cache
from inspect import cleandoc
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline_platform.cli import audit, backfill, gateway_client, up
from pipeline_platform.cli.ingest import session as ingest_session
from pipeline_platform.cli.main import main
from pipeline_platform.cli.reference import EXAMPLE, commands
from pipeline_platform.errors import PermanentError, SettingError
from pipeline_platform.local.connections import Connections
from pipeline_platform.local.dagster_api import DagsterApi, Partitions
from pipeline_platform.warehouse import migrate

COMMANDS = [(name.split()[1:], command) for name, command in commands()]
# Words of every command's own examples, so that some of them get far.
WORDS = sorted(
    {
        word.strip("\"'")
        for _, command in COMMANDS
        for line in cleandoc(command.help or "").splitlines()
        if line.startswith(EXAMPLE)
        for word in line.split()[2:]
    }
)
ODD = [
    *(
        "",
        " ",
        "-",
        "--",
        "-1",
        "0",
        "é",
        "\udcff",
        "a\nb",
        "\x1b[31m",
        "%s",
        "[red]",
        "../..",
        "~",
        "*",
        "a=b",
        "=",
        "=1",
    ),
    *("telemetry", "orders", "prices/candles", "telemetry.1763712000000-0", "1763712000000-99999999999999999999"),
    *("1d", "0s", "999999d", "999999999999999999999d", "1e999d", "nan", "infinity", "1_000", "0x10", "٣", "9" * 400),
    *("0001-01-01", "9999-12-31", "2026-02-30", "10000-01-01", "-0001-01-01", "2026-01-01T00:00:00+23:59"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-06-30T23:59:60Z", "1" * 5000),
    *(
        "{}",
        "[]",
        "null",
        '{"merge": {"a": NaN}}',
        '{"merge": 1}',
        '{"a":' * 2000,
        "value=float(value) / 0",
        "value=1 ** 9e9",
    ),
    *("http://127.0.0.1:1", "http://[", "http://127.0.0.1:99999", "http://127.0.0.1:x", "ftp://127.0.0.1", "http://"),
    *("http://" + "a" * 80 + ".", "http://user:p@127.0.0.1:1/é?x#y", "http://127.0.0.1:1/\n", "http://\udcff"),
    *("127.0.0.1/33", "::1", "256.0.0.1", "admin", "viewer", "operator", "read,admin", "ingest"),
]
NUMBERS = ["0", "1", "-1", "2147483648", "9223372036854775808", "-9" + "9" * 30, "1" * 5000, "1.5", "x", "", "٣", "1_0"]
FLOATS = ["0", "0.5", "-1", "nan", "inf", "-inf", "1e308", "1e-320", "1e999", "x", "", "1_0"]
DATES = [
    "0001-01-01",
    "9999-12-31",
    "2026-02-30",
    "2026-01-01",
    "1969-12-31",
    "x",
    "",
    "\udcff",
    "99999-01-01",
    "2026-1-1",
]
INPUTS = [
    b"",
    b"y\n",
    b"n\n",
    b'{"source":"a","metric":"m","value":1}\n',
    b"\xff\xfe\n",
    b"a,b\n1,2\n",
    b"\x1f\x8b\x08",
    b"\0",
]
PATHS = [
    "missing",
    "folder",
    "file.csv",
    "file.json",
    "file.parquet",
    "file.ndjson.gz",
    "file.yaml",
    "/dev/null",
    "/dev/null/x",
]
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=12).map(
    lambda text: os.fsdecode(text.encode("utf-8", "replace"))
)


# What gets a command far, by the name of its argument or option.
GOOD = {
    "asset": "prices/candles", "event": "login", "expires": "90d", "field": "value", "file": "good.ndjson",
    "first": "2026-01-01", "kind": "ingest", "last": "2026-01-02", "merge": '{"a": 1}', "name": "telemetry",
    "outcome": "allowed", "output": "out", "path": "folder", "query": "select 1", "reason": "malformed",
    "receipt": "telemetry.1763712000000-0", "rename": "a=b", "scope": "read", "set_": "value=float(value) / 100",
    "severity": "critical", "since": "2h", "source": "demo", "state": "open", "state_dir": ".pipeline",
    "stream": "telemetry", "symbol": "BTC-USD", "until": "1h", "url": "http://127.0.0.1:1",
}  # fmt: skip


STRANGE = st.sampled_from([*ODD, *PATHS]) | st.sampled_from(WORDS) | TEXTS
HINTS = {" ".join(path): get_type_hints(command.callback) for path, command in COMMANDS}


@cache
def values(name: str, hint: Any, *, odd: bool) -> st.SearchStrategy[str]:
    """What is given for an option of that name and type."""
    kinds = {hint, *get_args(hint), *(inner for each in get_args(hint) for inner in get_args(each))}
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Enum):
            known = [str(each.value) for each in kind]
            return st.sampled_from([*known, "", "x"] if odd else known)
    for kind, strange, usual in ((int, NUMBERS, "1"), (float, FLOATS, "0")):
        if kind in kinds:
            return st.sampled_from(strange) if odd else st.just(usual)
    if not odd:
        return st.just(GOOD.get(name, "x"))
    return st.sampled_from(DATES) if name in ("first", "last") else STRANGE


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with some of its options, of which few are odd, and with arguments."""
    path, command = draw(st.sampled_from(COMMANDS))
    hints = HINTS[" ".join(path)]
    options, arguments = [], []
    for each in command.params:
        argument = each.param_type_name == "argument"
        if each.name == "help" or not (each.required or not draw(st.integers(0, 1 if argument else 3))):
            continue
        value = values(each.name, hints.get(each.name), odd=not draw(st.integers(0, 2)))
        if argument:
            arguments += draw(st.lists(value, min_size=1, max_size=2 if each.nargs == -1 else 1))
            continue
        name = draw(st.sampled_from([*each.opts, *each.secondary_opts]))
        times = draw(st.integers(1, 2)) if each.multiple else 1
        options += [name if each.is_flag else f"{name}={draw(value)}" for _ in range(times)]
    return [*path, *options, *(["--", *arguments] if arguments else [])]


SLEEP = time.sleep
DAY = date(2024, 1, 1)


class Dagster(DagsterApi):
    """Dagster as far as `backfill` asks it before anything is launched."""

    def partitions(self, asset: str) -> Partitions:
        days = [f"{DAY + timedelta(days=number)}" for number in range(0, 1000)]
        if asset == "prices/candles":
            return Partitions({"day": days, "instrument": ["demo:BTCUSDT"]}, frozenset())
        if asset == "warehouse/orders_1h":
            return Partitions({"": [f"{day}-{hour:02}:00" for day in days for hour in range(24)]}, frozenset(days[:9]))
        return Partitions({"": days}, frozenset(days[:9]))

    def launch(self, *_: object, **__: object) -> str:
        raise PermanentError("Nothing is launched here.")


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a stack's addresses, at none of which anybody answers; nothing starts, and nobody waits."""
    folder = tmp_path_factory.mktemp("fuzz")
    away = "postgresql://u:p@127.0.0.1:1/x"
    (folder / ".pipeline").mkdir()
    Connections(
        "http://127.0.0.1:1",
        "http://127.0.0.1:1",
        away,
        away,
        away,
        away,
        "redis://127.0.0.1:1",
        "pk_a_b",
        "http://127.0.0.1:1",
    ).save(folder / ".pipeline")
    (folder / "folder").mkdir()
    for name, content in (
        ("file.csv", b'a;b\n"'),
        ("file.json", b"[1"),
        ("file.parquet", b"PAR1"),
        ("file.yaml", b"a: ["),
    ):
        (folder / name).write_bytes(content)
    (folder / "good.ndjson").write_bytes(b'{"source":"a","metric":"m","value":1}\n')
    (folder / "file.ndjson.gz").write_bytes(b"\x1f\x8b\x08\0")

    def waits(*_: object) -> None:
        raise KeyboardInterrupt

    def starts(*_: object, **__: object) -> None:
        raise SettingError("Nothing is started here.")

    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("PIPELINE_", "DAGSTER_")) or name in ("DATABASE_URL", "REDIS_URL"):
                patch.delenv(name)
        patch.chdir(folder)
        patch.setattr(audit, "time", SimpleNamespace(sleep=waits))
        patch.setattr(ingest_session.Gateway, "_sleep", waits)
        defaults = gateway_client.GatewayClient.__init__.__defaults__ or ()
        patch.setattr(
            gateway_client.GatewayClient.__init__,
            "__defaults__",
            tuple(waits if each is SLEEP else each for each in defaults),
        )
        patch.setattr(migrate, "_TRIES", 1)
        patch.setattr(backfill, "DagsterApi", Dagster)
        patch.setattr(up, "Stack", starts)
        patch.setattr(os, "execvpe", starts)
        patch.setattr(os, "chdir", lambda _: None)
        yield folder


@pytest.mark.usefixtures("nowhere")
@settings(
    max_examples=int(os.environ.get("PIPELINE_FUZZ", "150")),
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(arguments=command_lines(), stdin=st.sampled_from(INPUTS))
@example([], b"")
@example(["\udcff"], b"")
@example(["sql", "--\udcff"], b"")
@example(["keys", "nonsense"], b"")
@example(["backfill", "--from=1900-01-01", "--to=1900-02-01", "prices/candles"], b"")
@example(["backfill", "--from=2026-01-01", "--to=9999-12-31", "prices/candles"], b"")
@example(["backfill", "--from=0001-01-01", "--to=9999-12-31", "warehouse/orders_1h"], b"")
@example(["backfill", "--from=9999-12-31", "--to=9999-12-31", "prices/daily"], b"")
@example(["sql", "--timeout=inf", "select 1"], b"")
@example(["streams", "resume", "\udcff"], b"")
def test_no_input_to_any_command_ends_in_a_traceback(arguments: list[str], stdin: bytes) -> None:
    code, said = _main(arguments, stdin)
    assert code in (0, 1, 2, 3, 130)
    assert "Traceback" not in said
    assert said or code != 1


def _main(arguments: list[str], stdin: bytes) -> tuple[object, str]:
    """The exit code and what it says."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pipeline-platform", *arguments])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as ended:
            main()
    return ended.value.code or 0, b"".join(each.buffer.getvalue() for each in (out, err)).decode()
