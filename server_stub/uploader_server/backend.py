"""The interface of a flavour, for the REST calls and Socket.IO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from starlette.requests import Request


class Backend(Protocol):
    """A flavour of the server; each call may raise ApiError."""

    async def create(self, category: str, expected: int) -> tuple[str, str]:
        """Create a session; return its id and creation time."""

    async def progress(self, session_id: str) -> dict[str, Any]:
        """Return the response of `/progress`."""

    async def batch(self, request: Request) -> dict[str, Any]:
        """Receive a batch."""

    async def cancel(self, session_id: str) -> None:
        """Cancel a session."""

    async def delete(self, file_id: str) -> bool:
        """Delete a stored file; return False if there is none with this id."""

    async def finish(self, session_id: str, given_up: int) -> dict[str, Any]:
        """End a session; `given_up` is the number of files that the client won't send."""

    def snapshot(self, session_id: str) -> dict[str, Any] | None:
        """Return the event for a client that joins."""

    def statuses(self) -> dict[str, int]:
        """Return the number of sessions by status."""

    async def sweep(self) -> None:
        """Remove old sessions regularly, until cancelled."""
