"""What the calls of sessions need of a flavour: `bundled.Bundled` and `simulation.reference.Reference` have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from starlette.requests import Request
from starlette.routing import Route

from uploader_server.config import ServerConfig
from uploader_server.http.errors import Words
from uploader_server.storage.store import Store


class Calls(Protocol):
    def described(self) -> dict[str, Any]:
        """Return their entry in `/health` and in the session response."""

    def routes(self) -> list[Route]: ...


class Backend(Protocol):
    """The sessions of a flavour. Methods raise Refusal as their implementations say."""

    words: Words
    config: ServerConfig
    store: Store

    def calls(self) -> dict[str, Calls]:
        """Return the enabled calls beside those of sessions, by their names in `/health`."""

    async def create(self, category: str, expected: int, headers: Mapping[str, str], holder: str) -> tuple[str, str]:
        """Create a session of a client (`holder`); return its id and creation time."""

    async def batch(self, request: Request) -> dict[str, Any]:
        """Receive one batch; return the response."""

    async def progress(self, session_id: str) -> Any:
        """Return the response of `/progress`, or its JSON."""

    async def cancel(self, session_id: str, headers: Mapping[str, str]) -> None: ...

    async def finish(self, session_id: str, given_up: int, headers: Mapping[str, str]) -> dict[str, Any]:
        """End a session, `given_up` files of which won't be sent; return the response."""

    async def delete(self, file_id: str, headers: Mapping[str, str]) -> bool:
        """Delete a stored file; return False if there is none."""

    def snapshot(self, session_id: str) -> dict[str, Any] | None:
        """Return the event for a client that joins, or None if there is none."""

    def newest(self) -> list[dict[str, Any]]:
        """Return summaries of sessions, newest first."""

    def statuses(self) -> dict[str, int]:
        """Return the number of sessions by status."""

    async def sweep(self) -> None:
        """Remove what has expired, until cancelled."""

    async def record_times(self) -> None:
        """Save the time, and when sessions and uploads were used. Raises sqlite3.Error, OSError."""
