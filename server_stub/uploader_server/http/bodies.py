"""Limits of the bodies that are held in memory: those of all calls that are no uploads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from uploader_server.http.errors import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MEMORY = 64 << 20
"""Bytes of such bodies that all requests together hold."""
UPLOADS = ("/api/upload/batch", "/api/upload/packs", "/api/upload/files")
"""Paths whose bodies are read piece by piece, with limits of their own."""


class Bodies:
    """A layer whose `receive` raises ApiError: 408 after `deadline` seconds, 503 where too much is held already."""

    def __init__(self, deadline: float, app: ASGIApp) -> None:
        self._deadline = deadline
        self._app = app
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["path"].startswith(UPLOADS):
            await self._app(scope, receive, send)
            return
        end = asyncio.get_running_loop().time() + self._deadline
        held, complete = 0, False

        async def limited() -> Message:
            nonlocal held, complete
            if complete:  # what follows is the end of the connection
                return await receive()
            message = await before(end, receive)
            complete = not message.get("more_body", False)
            size = len(message.get("body", b""))
            if self._held + size > MEMORY:
                raise _late(ApiError(503, "SERVER_BUSY", "Too many calls at once", headers={"retry-after": "1"}))
            self._held += size
            held += size
            return message

        try:
            await self._app(scope, limited, send)
        finally:
            self._held -= held


async def before(end: float, receive: Receive) -> Message:
    """The next message of a body. Raises ApiError 408 where there is none until `end` (seconds of the loop's clock)."""
    try:
        async with asyncio.timeout_at(end):
            return await receive()
    except TimeoutError:
        raise _late(ApiError(408, "REQUEST_TIMEOUT", "The request took too long to arrive")) from None


def _late(error: ApiError) -> ApiError:
    error.drain = True  # a part of the body is still on its way
    return error
