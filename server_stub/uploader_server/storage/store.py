"""What survives a restart: files below the root, and what the database says of sessions, files and digests.

Layout below the root: `personal/…` and `scenic/…` hold the files, `.uploader/` the database and temporary files
(same file system, so that a file gets its name by a link). `.uploader` is never served. The database names files by
their paths below the root, which are always UTF-8; the root itself may be any bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import sys
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from uploader_server.config import StartupError
from uploader_server.session import ENDED
from uploader_server.storage.database import Database, VersionError
from uploader_server.storage.disk import Disk
from uploader_server.storage.paths import check_inside, leads_out, place, safe_parts, unnumbered
from uploader_server.storage.reading import Digests, Reading
from uploader_server.wire import CATEGORIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ANONYMOUS = "tus"
"""The category of uploads without a session."""

Change = Callable[[sqlite3.Connection], object]
"""Statements that belong into one transaction (see `Store.save`)."""


class SavedSession(NamedTuple):
    """A session as the database has it."""

    row: sqlite3.Row
    files: list[sqlite3.Row]
    """In the order in which they came, those of packs left out; none where the session has ended."""
    unlisted: dict[str, int]
    """How many of its other files have each status."""
    open_packed: list[sqlite3.Row]
    """The files of packs; none where the session has ended."""


_FILES = "SELECT * FROM files WHERE session = ? ORDER BY position"
_PACKED = "SELECT * FROM files WHERE session = ? AND packed IS NOT NULL ORDER BY position"


class Store:
    """The root directory and its database. `close()` releases both; a temporary root is removed."""

    def __init__(self, root: Path | None, *, durable: bool = False) -> None:
        """Raises StartupError. With `durable` what was confirmed survives a loss of power."""
        self._temporary = root is None
        self.root = Path(tempfile.mkdtemp(prefix="uploader-")) if root is None else root.resolve()
        self.private = self.root / ".uploader"
        self._incoming = self.private / "incoming"
        self._lock: IO[bytes] | None = None
        self._placing: Counter[str] = Counter()
        """Paths below the root that uploads ask for, until they are recorded; guarded by `_names`."""
        self._names = threading.Lock()
        self.reading = Reading()
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
            for category in CATEGORIES:
                (self.root / category).mkdir(exist_ok=True)
            self._check_devices()
            self._take_root()
            for orphan in self._incoming.iterdir():
                orphan.unlink(missing_ok=True)
            self.disk = Disk(self.root, durable=durable)
            self.database = Database(self.private / "server.sqlite3", durable=durable)
            self.disk.everything([self.root.parent, self.root, self.private])
            self.digests = Digests(self.root, self.database, self.reading)
        except VersionError as error:
            self._release()
            raise StartupError(
                f"--root {self.root}: {error}; start a newer server, or choose another directory"
            ) from None
        except (OSError, sqlite3.Error) as error:
            self._release()
            raise StartupError(
                f"--root {self.root}: can't keep files there ({error}); choose a directory that you may write to"
            ) from error

    def _check_devices(self) -> None:
        """A file gets its name by a link, which does not lead to another file system. Raises StartupError."""
        here = self._incoming.stat().st_dev
        for category in (*CATEGORIES, ANONYMOUS):
            directory = self.root / category
            if directory.is_dir() and directory.stat().st_dev != here:
                raise StartupError(
                    f"--root {self.root}: {category} is on another file system; choose a root that is on one"
                )

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

    def close(self, *, keep_root: bool = False) -> None:
        """Close the database, give up the root; a temporary root is removed unless it is kept. May be called twice."""
        self._temporary = self._temporary and not keep_root
        self.database.close()
        self.disk.close()
        self._release()

    def incoming(self) -> Path:
        """A fresh temporary name on the same file system as the final one."""
        return self._incoming / uuid.uuid4().hex

    # Files

    @contextlib.contextmanager
    def placing(self, category: str, relative_paths: Sequence[str]) -> Iterator[None]:
        """Keep `delete` from removing files of these names until those that get them, or are equal, are recorded."""
        paths = [f"{category}/{path}" for path in relative_paths]
        with self._names:
            self._placing.update(paths)
        try:
            yield
        finally:
            with self._names:
                self._placing.subtract(paths)
                for path in paths:
                    if not self._placing[path]:
                        del self._placing[path]

    def place(self, temporary: Path, category: str, relative_path: str) -> Path:
        """Give a received file its name, or answer with the equal file that has it already (runs in a thread).

        The temporary name is left to the caller, and so is flushing the new one (`Disk.names`). Raises UnsafePathError
        for a path that would leave the category, OSError where the file system refuses.
        """
        base = self.root / category
        target = base.joinpath(*safe_parts(relative_path))
        check_inside(target.parent, base)
        size = temporary.stat().st_size

        def same(there: Path) -> bool:
            if there.is_symlink() and leads_out(there, base):
                return False
            if there.samefile(temporary):
                return True
            equal = there.stat().st_size == size and self.reading.equal(temporary, there)
            if equal:  # another request may not have been answered yet
                self.disk.files([there])
            return equal

        if not target.parent.is_dir():
            self.disk.made(target.parent)
        return place(temporary, target, same)

    def find(self, category: str, relative_path: str) -> Path | None:
        """The stored file that a URL names, or None; nothing outside the category is ever found."""
        if category not in {*CATEGORIES, ANONYMOUS}:
            return None
        base = self.root / category
        try:
            path = base.joinpath(*safe_parts(relative_path))
            return path if path.is_file() and not leads_out(path, base) else None
        except (ValueError, OSError):  # an unsafe path, or one that this file system can't spell
            return None

    def below(self, path: Path) -> str:
        """The path of a stored file as the database names it."""
        return path.relative_to(self.root).as_posix()

    # Changes: what `save` puts into one transaction

    async def save(self, *changes: Change) -> None:
        """Make changes, all or none; they are committed when this returns. Raises sqlite3.Error."""

        def change(db: sqlite3.Connection) -> None:
            for make in changes:
                make(db)

        await self.database.transaction(change)

    def files_saved(self, rows: Sequence[dict[str, Any]]) -> Change:
        """Insert or update the files of a request."""
        statement = (
            "INSERT OR REPLACE INTO files VALUES (:id, :session, :position, :original_name, :relative_path,"
            " :size, :status, :progress, :speed, :path, :error, :error_code, NULL, NULL)"
        )
        return lambda db: db.executemany(statement, rows)

    def session_saved(self, row: dict[str, Any]) -> Change:
        """Insert or update one session."""
        statement = (
            "INSERT OR REPLACE INTO sessions VALUES (:id, :category, :expected, :status, :progress, :created, :touched,"
            " :given_up)"
        )
        return lambda db: db.execute(statement, row)

    def session_forgotten(self, session: str) -> Change:
        """Forget a session; its files stay, and can still be deleted by their ids."""
        return lambda db: db.execute("DELETE FROM sessions WHERE id = ?", (session,))

    # What is known

    def sessions(self) -> list[SavedSession]:
        """Every session with its files (waits: for the start)."""
        return self.database.wait(
            lambda db: [_saved(db, row) for row in db.execute("SELECT * FROM sessions").fetchall()]
        )

    async def unlisted(self, session: str, *, ended: bool) -> list[sqlite3.Row]:
        """The files of packs in a session; all files of one that has ended."""
        query = _FILES if ended else _PACKED
        return await self.database.read(lambda db: db.execute(query, (session,)).fetchall())

    async def path_of(self, file_id: str) -> Path | None:
        """Where the file with this id is stored, or None where there is none (any more)."""
        query = "SELECT path FROM files WHERE id = ?"
        row = await self.database.read(lambda db: db.execute(query, (file_id,)).fetchone())
        path = self.root / row["path"] if row is not None and row["path"] else None
        # A root that an early version made has absolute paths; in a copy of it they name the files of the original.
        return path if path is not None and path.is_relative_to(self.root) and path.is_file() else None

    async def delete(self, file_id: str) -> bool:
        """Forget the stored file with this id; False where there is none (any more).

        It is removed, unless another upload was answered with the same one, or is just going to be.
        """
        path = await self.path_of(file_id)
        if path is None:
            return False
        name, removed = self.below(path), self.incoming()
        wanted = {name, self.below(unnumbered(path))}

        def forget(db: sqlite3.Connection) -> None:
            db.execute("UPDATE files SET path = NULL WHERE id = ?", (file_id,))
            if db.execute("SELECT 1 FROM files WHERE path = ?", (name,)).fetchone() is not None:
                return
            # An upload that asks for this name from now on finds it free; one that asked before is recorded later.
            with self._names:
                if self._placing.keys().isdisjoint(wanted):
                    with contextlib.suppress(FileNotFoundError):
                        path.rename(removed)
                    db.execute("DELETE FROM digests WHERE path = ?", (name,))

        await self.database.transaction(forget)
        await asyncio.to_thread(removed.unlink, missing_ok=True)
        await asyncio.to_thread(self.disk.names, [path])
        return True


def _saved(db: sqlite3.Connection, row: sqlite3.Row) -> SavedSession:
    session, ended = (row["id"],), row["status"] in ENDED
    files = "SELECT * FROM files WHERE session = ? AND packed IS NULL ORDER BY position"
    others = "SELECT status, count(*) FROM files WHERE session = ? AND (packed IS NOT NULL OR ?) GROUP BY status"
    return SavedSession(
        row,
        [] if ended else db.execute(files, session).fetchall(),
        dict(map(tuple, db.execute(others, (*session, ended)))),
        [] if ended else db.execute(_PACKED, session).fetchall(),
    )
