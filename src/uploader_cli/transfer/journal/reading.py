"""What the journal answers: values, and every SELECT about runs and files."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.journal.schema import Store


@dataclass(frozen=True, slots=True)
class Target:
    """Where files go: `server` is its URL without credentials, `destination` a category or a tus endpoint."""

    server: str
    destination: str


def new_key() -> str:
    """A random `uploadKey` (docs/protocol.md, section 5), so that nobody guesses another's."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class PendingPart:
    """One part of a file sent by concatenation: bytes `offset` to `offset + size` of it, an upload of its own.

    `upload_key` is what its creation carries, `url` is None until the server answered that, `checked_until` counts
    the part's own bytes (from 0) that lay in chunks whose checksum the server accepted, `pledged_until` ends the chunk
    that was being sent then.
    """

    index: int
    offset: int
    size: int
    upload_key: str
    url: str | None = None
    checked_until: int = 0
    pledged_until: int = 0


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """An upload under way. `url` None: its creation was not answered, but may have been acted on: POST the key first.

    The first `checked_until` bytes lay in chunks whose checksum the server accepted; the server's offset alone says
    what it has. `chunk_size` is in bytes. `parts` is empty for a file that is sent in one piece. `pledged_until` ends
    the chunk that was being sent with its checksum: a server whose offset is there has accepted it. 0 for none.
    """

    upload_key: str = field(default_factory=new_key)
    url: str | None = None
    session: str | None = None
    chunk_size: int | None = None
    checked_until: int = 0
    parts: tuple[PendingPart, ...] = ()
    pledged_until: int = 0

    @property
    def urls(self) -> tuple[str, ...]:
        """Every upload URL that belongs to the file: what to DELETE when it is sent anew."""
        own = (self.url, *(part.url for part in self.parts))
        return tuple(url for url in own if url is not None)


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that the server says it has stored. `checksum` is a hex SHA-256, `verified`: it was compared."""

    file: LocalFile
    server_id: str | None = None
    location: str | None = None
    checksum: str | None = None
    verified: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """A file that the server has confirmed. `path` is absolute, `completed_at` in whole seconds since the epoch.

    `run` is the id of the run that sent it, None where that run is forgotten.
    """

    run: str | None
    path: str
    size: int
    mtime_ns: int
    server_id: str | None
    location: str | None
    checksum: str | None
    verified: bool
    completed_at: float


class ClaimState(StrEnum):
    """What a claim found."""

    NEW = "new"
    RESUME = "resume"
    CHANGED = "changed"
    UNKNOWN = "unknown"
    DONE = "done"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class Claim:
    """What the journal knows of a file that is about to be sent.

    NEW      send `upload` from 0; with --no-resume `outdated` is what an earlier run had begun.
    RESUME   go on with `upload`.
    CHANGED  size or mtime are not those of an earlier try: tell the user, send `upload` from 0. `outdated` is that
             try, to be terminated; None when it had been completed.
    UNKNOWN  an earlier try of `upload` ended without knowing whether the server stored the file.
    DONE     this run (or the one it resumes) has `receipt`, or another run sent the file since this one began.
    BUSY     another live run, or another entry of this one, is sending the file: do not touch it.
    """

    state: ClaimState
    upload: PendingUpload | None = None
    receipt: Receipt | None = None
    outdated: PendingUpload | None = None


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run in the list. Times are in seconds since the epoch; `completed_*` count over all its continuations.

    `state` is "running", "interrupted" or "finished". `alive`: a live process holds it. `open_files` are under way,
    `sessions` were not finished.
    """

    id: str
    server: str
    destination: str
    arguments: Mapping[str, object]
    started_at: float
    updated_at: float
    state: str
    alive: bool
    completed_files: int
    completed_bytes: int
    open_files: int
    sessions: tuple[str, ...]


def path_key(file: LocalFile) -> bytes:
    """The absolute path of `file` as the journal keys it: bytes, since a path need not be text.

    A relative path is taken from the current working directory: a resume must change to the run's directory first. A
    NUL, which is in no path, sets off the file's own destination.
    """
    path = os.fsencode(os.path.abspath(file.path))
    return path + b"\0" + file.destination.encode() if file.destination else path


# --- rows -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunRow:
    """What a handle needs of its run: `number` is for life; receipts of periods after `since` are newer than the run.

    `fresh`: nothing that another run began is resumed.
    """

    id: str
    number: int
    target: int
    since: int
    resumed_from: str | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Pending:
    """A file under way: its size and mtime, the run (number) that sends it, and whether the outcome is unknown."""

    size: int
    mtime_ns: int
    run: int
    upload: PendingUpload
    uncertain: bool = False


def is_of(file: LocalFile, row: Pending | Receipt) -> bool:
    """Whether `row` is about `file` as it is now."""
    return (row.size, row.mtime_ns) == (file.size, file.mtime_ns)


def pending_row(db: sqlite3.Connection, target: int, key: bytes) -> Pending | None:
    """What is under way for `key` (see `path_key`), in whatever run."""
    row = db.execute(
        "SELECT size, mtime_ns, run, uncertain, upload_key, url, session, chunk_size, checked_until, parts,"
        " pledged_until FROM pending WHERE target = ? AND path = ?",
        (target, key),
    ).fetchone()
    if row is None:
        return None
    size, mtime_ns, run, uncertain, upload_key, url, session, chunk_size, checked, parts, pledged = row
    known = tuple(PendingPart(*part) for part in json.loads(parts))
    upload = PendingUpload(upload_key, url, session, chunk_size, checked, known, pledged)
    return Pending(size, mtime_ns, run, upload, bool(uncertain))


def pending_columns(pending: Pending) -> tuple[object, ...]:
    """The columns of `pending_row`, in its order."""
    upload = pending.upload
    parts = json.dumps([astuple(part) for part in upload.parts]) if upload.parts else "[]"
    known = (upload.upload_key, upload.url, upload.session, upload.chunk_size, upload.checked_until)
    return (pending.size, pending.mtime_ns, pending.run, pending.uncertain, *known, parts, upload.pledged_until)


def receipt_row(db: sqlite3.Connection, target: int, key: bytes, since: int = -1) -> Receipt | None:
    """The receipt for `key` (see `path_key`) of a period after `since`."""
    row = db.execute(
        "SELECT run.id, size, mtime_ns, server_id, location, prefix, checksum, verified, completed_at FROM receipt"
        " JOIN target ON target.id = receipt.target LEFT JOIN run ON run.number = receipt.run"
        " WHERE receipt.target = ? AND path = ? AND period > ?",
        (target, key, since),
    ).fetchone()
    if row is None:
        return None
    run, size, mtime_ns, server_id, location, prefix, checksum, verified, at = row
    path = plain_path(key)
    if isinstance(location, int):  # see `receipt_columns`
        location = prefix + quote(path[-location:])
    text, known = os.fsdecode(path), (unpacked(server_id), location, unpacked(checksum), bool(verified), at)
    return Receipt(run, text, size, mtime_ns, *known)


def receipt_columns(key: bytes, row: Receipt, prefix: str | None) -> tuple[object, ...]:
    """Size, mtime, server id, location, checksum, `verified` and time, as `receipt_row` reads them again."""
    location: str | int | None = row.location
    if row.location is not None and prefix is not None and row.location.startswith(prefix):
        tail = row.location.removeprefix(prefix)
        raw = unquote_to_bytes(tail)
        if raw and quote(raw) == tail and plain_path(key).endswith(raw):
            location = len(raw)
    known = (packed(row.server_id), location, packed(row.checksum), row.verified, int(row.completed_at))
    return (row.size, row.mtime_ns, *known)


def location_prefix(location: str | None, file: LocalFile) -> str | None:
    """What stands before the file's path or name at the end of `location`; None where neither does."""
    for path in (file.relative_path, file.name):
        tail = quote(os.fsencode(path))
        if location is not None and location.endswith("/" + tail):
            return location.removesuffix(tail)
    return None


def plain_path(key: bytes) -> bytes:
    """The path in a key of `path_key`, without the destination."""
    return key.partition(b"\0")[0]


def packed(text: str | None) -> str | bytes | None:
    """`text` in half its bytes where it is hex digits or a UUID, exactly as `unpacked` gives it back."""
    if text is not None:
        with suppress(ValueError):
            digits = bytes.fromhex(text.replace("-", ""))
            return next((raw for raw in (b"h" + digits, b"u" + digits) if unpacked(raw) == text), text)
    return text


def unpacked(value: str | bytes | None) -> str | None:
    """What `packed` was given."""
    if not isinstance(value, bytes):
        return value
    digits = value[1:].hex()
    if value[:1] == b"h":
        return digits
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def session_ids(db: sqlite3.Connection, run: int) -> tuple[str, ...]:
    """The open sessions of the run with this number, oldest first."""
    return tuple(name for (name,) in db.execute("SELECT id FROM session WHERE run = ? ORDER BY rowid", (run,)))


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run with what only the journal uses: its row, the ids it had before, what makes it the same as another."""

    row: RunRow
    earlier: tuple[str, ...]
    identity: str
    info: RunInfo


def listed_runs(db: sqlite3.Connection, is_alive: Callable[[str], bool]) -> Iterator[ListedRun]:
    """All runs, the one that wrote last first."""
    rows = db.execute(
        "SELECT number, run.id, target, since, earlier, identity, finished, server, destination, arguments, started_at,"
        " updated_at, files, bytes, coalesce(open_files, 0) FROM run JOIN target ON target.id = run.target"
        " LEFT JOIN (SELECT run AS owner, count(*) AS open_files FROM pending GROUP BY run) ON owner = number"
        " ORDER BY updated_at DESC, number DESC"
    ).fetchall()
    for number, name, target, since, earlier, identity, finished, server, destination, arguments, *rest in rows:
        started_at, updated_at, files, size, open_files = rest
        alive = not finished and is_alive(name)
        info = RunInfo(
            id=name,
            server=server,
            destination=destination,
            arguments=json.loads(arguments),
            started_at=started_at,
            updated_at=updated_at,
            state="finished" if finished else "running" if alive else "interrupted",
            alive=alive,
            completed_files=files,
            completed_bytes=size,
            open_files=open_files,
            sessions=session_ids(db, number),
        )
        yield ListedRun(RunRow(name, number, target, since), tuple(earlier.split()), identity, info)


class History:
    """What is known of files before a run begins. `target` is None where nothing was ever sent there, `since` where no
    run is resumed. Receipts from before `oldest` (seconds since the epoch) do not count.
    """

    def __init__(self, store: Store, target: int | None, since: int | None, oldest: float) -> None:
        self._store, self._target, self._since, self._oldest = store, target, since, oldest

    def done(self, file: LocalFile) -> bool:
        """Whether the run that would be resumed has sent this very file."""
        return self._since is not None and self._has(file, self._since)

    def sent_before(self, file: LocalFile) -> bool:
        """Whether any run has sent it, as --skip-existing asks."""
        return self._has(file, -1)

    def _has(self, file: LocalFile, since: int) -> bool:
        if self._target is None:
            return False
        with self._store.read() as db:
            found = receipt_row(db, self._target, path_key(file), since)
        return found is not None and is_of(file, found) and found.completed_at >= self._oldest
