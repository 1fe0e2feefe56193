"""`login`: a link that logs a browser in."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline_platform.access.links import MINUTES, one_time_link
from pipeline_platform.cli.options import AsJson, StateDir, connections, print_json
from pipeline_platform.queue.connection import connect


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("login")(login)


def login(
    gateway: Annotated[bool, typer.Option("--gateway", help="A link to the gateway, not to the Dagster UI.")] = False,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Print a link that logs a browser in once, with the role of the API key; it is good for 15 minutes.

    Example: pipeline-platform login
    """
    _, where = connections(state_dir)
    client = connect(where.redis_url)
    try:
        link = one_time_link(client, where.gateway_url if gateway else where.dagster_url, where.api_key)
    finally:
        client.close()
    if as_json:
        print_json({"link": link, "minutes": MINUTES})
        return
    typer.echo(link)
    typer.echo(f"The link is good for one login within {MINUTES} minutes.", err=True)
