"""Storing received files: the only code that gives a file its name in the root.

The order of the steps, what a stop after each one leaves, and how the next start repairs it: docs/reliability.md,
"How the bundled server stores a file".
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uploader_server.storage import paths
from uploader_server.storage.disk import NO_SPACE
from uploader_server.storage.store import Change, Store
from uploader_server.storage.turns import Turns
from uploader_server.wire import TAKEN

LARGE = 16 << 20  # bytes of a file above which a comparison with a stored one takes long
MOST_COMPARED = 10_000
"""Maximum taken names that one request compares with its files; after that these get free numbers at once."""


@dataclass(slots=True)
class Incoming:
    """A received file and, after `put`, its outcome: stored if it has a `path`, else failed."""

    data: str | Path  # a file with the complete bytes, on the same file system; the caller removes it
    category: str
    wanted: str  # requested path below the category
    size: int  # bytes of `data`
    may_rename: bool = True  # whether it gets another name if its own is taken
    resumable: bool = False
    """Whether `data` is the data file of an upload: flushed while it was written, and linked already if the server
    stopped after the link, or the database failed."""
    path: str | None = None  # below the root
    existing: bool = False  # whether an equal file was stored before
    changed: int = 0
    """Modification time of the stored file in nanoseconds, for the digest cache. A file that comes with it was written
    completely by this request: it is not examined again."""
    error: str = ""
    message: str = ""
    retryable: bool = False  # whether it may be stored if it is sent again
    cause: OSError | None = None  # the error of the disk, if that is why

    def fail(self, error: str, message: str, *, retryable: bool = False, cause: OSError | None = None) -> None:
        """Mark the file as failed. Raises `cause` if the disk is full: the request as a whole is refused then."""
        self.error, self.message, self.cause = error, message, cause
        self.retryable = retryable or cause is not None
        if cause is not None and cause.errno in NO_SPACE:
            raise cause


async def put(
    store: Store,
    files: Sequence[Incoming],
    changes: Callable[[], Iterable[Change]],
    *,
    client: str = "",
    prepare: Callable[[], None] = lambda: None,
    at_once: bool = False,
) -> None:
    """Store files and record them in one transaction; files that have an `error` are only recorded.

    `client` is whose turn it is if that takes long (see `Turns`). `prepare` runs first, in the same thread: it may
    complete the bytes. `changes` returns the rows, from the outcomes. With `at_once` the files are linked on the event
    loop if nothing blocks there: a thread would take longer.

    Raises OSError or sqlite3.Error if the disk failed. No file is confirmed then. Files that were linked keep their
    names: they are complete, and another client may have been told that they are stored.
    """
    with store.placing([f"{file.category}/{file.wanted}" for file in files if not file.error]):
        if at_once and not store.disk.durable and all(_is_free(store, file) for file in files):
            _link_all(store, files, prepare)
        else:
            turns = _turns(store, files)
            async with contextlib.nullcontext() if turns is None else turns.of(client):
                await asyncio.to_thread(_link_all, store, files, prepare)
        await store.save(*changes())


def _turns(store: Store, files: Sequence[Incoming]) -> Turns | None:
    """Return the turns to wait for if storing these files takes long, else None."""
    if len(files) > 1 or not paths.is_shallow(files[0].wanted):
        return store.linking
    return store.comparing if files[0].size > LARGE and os.path.lexists(_target(store, files[0])) else None


def _target(store: Store, file: Incoming) -> str:
    return f"{store.root}/{file.category}/{file.wanted}"


def _is_free(store: Store, file: Incoming) -> bool:
    return paths.is_shallow(file.wanted) and not os.path.lexists(_target(store, file))


def _link_all(store: Store, files: Sequence[Incoming], prepare: Callable[[], None]) -> None:
    """Complete, flush and link the files, then flush their directories (runs in a thread)."""
    prepare()
    disk, names = store.disk, _Names(os.fspath(store.root), left=MOST_COMPARED)
    if disk.durable:
        disk.files([file.data for file in files if not file.error and not file.resumable])
    for file in files:  # in order: earlier files may take the names of later ones
        if not file.error:
            _link(store, file, names)
    if disk.durable:
        # An equal file that was stored by another request may be unflushed.
        disk.files([f"{names.root}/{file.path}" for file in files if file.existing])
        disk.names([f"{names.root}/{file.path}" for file in files if file.path is not None])


@dataclass(slots=True)
class _Names:
    """How many more taken names a request compares with its files, and what it knows of directories."""

    root: str
    left: int
    inside: set[str] = field(default_factory=set)  # directories that are below their category


def _link(store: Store, file: Incoming, names: _Names) -> None:
    """Link one file to its name, or to a numbered one, without overwriting."""
    target = f"{names.root}/{file.category}/{file.wanted}"
    directory = target[: target.rindex("/")]
    try:
        paths.safe_parts(file.wanted)
        if directory not in names.inside:
            paths.check_inside(directory, store.root / file.category)
            names.inside.add(directory)
        linked = None if file.changed else _examine(store, file, directory)
        if linked is None:
            linked = _claim(store, file, target, names)
        file.path = linked[len(names.root) + 1 :]
    except paths.NameTakenError as error:
        file.fail(TAKEN, str(error))
    except paths.UnsafePathError as error:
        file.fail("INVALID_PATH", str(error))
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        file.fail("PATH_CONFLICT", "The path conflicts with a stored file or directory")
    except OSError as error:
        message = error.strerror or str(error)
        if error.errno in paths.BAD_NAME:
            file.fail("INVALID_PATH", message)
        else:
            file.fail("UPLOAD_FAILED", message, cause=error)


def _examine(store: Store, file: Incoming, directory: str) -> str | None:
    """Return the name in `directory` that the file has already, or None. Raises OSError if it is not complete."""
    status = os.stat(file.data)
    if status.st_size != file.size:
        raise OSError(errno.EIO, f"{status.st_size} of {file.size} bytes are on the server's disk")
    file.changed = status.st_mtime_ns
    linked = linked_name(status, directory)
    if linked is None and status.st_nlink > 1:  # in another directory: no file gets two names in the root
        store.own(Path(file.data))
    return linked


def linked_name(data: os.stat_result, directory: str) -> str | None:
    """Return the path in `directory` that is another name of the file with this status, or None."""
    if data.st_nlink == 1 or not os.path.isdir(directory):
        return None
    with os.scandir(directory) as entries:
        return next((entry.path for entry in entries if _is(entry, data)), None)


def _is(entry: os.DirEntry[str], status: os.stat_result) -> bool:
    return entry.inode() == status.st_ino and os.path.samestat(entry.stat(follow_symlinks=False), status)


def _claim(store: Store, file: Incoming, target: str, names: _Names) -> str:
    """Link the file to the first free name, or find an equal one; return the path."""
    try:
        store.link(file.data, target)
        return target
    except FileNotFoundError:
        store.disk.made(os.path.dirname(target))
        paths.make_directories(os.path.dirname(target), store.root)
    except FileExistsError:
        pass
    for candidate in paths.candidates(Path(target), names.left):
        try:
            store.link(file.data, candidate)
            return os.fspath(candidate)
        except FileExistsError:
            if _is_equal(store, file, candidate):
                file.existing = True
                return os.fspath(candidate)
            names.left -= 1
            if not file.may_rename:
                raise paths.NameTakenError from None
    raise AssertionError("candidates() never ends")


def _is_equal(store: Store, file: Incoming, there: Path) -> bool:
    """Return whether a stored file has the bytes of a received one. Raises FileExistsError for a directory."""
    try:
        status = there.stat()
    except FileNotFoundError:  # a symbolic link without a target
        return False
    if stat.S_ISDIR(status.st_mode):
        raise FileExistsError
    if not stat.S_ISREG(status.st_mode) or status.st_size != file.size:
        return False
    if paths.leads_out(there, store.root / file.category) or not store.reading.equal(Path(file.data), there):
        return False
    file.changed = status.st_mtime_ns
    return True
