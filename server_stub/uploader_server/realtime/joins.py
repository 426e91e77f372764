"""What clients of Socket.IO send: who may connect, and which sessions a connection joins and leaves."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import socketio  # type: ignore[import-untyped]

from uploader_server.analyses import Analyses
from uploader_server.auth import bearer, same_token
from uploader_server.backend import Backend
from uploader_server.config import ServerConfig
from uploader_server.counts import Counts
from uploader_server.http.heads import LONGEST
from uploader_server.http.tracking import client_address
from uploader_server.realtime.rooms import Realtime, room_of
from uploader_server.shares import Share, holder_name, holder_of
from uploader_server.wire import is_uuid

CLOSE_REFUSED = 1.0  # seconds until the transport of a refused connection is closed, after the refusal was sent
LONGEST_ROOM = 200  # maximum characters of a joined id; the reference backend accepts any text


def token_of(auth: object) -> str:
    """Return the token in Socket.IO's `auth`; empty if it has none.

    Raises ValueError unless `auth` is null or an object, and its token null or a text of printable ASCII characters,
    not longer than a header may be.
    """
    token = auth.get("token", "") if isinstance(auth, dict) else auth
    if token is None:
        return ""
    if not isinstance(token, str) or token is auth or not (token.isascii() and token.isprintable()):
        raise ValueError("the token is not printable ASCII")
    if len(token) > LONGEST:
        raise ValueError("the token is too long")
    return token


class Joins:
    """Handles what clients send. A client that joins gets the state of its session or analysis."""

    def __init__(
        self,
        realtime: Realtime,
        config: ServerConfig,
        counts: Counts,
        backend: Backend,
        analyses: Analyses,
    ) -> None:
        self._realtime = realtime
        self._server = realtime.server
        self._config = config
        self._counts = counts
        self._backend = backend
        self._analyses = analyses
        self.joined: dict[str, set[str]] = {}  # ids by connection; python-socketio has no index for this
        self._holders: dict[str, str] = {}  # the client of each connection
        self._share: Share[str] = Share("joins", config.max_share)  # connections, counted once for each of their joins
        self._server.on("connect", self._connect)
        self._server.on("disconnect", self.disconnect)
        self._server.on("join-session", self.join)
        self._server.on("leave-session", self._leave)

    def _connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        """Accept a connection, or refuse it if the server has an auth token and the connection sends another one.

        The token is in the header `Authorization` or in `auth`. An `auth` that `token_of` does not accept is refused
        by every server.
        """
        try:
            token = token_of(auth)
        except ValueError:
            self._refuse(sid, "INVALID_TOKEN")
        expected = self._config.auth_token
        if expected is not None:
            given = [bearer(environ.get("HTTP_AUTHORIZATION")), token]
            if not any([same_token(one, expected) for one in given]):  # noqa: C419 - compare all, in constant time
                self._refuse(sid, "INVALID_TOKEN" if any(given) else "UNAUTHORIZED")
        self.joined[sid] = set()
        scope = environ["asgi.scope"]
        if token:
            scope["holder"] = holder_name(f"Bearer {token}", client_address(scope), self._config.jwt_secret)
        self._holders[sid] = holder_of(scope)

    def _refuse(self, sid: str, code: str) -> NoReturn:
        """Raise the refusal of a connection, and close its transport after that was sent."""
        self._counts("refused", "token")
        eio_sid = self._server.manager.eio_sid_from_sid(sid, "/")
        asyncio.get_running_loop().call_later(CLOSE_REFUSED, self._realtime.close, eio_sid)
        raise socketio.exceptions.ConnectionRefusedError(code)

    def disconnect(self, sid: str, *_: object) -> None:
        joined, holder = self.joined.pop(sid, set()), self._holders.pop(sid, "")
        self._share.remove(holder, sid, len(joined))

    async def join(self, sid: str, session_id: object = None, *_: object) -> Any:
        if self._config.reference:  # docs/protocol.md, section 3.7: no acknowledgement, no replay, any id
            if isinstance(session_id, str) and self._refused_join(sid, session_id) is None:
                await self._server.enter_room(sid, room_of(session_id))
            return self._server.not_handled
        answer = await self._join_bundled(sid, session_id)
        self._counts("joins", answer.get("error", "ok"))
        return answer

    async def _join_bundled(self, sid: str, session_id: object) -> dict[str, Any]:
        """Add the connection to the room named by an id, and send it the current state of the session or analysis.

        An id that the server does not know is joined too, and acknowledged with an error: a client joins before its
        analysis begins (docs/protocol.md, section 4).
        """
        if not isinstance(session_id, str) or not is_uuid(session_id):
            return {"ok": False, "error": "INVALID_SESSION_ID"}
        session_id = session_id.lower()
        refused = self._refused_join(sid, session_id)
        if refused is not None:
            return {"ok": False, "error": refused}
        snapshot, known = self._backend.snapshot(session_id), self._analyses.find(session_id) is not None
        await self._server.enter_room(sid, room_of(session_id))
        if snapshot is not None:
            await self._realtime.send("upload-progress", snapshot, to=sid)
        analysis = self._analyses.snapshot(session_id)
        if analysis is not None:
            await self._realtime.send(*analysis, to=sid)
        return {"ok": True} if known or snapshot is not None else {"ok": False, "error": "SESSION_NOT_FOUND"}

    def _refused_join(self, sid: str, session_id: str) -> str | None:
        """Count a join, or return the code of its refusal."""
        rooms, limit = self.joined.get(sid), self._config.max_joins
        if rooms is not None and session_id in rooms:
            return None
        if rooms is None or (limit and len(rooms) >= limit) or len(session_id) > LONGEST_ROOM:  # None: disconnecting
            return "TOO_MANY_JOINS"
        refusal = self._share.refusal(self._holders[sid])
        if refusal is not None:
            return refusal.code
        rooms.add(session_id)
        self._share.add(self._holders[sid], sid)
        return None

    async def _leave(self, sid: str, session_id: object = None, *_: object) -> Any:
        reference = self._config.reference
        valid = isinstance(session_id, str) and (reference or is_uuid(session_id))
        if valid:
            room = str(session_id) if reference else str(session_id).lower()
            rooms = self.joined.get(sid, set())
            if room in rooms:
                rooms.discard(room)
                self._share.remove(self._holders[sid], sid)
            await self._server.leave_room(sid, room_of(room))
        if reference:
            return self._server.not_handled
        return {"ok": True} if valid else {"ok": False, "error": "INVALID_SESSION_ID"}
