"""The SHA-256 of files, computed from the bytes that are read to send them (`--digest`)."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

from uploader_cli.transfer.bodies import read_range

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.plan import LocalFile


class Digests:
    """The digests of the files being sent. Thread-safe. `check` raises to stop a long read."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check, self._lock = check, threading.Lock()
        self._prefixes: dict[int, _Prefix] = {}

    def read(self, file: LocalFile, start: int, data: memoryview) -> None:
        """Add bytes that were read to send them, also repeatedly; those after a gap are read again by `complete`."""
        self._prefix(file).add(start, data)

    def reach(self, file: LocalFile, end: int) -> None:
        """Add the bytes before `end` that were not read yet: an earlier run has sent them. Raise `FileError`."""
        prefix = self._prefix(file)
        if prefix.length < end:
            for start, data in read_range(file, prefix.length, end - prefix.length, check=self._check):
                prefix.add(start, data)

    def known(self, file: LocalFile) -> str | None:
        """Return the hex digest; None unless all bytes were read."""
        prefix = self._prefix(file)
        return prefix.sha256.hexdigest() if prefix.length == file.size else None

    def complete(self, file: LocalFile) -> str:
        """Return the hex digest; what was not read in order, as the parts of a large file, is read now."""
        self.reach(file, file.size)
        return self._prefix(file).sha256.hexdigest()

    def forget(self, file: LocalFile) -> None:
        """Drop what is known of a file that has ended."""
        with self._lock:
            self._prefixes.pop(file.file, None)

    def _prefix(self, file: LocalFile) -> _Prefix:
        with self._lock:
            return self._prefixes.setdefault(file.file, _Prefix())


class _Prefix:
    """The digest of the first `length` bytes of a file."""

    def __init__(self) -> None:
        self.sha256, self.length = hashlib.sha256(usedforsecurity=False), 0
        self._lock = threading.Lock()

    def add(self, start: int, data: memoryview) -> None:
        """Extend the digest by the bytes of `data` that continue it."""
        with self._lock:
            if start <= self.length < start + len(data):
                self.sha256.update(data[self.length - start :])
                self.length = start + len(data)
