"""Where a tus server stores the files of one run: names that it does not take, and files that would replace others."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.capabilities import endpoint_for, names_files
from uploader_cli.core.codes import FailureCode
from uploader_cli.core.plan import Refusal
from uploader_cli.core.protocol import utf8
from uploader_cli.transfer.bodies import metadata_of, named

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.settings import Settings


class Destinations:
    """The places of the files of a run: their URL, or the metadata that the setting `place` names.

    Of each place only digests are kept, in a temporary file beyond a cache: a run may have millions of files. An
    unending run sends a file again to its own place.
    """

    def __init__(self, settings: Settings) -> None:
        self._names = settings.place
        self._templates = [item for item in settings.metadata if item.name in self._names]
        self._sends_paths = any("{path}" in (item.template or "") for item in self._templates)
        endpoint = settings.tus_endpoint or ""
        self._endpoint = endpoint if names_files(endpoint) else ""
        self._has_own_url = "{path}" in endpoint or "{name}" in endpoint
        self._allowed = re.compile(settings.allowed_names) if settings.allowed_names else None
        self._again = settings.unending
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA cache_size = -8192;"  # KiB
            "CREATE TABLE taken (place BLOB PRIMARY KEY, path BLOB NOT NULL) WITHOUT ROWID; BEGIN;"
        )

    def refusal(self, file: LocalFile, checkpoint: Callable[[], None]) -> Refusal | None:
        """Return why the file is not sent: a name that the server refuses, or that of another file of the run."""
        if file.upload_url or not (self._names or self._endpoint or self._allowed):
            return None
        try:
            values = named(file) | metadata_of(file, self._templates, checkpoint)
        except errors.FileError:  # it fails when it is sent
            return None
        place = [(name, values.get(name, "")) for name in self._names]
        for name, value in place or [("the name", utf8(file.relative_path if self._endpoint else file.name))]:
            if wrong := self._wrong(value):
                gives = f"a column {name} in a list gives another" if name in self._names else "rename the file"
                why = f"the server does not take {wrong!r} in {name}: {value}; {gives}"
                return Refusal(FailureCode.SERVER_REFUSED, why)
        url = endpoint_for(self._endpoint, utf8(file.relative_path))
        if self._has_own_url:
            why = f"another file of this run has the same URL on the server, {url}"
            return None if self._is_free(url, file) else Refusal(FailureCode.EXISTS, why)
        if not place or self._is_free("\0".join([url, *(value for _, value in place)]), file):
            return None
        name, value = place[-1]
        other = f"a column {name} in a list" if self._sends_paths else f"--metadata '{name}={{path}}'"
        why = f"another file of this run has the same {name} on the server, {value}; {other} tells them apart"
        return Refusal(FailureCode.EXISTS, why)

    def _wrong(self, value: str) -> str:
        """Return the first character of a name that the server does not take; empty if there is none."""
        if self._allowed is None:
            return ""
        return next((char for char in value if not self._allowed.fullmatch(char)), "")

    def _is_free(self, place: str, file: LocalFile) -> bool:
        row = [hashlib.blake2b(text, digest_size=16).digest() for text in (place.encode(), os.fsencode(file.path))]
        if self._db.execute("INSERT OR IGNORE INTO taken VALUES (?, ?)", row).rowcount:
            return True
        known = self._db.execute("SELECT 1 FROM taken WHERE (place, path) = (?, ?)", row)
        return self._again and known.fetchone() is not None
