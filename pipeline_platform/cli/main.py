"""`pipeline-platform`: the command line. A user's mistake is one sentence and exit code 1, never a traceback."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NoReturn

import typer

from pipeline_platform.cli.terminal import SafeConsole
from pipeline_platform.errors import PlatformError

# Each command, or group of commands, and its module in this folder.
COMMANDS = {
    "up": "up",
    "worker": "worker",
    "status": "status",
    "ingest": "ingest.command",
    "streams": "streams",
    "job": "job",
    "assets": "assets",
    "dlq": "letter_changes",
    "alerts": "alerts",
    "backfill": "backfill",
    "sql": "sql",
    "migrate": "migrate",
    "doctor": "doctor",
    "keys": "keys",
    "login": "login",
    "users": "users",
    "audit": "audit",
}


def command_line(word: str | None = None) -> typer.Typer:
    """Every command; or, where `word` is one of COMMANDS, that one alone: half of a short command's time is imports."""
    app = typer.Typer(
        name="pipeline-platform",
        help="POST events, see them loaded exactly once into PostgreSQL through Dagster.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_stay_a_group)
    for name in [word] if word in COMMANDS else COMMANDS:
        import_module(f"pipeline_platform.cli.{COMMANDS[name]}").register(app)
    return app


def _stay_a_group() -> None:
    # Without a callback Typer makes of a single command the whole command line, and its name an argument.
    pass


def main() -> None:
    """The console script."""
    try:
        command_line(sys.argv[1] if len(sys.argv) > 1 else None)()
    except PlatformError as error:
        _fail(str(error))
    except UnicodeEncodeError as error:  # an argument: whatever is read is checked where it is read
        _fail(f"{error.object[:100]!r} is not UTF-8.")
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    stderr = SafeConsole(stderr=True)
    stderr.print(f"pipeline-platform: {message}", style="red", markup=False, soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
