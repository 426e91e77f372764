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
from pathlib import Path

from uploader_server.session import FileState
from uploader_server.storage import paths
from uploader_server.storage.reading import StoredFile
from uploader_server.storage.store import Change, Store
from uploader_server.storage.turns import Turns
from uploader_server.wire import TAKEN

LARGE = 16 << 20  # bytes of a file above which a comparison with a stored one takes long
MOST_COMPARED = 10_000
"""Maximum taken names that one request compares with its files; after that these get free numbers at once."""


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
        digests = [(file.there, file.sha256) for file in files if file.there is not None and file.sha256]
        await store.save(*changes(), store.digests.saved(digests))


class Linking:
    """Gives the files of one request their names in a category."""

    def __init__(self, store: Store, category: str, resumable: bool) -> None:
        self._store = store
        self._base = f"{store.root}/{category}"
        self._resumable = resumable
        self._left = MOST_COMPARED  # how many more taken names are compared
        self._inside: set[str] = set()  # directories that are below the category

    def is_free(self, file: FileState) -> bool:
        """Return whether its name is free, without much work."""
        return paths.is_shallow(file.wanted_path) and not os.path.lexists(self._target(file))

    def turns(self, files: Sequence[FileState]) -> Turns | None:
        """Return the turns to wait for if storing these files takes long, else None."""
        if len(files) > 1 or not paths.is_shallow(files[0].wanted_path):
            return self._store.linking
        return self._store.comparing if files[0].size > LARGE and os.path.lexists(self._target(files[0])) else None

    def run(self, files: Sequence[FileState], prepare: Callable[[], None]) -> None:
        """Complete, flush and link the files, then flush their directories (runs in a thread)."""
        prepare()
        disk, root = self._store.disk, self._store.root
        if disk.durable and not self._resumable:
            disk.files([file.data for file in files if file.error_code is None])
        for file in files:  # in order: earlier files may take the names of later ones
            if file.error_code is None:
                self._link(file)
        if disk.durable:
            # An equal file that was stored by another request may be unflushed.
            disk.files([f"{root}/{file.path}" for file in files if file.existing])
            disk.names([f"{root}/{file.path}" for file in files if file.path is not None])

    def _target(self, file: FileState) -> str:
        return f"{self._base}/{file.wanted_path}"

    def _link(self, file: FileState) -> None:
        """Link one file to its name, or to a numbered one, without overwriting."""
        target = self._target(file)
        directory = target[: target.rindex("/")]
        try:
            paths.safe_parts(file.wanted_path)
            if directory not in self._inside:
                paths.check_inside(directory, self._base)
                self._inside.add(directory)
            linked = None if file.written else self._examine(file, directory)
            if linked is None:
                linked = self._claim(file, target)
                file.linked = not file.existing
                if file.linked and not self._resumable:
                    self._leave(file, linked)
            file.complete(self._below(linked))
        except paths.NameTakenError as error:
            file.fail(TAKEN, str(error))
        except paths.UnsafePathError as error:
            file.fail("INVALID_PATH", str(error))
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            file.fail("PATH_CONFLICT", "The path conflicts with a stored file or directory")
        except OSError as error:
            if error.errno in paths.BAD_NAME:
                file.fail("INVALID_PATH", error.strerror or str(error))
            else:
                file.fail_by_disk(error)

    def _examine(self, file: FileState, directory: str) -> str | None:
        """Return the name in `directory` that the file has already, or None. Raises OSError if it is not complete."""
        status = os.stat(file.data)
        if status.st_size != file.size:
            raise OSError(errno.EIO, f"{status.st_size} of {file.size} bytes are on the server's disk")
        linked = linked_name(status, directory)
        if linked is None and status.st_nlink > 1:  # in another directory: no file gets two names in the root
            self._store.own(Path(file.data))
        return linked

    def _claim(self, file: FileState, target: str) -> str:
        """Link the file to the first free name, or find an equal one; return the path."""
        store = self._store
        try:
            store.link(file.data, target)
            return target
        except FileNotFoundError:
            store.disk.made(os.path.dirname(target))
            paths.make_directories(os.path.dirname(target), store.root)
        except FileExistsError:
            pass
        for candidate in paths.candidates(Path(target), self._left):
            try:
                store.link(file.data, candidate)
                return os.fspath(candidate)
            except FileExistsError:
                if self.is_equal(file, candidate):
                    file.existing = True
                    return os.fspath(candidate)
                self._left -= 1
                if not file.may_rename:
                    raise paths.NameTakenError from None
        raise AssertionError("candidates() never ends")

    def _leave(self, file: FileState, linked: str) -> None:
        """Remove the temporary name of a linked file, whose digest counts with the identity that it has then."""
        os.unlink(file.data)
        file.data, file.there = "", StoredFile.of(self._below(linked), os.stat(linked))

    def _below(self, path: str) -> str:
        return path[len(os.fspath(self._store.root)) + 1 :]

    def is_equal(self, file: FileState, there: Path) -> bool:
        """Return whether a stored file has the bytes of a received one. Raises FileExistsError for a directory."""
        try:
            status = there.stat()
        except FileNotFoundError:  # a symbolic link without a target
            return False
        if stat.S_ISDIR(status.st_mode):
            raise FileExistsError
        if not stat.S_ISREG(status.st_mode) or status.st_size != file.size:
            return False
        if paths.leads_out(there, self._base) or not self._store.reading.equal(Path(file.data), there):
            return False
        file.there = StoredFile.of(self._below(os.fspath(there)), status)  # from before it was read
        return True


def linked_name(data: os.stat_result, directory: str) -> str | None:
    """Return the path in `directory` that is another name of the file with this status, or None."""
    if data.st_nlink == 1 or not os.path.isdir(directory):
        return None
    with os.scandir(directory) as entries:
        return next((entry.path for entry in entries if _is(entry, data)), None)


def _is(entry: os.DirEntry[str], status: os.stat_result) -> bool:
    return entry.inode() == status.st_ino and os.path.samestat(entry.stat(follow_symlinks=False), status)
