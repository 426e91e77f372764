"""Files of one run that would replace each other on a server."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.capabilities import endpoint_for, names_files
from uploader_cli.core.protocol import utf8
from uploader_cli.transfer.bodies import metadata_of, named

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.settings import Settings


class Collisions:
    """The places of the files of a run, on a server that stores a file under metadata that the setting `place` names.

    Of each place only digests are kept, in a temporary file beyond a cache: a run may have millions of files. With
    `--watch` a file is sent again to its own place.
    """

    def __init__(self, settings: Settings, checkpoint: Callable[[], None]) -> None:
        """`checkpoint` raises to stop."""
        self._names, self._checkpoint = settings.place if settings.foreign else (), checkpoint
        self._templates = [item for item in settings.metadata if item.name in self._names]
        self._sends_paths = any("{path}" in (item.template or "") for item in self._templates)
        endpoint = settings.tus_endpoint or ""
        self._endpoint = endpoint if names_files(endpoint) else ""
        self._again = settings.watch
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA cache_size = -8192;"  # KiB
            "CREATE TABLE taken (place BLOB PRIMARY KEY, path BLOB NOT NULL) WITHOUT ROWID; BEGIN;"
        )

    def taken(self, file: LocalFile) -> str | None:
        """Return why a file would replace another one of the run, else None: the place is its own now."""
        if file.upload_url or not (self._names or self._endpoint):
            return None
        if self._endpoint:
            url = endpoint_for(self._endpoint, utf8(file.relative_path))
            same = f"another file of this run has the same URL on the server, {url}"
            return None if self._is_free(url, file) else same
        try:
            values = named(file) | metadata_of(file, self._templates, self._checkpoint)
        except errors.FileError:  # it fails when it is sent
            return None
        place = [values.get(name, "") for name in self._names]
        if self._is_free("\0".join(place), file):
            return None
        name = self._names[-1]
        other = f"a column {name} in a list" if self._sends_paths else f"--metadata '{name}={{path}}'"
        return f"another file of this run has the same {name} on the server, {place[-1]}; {other} tells them apart"

    def _is_free(self, place: str, file: LocalFile) -> bool:
        row = [hashlib.blake2b(text, digest_size=16).digest() for text in (place.encode(), os.fsencode(file.path))]
        if self._db.execute("INSERT OR IGNORE INTO taken VALUES (?, ?)", row).rowcount:
            return True
        known = self._db.execute("SELECT 1 FROM taken WHERE (place, path) = (?, ?)", row)
        return self._again and known.fetchone() is not None
