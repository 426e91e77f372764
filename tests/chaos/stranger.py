"""Another client that ends the sessions of a run, with their secrets from its journal."""

from __future__ import annotations

import contextlib
import http.client
import json
import sqlite3
from typing import TYPE_CHECKING, Any, NamedTuple

from time_limits import PATIENCE

from chaos.processes import Find

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.processes import Server

PATHS = {"cancel": "/api/upload/cancel/{}", "finish": "/api/upload/session/{}/finish"}
ENDED = ("completed", "partial", "cancelled")


class _Kept(NamedTuple):
    """What the database of the server has of a session."""

    status: str
    completed: int
    missing: int
    """Completed files that are not stored."""


class Stranger:
    """Ends sessions, and knows how each one ended."""

    def __init__(self, server: Server, home: Path, token: str) -> None:
        self._server, self._token = server, token
        self._journal = home / "state" / "uploader" / "journal.sqlite3"
        self._ended: dict[str, tuple[str, _Kept]] = {}
        """The secret, and what was kept when the end was answered, by the id."""

    def end(self, act: str) -> None:
        """Cancel or finish each session that is open by the journal. A fault may hit this request as any other."""
        for session, secret in _rows(self._journal, "SELECT id, secret FROM session WHERE open"):
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                code, answer = self._ask("POST", PATHS[act].format(session), secret)
                kept = self._kept(session)
                if code == 200 and answer.get("success") is True and kept is not None and kept.status in ENDED:
                    self._ended.setdefault(session, (secret, kept))

    def check(self) -> None:
        """Raise `Find` unless each session is still as it ended, and its completed files are stored."""
        for session, (secret, before) in self._ended.items():
            kept = self._kept(session)
            if kept != before or kept.missing:
                raise Find(f"a session that another client ended as {before} is {kept} now")
            code, answer = self._ask("GET", f"/api/upload/progress/{session}", secret)
            if (code, answer.get("overallStatus"), answer.get("completedFiles")) != (
                200,
                before.status,
                kept.completed,
            ):
                raise Find(f"a session that ended as {before} is shown as {code} {json.dumps(answer)[:300]}")

    def _kept(self, session: str) -> _Kept | None:
        database = self._server.root / ".uploader" / "server.sqlite3"
        status = _rows(database, "SELECT status FROM sessions WHERE id = ?", session)
        files = _rows(database, "SELECT path FROM files WHERE session = ? AND status = 'completed'", session)
        missing = sum(not (self._server.root / path).is_file() for (path,) in files)
        return _Kept(status[0][0], len(files), missing) if status else None

    def _ask(self, method: str, path: str, secret: str) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=PATIENCE / 2)
        with contextlib.closing(connection):
            connection.request(
                method, path, headers={"Authorization": f"Bearer {self._token}", "X-Session-Secret": secret}
            )
            answer = connection.getresponse()
            value = json.loads(answer.read(1 << 20))
        return answer.status, value if isinstance(value, dict) else {}


def _rows(database: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    """Return the rows of a database that another process has open; none if it is not there yet or locked."""
    try:
        # with mode=ro the write-ahead log would stay if this is the last process that closes the database
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True, timeout=1)) as connection:
            return connection.execute(query, values).fetchall()
    except sqlite3.Error:
        return []
