"""Storing received files: the only code that gives a file its name in the root.

The order of the steps, what a stop after each one leaves, and how the next start repairs it: docs/reliability.md,
"How the bundled server stores a file".
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from uploader_server.storage import paths
from uploader_server.storage.categories import Descent
from uploader_server.storage.file_state import FileState
from uploader_server.storage.reading import StoredFile
from uploader_server.storage.store import Change, Store
from uploader_server.storage.turns import Turns
from uploader_server.wire import TAKEN

LARGE = 16 << 20  # bytes above which a comparison with stored files takes long
MOST_COMPARED = 10_000
"""Maximum taken names that one request compares with its files; after that these get free numbers at once."""

CONFLICT = "PATH_CONFLICT", "The path conflicts with a stored file or directory"


async def put(
    store: Store,
    category: str,
    files: Sequence[FileState],
    changes: Callable[[], Iterable[Change]],
    *,
    client: str = "",
    resumable: bool = False,
    prepare: Callable[[], None] = lambda: None,
    at_once: bool = False,
) -> None:
    """Store files and record them in one transaction, with their digests; failed files are only recorded.

    Each file ends as completed, with its `path`, or as failed. `client` is whose turn it is if that takes long (see
    `Turns`). With `resumable` the data files are those of uploads: flushed while they were written, and linked already
    if the server stopped after the link, or the database failed. `prepare` runs first, in the same thread: it may
    complete the bytes. `changes` returns the rows, from the outcomes. With `at_once` the files are linked on the event
    loop if nothing blocks there: a thread would take longer.

    Raises OSError or sqlite3.Error if the disk failed. No file is confirmed then, and the caller reopens them. Files
    that were linked keep their names: they are complete, and another client may have been told that they are stored.
    """
    linking = Linking(store, category, resumable)
    with store.placing([f"{category}/{file.wanted_path}" for file in files if file.error_code is None]):
        if at_once and not store.disk.durable and all(map(linking.is_free, files)):
            linking.run(files, prepare)
        else:
            turns = linking.turns(files)
            async with contextlib.nullcontext() if turns is None else turns.of(client):
                await asyncio.to_thread(linking.run, files, prepare)
        stored = [(file.there, file.sha256) for file in files if file.there is not None]
        digests = [(there, sha256) for there, sha256 in stored if sha256 and there.changed is not None]
        await store.save(*changes(), store.digests.saved(digests))


def refusal(store: Store, file: FileState, category: str) -> tuple[str, str] | None:
    """Return code and message if a file can't be stored, as far as the root shows that before its bytes arrive."""
    try:
        above, name = _place(store, category, file)
        with store.categories.descend(above) as directory:
            there = directory.look(name)
    except FileNotFoundError:
        return None
    except paths.UnsafePathError as error:
        return "INVALID_PATH", str(error)
    except NotADirectoryError:
        return CONFLICT
    except OSError as error:
        return ("INVALID_PATH", error.strerror or str(error)) if error.errno in paths.BAD_NAME else None
    if stat.S_ISDIR(there.st_mode):
        return CONFLICT
    other = not stat.S_ISREG(there.st_mode) or file.announced not in (None, there.st_size)
    return (TAKEN, str(paths.NameTakenError())) if other and not file.may_rename else None


def _place(store: Store, category: str, file: FileState) -> tuple[str, str]:
    """Return the directory below the root and the name that a file asks for. Raises UnsafePathError."""
    wanted = file.wanted_path
    paths.safe_parts(wanted)
    path = f"{category}/{wanted}"
    if len(path) > paths.MAX_NAME:
        store.categories.check_length(path)
    above, _, name = path.rpartition("/")
    return above, name


class Linking:
    """Gives the files of one request their names in a category."""

    def __init__(self, store: Store, category: str, resumable: bool) -> None:
        self._store = store
        self._category = category
        self._resumable = resumable
        self._left = MOST_COMPARED  # how many more taken names are compared
        self._directory = ""  # the path of the open directory below the root
        self._open: Descent | None = None

    def is_free(self, file: FileState) -> bool:
        """Return whether its name is free, without much work."""
        return paths.is_shallow(file.wanted_path) and not self._is_taken(file)

    def turns(self, files: Sequence[FileState]) -> Turns | None:
        """Return the turns to wait for if storing these files takes long, else None."""
        if self._compares_long(files):
            return self._store.comparing  # also for many files: packs of others don't wait for gigabytes
        return self._store.linking if len(files) > 1 or not paths.is_shallow(files[0].wanted_path) else None

    def _compares_long(self, files: Sequence[FileState]) -> bool:
        """Return whether more than LARGE bytes are compared with stored files; small files are not looked up."""
        larger = [file for file in files if file.size > LARGE >> 4]
        left = LARGE - sum(file.size for file in larger)
        for file in larger if left < 0 else ():
            if not self._is_taken(file):
                left += file.size
        return left < 0

    def _is_taken(self, file: FileState) -> bool:
        try:
            paths.safe_parts(file.wanted_path)
            return self._store.categories.status(f"{self._category}/{file.wanted_path}") is not None
        except (OSError, paths.UnsafePathError):
            return True  # it fails when it is linked

    def run(self, files: Sequence[FileState], prepare: Callable[[], None]) -> None:
        """Complete, flush and link the files, then flush their directories (runs in a thread)."""
        prepare()
        disk, root = self._store.disk, self._store.root
        if disk.durable and not self._resumable:
            disk.files([file.data for file in files if file.error_code is None])
        try:
            for file in files:  # in order: earlier files may take the names of later ones
                if file.error_code is None:
                    self._link(file)
        finally:
            if self._open is not None:
                self._open.close()
        if disk.durable:
            # An equal file that was stored by another request may be unflushed.
            disk.files([f"{root}/{file.path}" for file in files if file.existing])
            disk.names([f"{root}/{file.path}" for file in files if file.path is not None])

    def _link(self, file: FileState) -> None:
        """Link one file to its name, or to a numbered one, without overwriting."""
        try:
            above, name = _place(self._store, self._category, file)
            directory = self._enter(above)
            linked = None if file.written else self._examine(file, directory)
            if linked is None:
                linked = self._claim(file, directory, name)
            if not file.existing:
                self._identify(file, linked, directory)
            file.complete(f"{above}/{linked}")
        except paths.NameTakenError as error:
            file.fail(TAKEN, str(error))
        except paths.UnsafePathError as error:
            file.fail("INVALID_PATH", str(error))
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            file.fail(*CONFLICT)
        except OSError as error:
            if error.errno in paths.BAD_NAME:
                file.fail("INVALID_PATH", error.strerror or str(error))
            else:
                file.fail_by_disk(error)

    def _enter(self, path: str) -> Descent:
        """Open a directory, which stays open for the following files."""
        if self._open is None or path != self._directory:
            entered = self._store.categories.enter(path, lambda: self._store.disk.made(f"{self._store.root}/{path}"))
            if self._open is not None:
                self._open.close()
            self._open, self._directory = entered, path
        return self._open

    def _examine(self, file: FileState, directory: Descent) -> str | None:
        """Return the name in `directory` that the file has already, or None. Raises OSError if it is not complete."""
        status = os.stat(file.data)
        if status.st_size != file.size:
            raise OSError(errno.EIO, f"{status.st_size} of {file.size} bytes are on the server's disk")
        linked = directory.named(status)
        if linked is None and status.st_nlink > 1:  # in another directory: no file gets two names in the root
            self._store.own(Path(file.data))
        return linked

    def _claim(self, file: FileState, directory: Descent, name: str) -> str:
        """Link the file to the first free name, or find an equal one; return the name."""
        if self._take(file, directory, name):  # as nearly always: it takes less time than to ask `candidates`
            return name
        others = itertools.islice(
            paths.candidates(name, lambda name: directory.status(name) is not None, self._left), 1, None
        )
        return next(other for other in others if self._take(file, directory, other))

    def _take(self, file: FileState, directory: Descent, name: str) -> bool:
        """Link the file to a name, or find it equal to the file there; return False if another one has the name."""
        try:
            self._store.link(file.data, name, directory)
        except FileExistsError:
            file.existing = self.is_equal(file, name, directory)
            if not (file.existing or file.may_rename):
                raise paths.NameTakenError from None
            self._left -= not file.existing
            return file.existing
        file.linked = True
        return True

    def _identify(self, file: FileState, name: str, directory: Descent) -> None:
        """Note the identity of a linked file, whose temporary name is removed first.

        The data file of an upload is removed later, which changes the ctime: no digest is recorded with it.
        """
        path, data = f"{self._directory}/{name}", file.data
        if self._resumable or not file.linked:
            file.there = StoredFile.of(path, os.stat(data))._replace(changed=None)
            return
        os.unlink(data)
        file.data, file.there = "", StoredFile.of(path, directory.look(name))

    def is_equal(self, file: FileState, name: str, directory: Descent) -> bool:
        """Return whether a stored file has the bytes of a received one. Raises FileExistsError for a directory."""
        there = directory.status(name)
        if there is None:
            return False
        if stat.S_ISDIR(there.st_mode):
            raise FileExistsError
        if not stat.S_ISREG(there.st_mode) or there.st_size != file.size:
            return False
        try:
            stored = directory.open(name)
        except FileNotFoundError:  # it was deleted
            return False
        if not self._store.reading.equal(Path(file.data), stored.fd):
            return False
        file.there = StoredFile.of(f"{self._directory}/{name}", stored.status)  # from before it was read
        return True
