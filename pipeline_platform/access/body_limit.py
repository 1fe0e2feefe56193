"""A bound on the body of every request, for an app that reads bodies whole."""

from __future__ import annotations

from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyTooLargeError(Exception):
    """The body has passed the limit while it was read."""


class BodyLimit:
    """Answers 413 to a body of more than `limit` bytes, as declared or as it comes."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        size, begun = int(declared) if declared.isdigit() else 0, False

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > self._limit:
                    raise BodyTooLargeError
            return message

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        too_large = PlainTextResponse(f"A body has at most {self._limit:,} bytes.", 413, {"Connection": "close"})
        if size > self._limit:
            await too_large(scope, receive, send)
            return
        size = 0
        try:
            await self._app(scope, counted, noted)
        except ClientDisconnect:
            return  # whoever sent it does not wait for an answer
        except BodyTooLargeError:
            if begun:
                raise
            await too_large(scope, receive, send)
