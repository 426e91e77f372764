"""Persistent state: files below the root, and a database of sessions, files and digests.

Layout below the root: `personal/…` and `scenic/…` contain the files, `.uploader/` the database and temporary files (on
the same file system, so that files can be linked). `.uploader` is never served. The database has paths relative to the
root, in UTF-8; the root itself may be any bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import logging
import os
import sqlite3
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from uploader_server.options import StartupError
from uploader_server.storage.categories import Categories, Descent, OpenFile
from uploader_server.storage.clock import Clock
from uploader_server.storage.database import Database, VersionError
from uploader_server.storage.disk import Disk
from uploader_server.storage.file_state import FILE_ROW, IDENTITY, FileRow
from uploader_server.storage.paths import UnsafePathError, may_become, remove_tree, safe_parts
from uploader_server.storage.pruning import Pruner
from uploader_server.storage.reading import LARGEST_INTEGER, Digests, Reading
from uploader_server.storage.turns import COMPARING, LINKING, Turns
from uploader_server.wire import CATEGORIES

logger = logging.getLogger(__name__)

NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
"""Errors of `link` on a file system without hard links."""
ANONYMOUS = "tus"  # the category of uploads without a session

Change = Callable[[sqlite3.Connection], object]  # statements for a transaction (see `Store.save`)
SESSION_COLUMNS = (
    *("id", "category", "expected", "status", "progress", "created", "touched", "given_up"),
    *("owner", "secret", "holder", "expected_bytes", "finished"),
)
ENDED = frozenset({"completed", "partial", "cancelled"})
"""The final ones of `session.STATUSES`."""


class SavedSession(NamedTuple):
    row: dict[str, Any]  # by SESSION_COLUMNS
    counts: Sequence[int]  # stored files, failed ones, and bytes of the stored
    first: sqlite3.Row | None  # the file that arrived first


_SAVE_FILE = (
    f"INSERT INTO files ({', '.join(FILE_ROW)}) VALUES ({', '.join('?' * len(FILE_ROW))})"  # noqa: S608 - our own
    " ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in FILE_ROW if name not in {"id", "owner", "owns", *IDENTITY})
    + "".join(f", {name} = coalesce(excluded.{name}, {name})" for name in IDENTITY)
)
_SAVE_SESSION = (
    f"INSERT INTO sessions ({', '.join(SESSION_COLUMNS)})"  # noqa: S608 - our own
    f" VALUES ({', '.join(f':{name}' for name in SESSION_COLUMNS)}) ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in SESSION_COLUMNS if name != "id")
)
_ID, _SESSION, _STATUS, _SIZE = map(FILE_ROW.index, ("id", "session", "status", "size"))
_COUNT = (
    "UPDATE sessions SET completed = completed + ?, failed = failed + ?, stored_bytes = stored_bytes + ? WHERE id = ?"
)
_OWN = (
    "UPDATE files SET owns = 1 WHERE id IN (SELECT value FROM json_each(?))"
    " AND path IN (SELECT value FROM json_each(?))"
    " AND NOT EXISTS (SELECT 1 FROM files AS owner WHERE owner.path = files.path AND owner.owns)"
)
# An older owner had an earlier file of this name, which another program has removed: else no later one was linked.
_OTHER = "SELECT id FROM files WHERE path = ? AND (rowid > ? OR NOT owns) ORDER BY rowid LIMIT 1"
_NEWEST_TIME = (
    "SELECT max(touched) FROM (SELECT now AS touched FROM clock UNION ALL SELECT touched FROM sessions"
    " UNION ALL SELECT touched FROM tus_uploads UNION ALL SELECT touched FROM packs)"
)
_DELETE_SESSIONS = (
    "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions"
    " ORDER BY status IN (SELECT value FROM json_each(?)), touched DESC LIMIT -1 OFFSET ?)"
)
_FILES = "SELECT * FROM files WHERE session = ? ORDER BY position"
_PACKED = "SELECT relative_path, sha256 FROM files WHERE session = ? AND packed IS NOT NULL"
_COUNTS = ("completed", "failed", "stored_bytes")


class Store:
    """The root directory and its database. `close` releases both and removes a temporary root."""

    def __init__(self, root: Path | None, *, durable: bool = False) -> None:
        """Open the root. Raises StartupError. With `durable` confirmed data survives a power loss."""
        self._temporary = root is None
        self.root = Path(tempfile.mkdtemp(prefix="uploader-")) if root is None else root.resolve()
        self.private = self.root / ".uploader"
        self._incoming = self.private / "incoming"
        self._lock: IO[bytes] | None = None
        self.names_in_use: Counter[str] = Counter()
        """Paths below the root of uploads that are not recorded yet; guarded by `_names`."""
        self._names = threading.Lock()
        self._left: set[str] = set()
        """Paths below the root of files whose uploads were deleted while others were about to refer to them."""
        self.linking = Turns(LINKING)
        self.comparing = Turns(COMPARING)
        self._links = threading.Lock()
        self._closed = False
        self.reading = Reading()
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
            for category in CATEGORIES:
                (self.root / category).mkdir(exist_ok=True)
            self.categories = Categories(self.root, (*CATEGORIES, ANONYMOUS))
            self._check_devices()
            self._lock_root()
            for orphan in self._incoming.iterdir():
                orphan.unlink(missing_ok=True)
            self._check_links()
            self.disk = Disk(self.root, self.categories, durable=durable)
            self.database = Database(self.private / "server.sqlite3", durable=durable)
            self.disk.everything([self.root.parent, self.root, self.private])
            self.database.wait(_placed(self.private.stat().st_ino & LARGEST_INTEGER))
            self.clock = Clock(self.database.wait(_newest_time) or time.time())
            self.digests = Digests(self.categories, self.database, self.reading)
            self.pruner = Pruner(self.categories, self.database)
        except StartupError:
            self._release()
            raise
        except (VersionError, OSError, sqlite3.Error) as error:
            self._release()
            if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
                raise damaged(self.root, error) from error
            why = error.strerror if isinstance(error, OSError) else error
            problem, hint = f"can't store files there ({why})", "choose a writable directory"
            if isinstance(error, VersionError):
                problem, hint = str(error), "start the version that wrote it, or choose another directory"
            raise StartupError(f"--root {self.root}: {problem}", hint) from error

    def _check_devices(self) -> None:
        """Raise StartupError if a category is on another file system, where files can't be linked to."""
        here = self._incoming.stat().st_dev
        for category in (*CATEGORIES, ANONYMOUS):
            directory = self.root / category
            if directory.is_dir() and directory.stat().st_dev != here:
                raise StartupError(
                    f"--root {self.root}: {category} is on another file system", "choose a root that is on one"
                )

    def _check_links(self) -> None:
        """Raise StartupError on a file system without hard links: they give a file its name without overwriting."""
        first, second = self.incoming(), self.incoming()
        try:
            first.touch()
            os.link(first, second)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            raise StartupError(
                f"--root {self.root}: its file system has no hard links ({error.strerror})",
                "choose a directory on a file system that has them",
            ) from error
        finally:
            first.unlink(missing_ok=True)
            second.unlink(missing_ok=True)

    def _lock_root(self) -> None:
        """Lock the root. Raises StartupError if another server uses it: each removes unknown temporary files."""
        self._lock = (self.private / "lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartupError(
                f"--root {self.root}: another server is using it", "stop that one or choose another directory"
            ) from None

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._temporary:
            remove_tree(self.root)

    def close(self, *, keep_root: bool = False) -> None:
        """Close the database and release the root; remove a temporary one unless `keep_root`. Idempotent."""
        self._temporary = self._temporary and not keep_root
        with self._links:
            self._closed = True
        self.database.close()
        self.disk.close()
        self._release()

    def incoming(self) -> Path:
        """Return a new temporary path on the same file system."""
        return self._incoming / uuid.uuid4().hex

    # Files

    @contextlib.contextmanager
    def placing(self, paths: Sequence[str]) -> Iterator[None]:
        """Keep `delete` from removing files with these paths (below the root) while they are being recorded."""
        with self._names:
            self.names_in_use.update(paths)
        try:
            yield
        finally:
            with self._names:
                self.names_in_use -= Counter(paths)  # also removes names whose count is 0

    def link(self, data: str | Path, name: str, directory: Descent) -> None:
        """Give a file its name in a directory of the root; raises OSError, also after `close`.

        A thread may outlive its server: linked after the next one has read the root, the file could be incomplete.
        """
        with self._links:
            if self._closed:
                raise OSError(errno.ECANCELED, "The server is stopping")
            os.link(data, name, dst_dir_fd=directory.fd, follow_symlinks=False)

    def build(self, target: Path, parts: Iterable[Path]) -> None:
        """Replace a file, if it exists, by the concatenation of `parts` (slow: run in a thread). Raises OSError."""
        temporary = self.incoming()
        self.reading.join(parts, temporary)
        self.disk.files([temporary])
        temporary.replace(target)
        self.disk.names([target])

    def own(self, data: Path) -> None:
        """Replace a data file that has a second name by a copy, before it is written, cut or linked (slow if it has).

        The second name is that of a stored file, or of a backup with hard links. Raises OSError.
        """
        if self.is_shared(data):
            self.build(data, [data])

    def is_shared(self, data: Path) -> bool:
        """Return whether a data file exists and has a second name. Raises OSError."""
        try:
            return data.stat().st_nlink > 1
        except FileNotFoundError:
            return False

    def find(self, category: str, relative_path: str) -> OpenFile | None:
        """Open the stored file of a URL; None for a path outside the category, through a link, or without a file."""
        try:
            safe_parts(relative_path)
            path = f"{category}/{relative_path}"
            return self.categories.open(path) if path in self.categories else None
        except (UnsafePathError, OSError):  # an unsafe or unsupported path
            return None

    # Changes, for `save`

    async def save(self, *changes: Change, frees: bool = False) -> None:
        """Commit changes in one transaction, with `frees` also on a full disk. Raises sqlite3.Error, OSError."""

        def change(db: sqlite3.Connection) -> None:
            for make in changes:
                make(db)

        await self.database.transaction(change, frees=frees)

    def files_saved(self, rows: Sequence[FileRow]) -> Change:
        """Return a change that saves files that ended, and counts them in the row of their session.

        A start reads these sums: the rows of all files would take it long. Rows without a session are not counted, the
        others have the same one.
        """

        def change(db: sqlite3.Connection) -> None:
            if count := _counted(db, rows):
                db.execute(_COUNT, count)
            db.executemany(_SAVE_FILE, rows)
            if self._left:
                known = json.dumps([row[_ID] for row in rows]), json.dumps([*self._left])
                db.execute(_OWN, known)

        return change

    def session_saved(self, row: dict[str, Any]) -> Change:
        return lambda db: db.execute(_SAVE_SESSION, row)

    def session_forgotten(self, session: str) -> Change:
        """Return a change that removes a session; its files stay and can be deleted by their ids."""
        return lambda db: db.execute("DELETE FROM sessions WHERE id = ?", (session,))

    def times_saved(self, sessions: Sequence[tuple[float, str]], uploads: Sequence[tuple[float, str]]) -> Change:
        """Return a change that records the time, and when sessions and uploads (with their ids) were used."""

        def change(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO clock VALUES (1, ?)", (self.clock.now(),))
            db.executemany("UPDATE sessions SET touched = max(touched, ?) WHERE id = ?", sessions)
            db.executemany("UPDATE tus_uploads SET touched = max(touched, ?) WHERE id = ?", uploads)

        return change

    # Queries

    def sessions(self, most: int) -> list[SavedSession]:
        """Return sessions with the sums of their files (blocks; used at the start).

        The `most` newest ones, open ones before ended ones; the others are deleted.
        """

        def load(db: sqlite3.Connection) -> list[SavedSession]:
            db.execute(_DELETE_SESSIONS, (json.dumps([*ENDED]), most))
            return [_saved(db, row) for row in db.execute("SELECT * FROM sessions").fetchall()]

        return self.database.wait(load)

    async def marks(self, session: str) -> set[int]:
        """Return the marks of the files of packs that a session counts."""
        return await self.database.read(
            lambda db: {packed_mark(path, sha256.hex()) for path, sha256 in db.execute(_PACKED, (session,))}
        )

    async def files(self, session: str) -> list[sqlite3.Row]:
        return await self.database.read(lambda db: db.execute(_FILES, (session,)).fetchall())

    async def owner(self, file_id: str) -> str | None:
        """Return whose file this is: a subject, or empty; None if there is no such file."""
        query = "SELECT owner FROM files WHERE id = ? AND path IS NOT NULL"
        row = await self.database.read(lambda db: db.execute(query, (file_id,)).fetchone())
        return None if row is None else str(row["owner"])

    async def delete(self, file_id: str) -> bool:
        """Delete the stored file with this id; return False if there is none. The caller has checked the right to it.

        A file whose directory is gone, or was replaced by a symbolic link, is forgotten, and False is returned.

        An upload removes only a file that it linked itself: one that found its bytes there is forgotten, and the file
        stays; so does one that another program has changed, or put there since. If other uploads refer to the file, it
        stays as well, and is that of the first of them from now on; or if one is about to. It is also removed if that
        can't be recorded (OSError, sqlite3.Error); a repeated call records it.
        """
        query = "SELECT rowid, path, owns, size, modified, inode FROM files WHERE id = ?"
        row = await self.database.read(lambda db: db.execute(query, (file_id,)).fetchone())
        name = row["path"] if row is not None else None
        if not name or name not in self.categories:
            return False
        removed = self.incoming()

        def forget(db: sqlite3.Connection) -> None:
            db.execute("UPDATE files SET path = NULL WHERE id = ?", (file_id,))
            if not row["owns"] or self._is_anothers(row):
                return
            other = db.execute(_OTHER, (name, row["rowid"])).fetchone()
            if other is not None:
                db.execute("UPDATE files SET owns = 1 WHERE id = ?", (other["id"],))
                return
            # Uploads that reserved this name before are recorded later; later ones find it free.
            with self._names:
                if any(may_become(wanted, name) for wanted in self.names_in_use):
                    self._left.add(name)
                    return
                self.categories.move_out(name, removed)
                db.execute("DELETE FROM digests WHERE path = ?", (name,))

        try:
            await self.database.transaction(forget, frees=True)
        finally:
            await asyncio.to_thread(removed.unlink, missing_ok=True)
        return await asyncio.to_thread(self._persist_removal, name)

    def _persist_removal(self, name: str) -> bool:
        """Write the names of the directory of a removed file to the disk; return False if the directory is gone."""
        if self.categories.is_there(name) and not self.categories.is_directory(name.rpartition("/")[0]):
            return False
        self.disk.names([f"{self.root}/{name}"])
        return True

    def _is_anothers(self, row: sqlite3.Row) -> bool:
        """Return whether the file with the name of a row is not the one that its upload linked, and log that."""
        try:
            there = self.digests.identify(row["path"])
        except FileNotFoundError:
            return False
        if all(row[name] in (None, getattr(there, name)) for name in ("size", *IDENTITY)):
            return False
        logger.warning("%r is not the file that was uploaded: it stays, and the upload is forgotten", row["path"])
        return True


def damaged(root: Path, error: sqlite3.Error) -> StartupError:
    """Return the error of a start with a database that can't be read."""
    database = root / ".uploader" / "server.sqlite3"
    hint = f"restore {database} from a backup, or move it away: files stay, sessions and uploads are forgotten"
    return StartupError(f"--root {root}: its database is damaged ({error})", hint)


def _newest_time(db: sqlite3.Connection) -> float | None:
    """Return the newest recorded time; None in a new root."""
    newest: float | None = db.execute(_NEWEST_TIME).fetchone()[0]
    return newest


def _placed(inode: int) -> Change:
    """Return a change that forgets inodes of files in a copied root: the `inode` of its private directory is new."""

    def change(db: sqlite3.Connection) -> None:
        known = db.execute("SELECT inode FROM place").fetchone()
        if known is not None and known["inode"] == inode:
            return
        db.execute("UPDATE files SET inode = NULL WHERE inode IS NOT NULL")
        db.execute("DELETE FROM place")
        db.execute("INSERT INTO place VALUES (?)", (inode,))

    return change


def _saved(db: sqlite3.Connection, row: sqlite3.Row) -> SavedSession:
    first = db.execute(f"{_FILES} LIMIT 1", (row["id"],)).fetchone()
    return SavedSession({name: row[name] for name in SESSION_COLUMNS}, [row[name] for name in _COUNTS], first)


def _counted(db: sqlite3.Connection, rows: Sequence[FileRow]) -> tuple[int, int, int, str] | None:
    """Return what files that are about to be saved add to their session: values for `_COUNT`; None if nothing."""
    rows = [row for row in rows if row[_SESSION]]
    if len(rows) == 1:  # an upload whose end was recorded before a crash, and is recorded again
        values = rows[0][_ID], rows[0][_SESSION]
        if db.execute("SELECT 1 FROM files WHERE id = ? AND session = ?", values).fetchone() is not None:
            return None
    stored = [row[_SIZE] for row in rows if row[_STATUS] == "completed"]
    failed = sum(row[_STATUS] == "failed" for row in rows)
    return (len(stored), failed, sum(stored), rows[0][_SESSION]) if rows else None


def packed_mark(path: str, sha256: str) -> int:
    """Return the mark of a pack file for `Session.counted`: a hash, since many paths would need much memory."""
    return hash((path, sha256))
