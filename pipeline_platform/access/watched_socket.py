"""An open WebSocket ends when the login that opened it does, also when nothing is sent over it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

OVER = 4401
_GRACE = 5.0  # for the app to see that its socket is closed


class WatchedSocket:
    """Runs the app, asks `still_good` every `seconds`, and closes the socket with 4401 at the first no."""

    def __init__(self, app: ASGIApp, still_good: Callable[[], Awaitable[bool]], seconds: float) -> None:
        self._app = app
        self._still_good = still_good
        self._seconds = seconds
        self._over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if not self._over:  # a socket that is closed takes nothing more
                await send(message)

        app = asyncio.ensure_future(self._app(scope, receive, guarded))
        watch = asyncio.ensure_future(self._watch(send))
        try:
            await asyncio.wait({app, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not app.done():
                await asyncio.wait({app}, timeout=_GRACE)
        finally:
            watch.cancel()
            app.cancel()
            ended, _ = await asyncio.gather(app, watch, return_exceptions=True)
        if isinstance(ended, Exception) and not self._over:
            raise ended

    async def _watch(self, send: Send) -> None:
        while not self._over:
            await asyncio.sleep(self._seconds)
            if not await self._still_good():
                self._over = True
                await send({"type": "websocket.close", "code": OVER, "reason": "The login is over."})
