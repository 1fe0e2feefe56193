"""The filters of dead letters as options."""

from __future__ import annotations

from typing import Annotated

import typer

Stream = Annotated[list[str] | None, typer.Option("--stream", help="Only those of this stream.", show_default=False)]
Reason = Annotated[
    list[str] | None,
    typer.Option("--reason", help="Why they were refused: malformed, unknown_field, bad_type, ...", show_default=False),
]
State = Annotated[
    list[str] | None, typer.Option("--state", help="open, replaying, replayed or discarded.", show_default=False)
]
Field = Annotated[list[str] | None, typer.Option("--field", help="The field that is to blame.", show_default=False)]
Receipt = Annotated[
    str | None, typer.Option("--receipt", help="The receipt of the request that they came in.", show_default=False)
]
Batch = Annotated[
    int | None, typer.Option("--batch", min=1, help="The batch that refused them first.", show_default=False)
]
TextIn = Annotated[
    str | None, typer.Option("--text", help="Somewhere in payload or message, whatever the case.", show_default=False)
]
