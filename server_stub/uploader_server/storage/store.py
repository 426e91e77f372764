"""What survives a restart: files below the root, and an embedded SQLite database of sessions, files and digests.

Layout below the root: `personal/…` and `scenic/…` hold the files, `.uploader/` the database and temporary files
(same file system, so that a file gets its name by a rename). `.uploader` is never served.

Every method may be called in any thread: one connection, one lock, short statements.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import sys
import tempfile
import threading
import uuid
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from uploader_server.config import StartupError
from uploader_server.storage.paths import place, safe_parts
from uploader_server.wire import CATEGORIES

if TYPE_CHECKING:
    from collections.abc import Iterable

ANONYMOUS = "tus"
"""The category of uploads without a session."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
  id TEXT PRIMARY KEY, category TEXT NOT NULL, expected INTEGER NOT NULL, status TEXT NOT NULL,
  progress INTEGER NOT NULL, created TEXT NOT NULL, touched REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS files (
  id TEXT PRIMARY KEY, session TEXT NOT NULL, position INTEGER NOT NULL, original_name TEXT NOT NULL,
  relative_path TEXT, size INTEGER NOT NULL, status TEXT NOT NULL, progress INTEGER NOT NULL, speed REAL NOT NULL,
  path TEXT, error TEXT, error_code TEXT
);
CREATE INDEX IF NOT EXISTS files_of_session ON files (session, position);
CREATE TABLE IF NOT EXISTS digests (
  path TEXT PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL, sha256 BLOB NOT NULL
);
"""


class Store:
    """The root directory and its database. `close()` releases both; a temporary root is removed."""

    def __init__(self, root: Path | None) -> None:
        self._temporary = root is None
        self.root = Path(tempfile.mkdtemp(prefix="uploader-")) if root is None else root.absolute()
        self.private = self.root / ".uploader"
        self._incoming = self.private / "incoming"
        self._lock: IO[bytes] | None = None
        self._guard = threading.Lock()
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
            for category in CATEGORIES:
                (self.root / category).mkdir(exist_ok=True)
            self._take_root()
            for orphan in self._incoming.iterdir():
                orphan.unlink(missing_ok=True)
            self._database = self._open()
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            self._release()
            raise StartupError(
                f"--root {self.root}: can't keep files there ({error}); choose a directory that you may write to"
            ) from error

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self.private / "server.sqlite3", isolation_level=None, check_same_thread=False, timeout=10
        )
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        return database

    def _take_root(self) -> None:
        """Two servers on one root would sweep each other's temporary files: the second one doesn't start."""
        if sys.platform == "win32":  # pragma: no cover
            return
        import fcntl

        self._lock = (self.private / "lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._release()
            raise StartupError(
                f"--root {self.root}: another server is using it; stop that one or choose another directory"
            ) from None

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._temporary:
            shutil.rmtree(self.root, ignore_errors=True)

    def close(self) -> None:
        """Close the database, give up the root; a temporary root is removed. May be called twice."""
        self._database.close()
        self._release()

    def incoming(self) -> Path:
        """A fresh temporary name on the same file system as the final one."""
        return self._incoming / uuid.uuid4().hex

    # Files

    def place(self, temporary: Path, category: str, relative_path: str, sha256: bytes) -> Path:
        """Store a received file under its path, or answer with the equal one that is already there.

        Raises UnsafePathError for a path that would leave the category, OSError where the file system refuses.
        """
        target = (self.root / category).joinpath(*safe_parts(relative_path))
        size = temporary.stat().st_size
        final = place(temporary, target, lambda there: there.stat().st_size == size and self.digest_of(there) == sha256)
        self._remember_digest(final, sha256)
        return final

    def find(self, category: str, relative_path: str) -> Path | None:
        """The stored file that a URL names, or None; nothing outside the category is ever found."""
        if category not in {*CATEGORIES, ANONYMOUS}:
            return None
        base = (self.root / category).resolve()
        try:
            path = base.joinpath(*safe_parts(relative_path)).resolve()
            return path if path.is_relative_to(base) and path.is_file() else None
        except (ValueError, OSError):  # an unsafe path, or one that this file system can't spell
            return None

    def digest_of(self, path: Path) -> bytes:
        """SHA-256 of a stored file: remembered while size and time of change are the same, else read anew."""
        stat = path.stat()
        row = self.row(
            "SELECT sha256 FROM digests WHERE path = ? AND size = ? AND modified = ?",
            (_text(path), stat.st_size, stat.st_mtime_ns),
        )
        if row is not None:
            return bytes(row["sha256"])
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").digest()
        self._remember_digest(path, sha256)
        return sha256

    def _remember_digest(self, path: Path, sha256: bytes) -> None:
        stat = path.stat()
        self.write(
            "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)",
            (_text(path), stat.st_size, stat.st_mtime_ns, sha256),
        )

    # Sessions

    def save_session(self, row: dict[str, Any]) -> None:
        """Insert or update one session."""
        self.write(
            "INSERT OR REPLACE INTO sessions VALUES"
            " (:id, :category, :expected, :status, :progress, :created, :touched)",
            row,
        )

    def save_files(self, rows: Iterable[dict[str, Any]]) -> None:
        """Insert or update the files of a request, all or none."""
        with self._guard:
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT OR REPLACE INTO files VALUES (:id, :session, :position, :original_name, :relative_path,"
                " :size, :status, :progress, :speed, :path, :error, :error_code)",
                rows,
            )
            self._database.execute("COMMIT")

    def sessions(self) -> list[sqlite3.Row]:
        """Every session that is known."""
        return self.rows("SELECT * FROM sessions", ())

    def files(self, session: str) -> list[sqlite3.Row]:
        """The files of a session, in the order in which they came."""
        return self.rows("SELECT * FROM files WHERE session = ? ORDER BY position", (session,))

    def forget_session(self, session: str) -> None:
        """Forget a session; its files stay, and can still be deleted by their ids."""
        self.write("DELETE FROM sessions WHERE id = ?", (session,))

    def path_of(self, file_id: str) -> Path | None:
        """Where the file with this id is stored, or None where there is none (any more)."""
        row = self.row("SELECT path FROM files WHERE id = ?", (file_id,))
        path = Path(row["path"]) if row is not None and row["path"] else None
        return path if path is not None and path.is_file() else None

    def delete(self, file_id: str) -> None:
        """Remove the stored file with this id, unless another upload was answered with the same one."""
        path = self.path_of(file_id)
        if path is None:
            return
        others = self.row("SELECT 1 FROM files WHERE path = ? AND id != ?", (str(path), file_id))
        if others is None:
            path.unlink(missing_ok=True)
        self.write("UPDATE files SET path = NULL WHERE id = ?", (file_id,))

    # Statements

    def script(self, statements: str) -> None:
        """Run statements that take no values."""
        with self._guard:
            self._database.executescript(statements)

    def write(self, statement: str, values: Any) -> None:
        """Run a statement that answers nothing; it is committed when this returns."""
        with self._guard:
            self._database.execute(statement, values)

    def row(self, statement: str, values: Any) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        with self._guard:
            row: sqlite3.Row | None = self._database.execute(statement, values).fetchone()
            return row

    def rows(self, statement: str, values: Any) -> list[sqlite3.Row]:
        """Every row of a query."""
        with self._guard:
            return self._database.execute(statement, values).fetchall()


def _text(path: Path) -> str:
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
