"""Limits for request bodies that are kept in memory: those of all calls except uploads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from uploader_server.http.errors import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MEMORY = 64 << 20
"""Total bytes of buffered bodies over all requests."""
UPLOADS = ("/api/upload/batch", "/api/upload/packs", "/api/upload/files")
"""Paths whose bodies are streamed, with limits of their own."""


class Bodies:
    """Middleware whose `receive` raises ApiError: 408 after `deadline` seconds, 503 if MEMORY is exceeded."""

    def __init__(self, deadline: float, app: ASGIApp) -> None:
        self._deadline = deadline
        self._app = app
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["path"].startswith(UPLOADS):
            await self._app(scope, receive, send)
            return
        end = asyncio.get_running_loop().time() + self._deadline
        buffered, complete = 0, False

        async def limited() -> Message:
            nonlocal buffered, complete
            if complete:  # only the disconnect follows
                return await receive()
            message = await before(end, receive)
            complete = not message.get("more_body", False)
            size = len(message.get("body", b""))
            if self._buffered + size > MEMORY:
                raise _late(ApiError(503, "SERVER_BUSY", "Too many calls at once", headers={"retry-after": "1"}))
            self._buffered += size
            buffered += size
            return message

        try:
            await self._app(scope, limited, send)
        finally:
            self._buffered -= buffered


async def before(end: float, receive: Receive) -> Message:
    """Return the next message. Raises ApiError 408 if none arrives before `end` (seconds, loop clock)."""
    try:
        async with asyncio.timeout_at(end):
            return await receive()
    except TimeoutError:
        raise _late(ApiError(408, "REQUEST_TIMEOUT", "The request took too long to arrive")) from None


def _late(error: ApiError) -> ApiError:
    error.drain = True  # the rest of the body is unread
    return error
