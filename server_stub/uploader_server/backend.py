"""What the REST calls and Socket.IO need of a flavour of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from starlette.requests import Request


class Backend(Protocol):
    """What a flavour does; each call may raise ApiError."""

    async def create(self, category: str, expected: int) -> tuple[str, str]:
        """Open a session; its id and when it was created."""

    async def progress(self, session_id: str) -> dict[str, Any]:
        """The answer to `/progress`."""

    async def batch(self, request: Request) -> dict[str, Any]:
        """Receive a batch."""

    async def cancel(self, session_id: str) -> None:
        """Cancel a session."""

    async def delete(self, file_id: str) -> bool:
        """Delete a stored file; False where there is none with this id."""

    async def finish(self, session_id: str, given_up: int) -> dict[str, Any]:
        """End a session, of whose files the client gave up so many."""

    def snapshot(self, session_id: str) -> dict[str, Any] | None:
        """The event for somebody who joins."""

    def statuses(self) -> dict[str, int]:
        """How many sessions have each status."""

    async def sweep(self) -> None:
        """Look after old sessions, for as long as the server runs."""
