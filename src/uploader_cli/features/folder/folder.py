"""The files that a run with `--watch` sends, and what the run tells of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import filterfalse
from typing import TYPE_CHECKING

from uploader_cli.core.events import Event
from uploader_cli.core.plan import LocalFile, concealed, is_url
from uploader_cli.errors import UsageError
from uploader_cli.feature import options_of
from uploader_cli.features.folder.arrivals import UNFINISHED, Arrivals
from uploader_cli.features.folder.options import FolderOptions
from uploader_cli.selection.selecting import check_paths, check_selection, filters_of, parts_of
from uploader_cli.settings import Settings
from uploader_cli.transfer.journal.receipts import is_doubtful

if TYPE_CHECKING:
    from uploader_cli.transfer.journal.run_handle import RunHandle


class Folder(Arrivals):
    """The files that appear in directories, without those that an earlier run has stored."""

    def __init__(self, settings: Settings, paths: Sequence[str]) -> None:
        """Raise `UsageError` for a path that is no directory."""
        option = settings.given_as("watch")
        if (url := next(filter(is_url, paths), None)) is not None:
            raise UsageError(f"{option}: {concealed(url)} is a URL", hint="name a directory of this machine")
        check_paths(paths)
        if (file := next(filterfalse(os.path.isdir, paths), None)) is not None:
            raise UsageError(f"{option}: {file} is not a directory", hint="name its directory, or omit --watch")
        filters = filters_of(settings, (*UNFINISHED, *settings.exclude))
        check_selection(settings, paths, None, filters.wants)
        settle, follow = options_of(settings, FolderOptions).settle, settings.follow_links
        super().__init__(paths, filters, settle=settle, follow_links=follow, parts=parts_of(settings))
        self._settings = settings

    def begin(self, run: RunHandle, emit: Callable[[Event], None]) -> None:
        """Emit events of this run from now on, and listen to the system, where it can tell of new files.

        A run that consumes files selects also what is stored.
        """
        self.emit, own = emit, self._settings.resend or not self._settings.resume
        if not self._settings.consumes:
            self.uploaded = lambda files: _are_stored(run, files, own=own)
        try:
            from uploader_cli.features.folder.notifications import Notifier
        except ModuleNotFoundError:  # the extra `watch` is not installed
            return
        self.notify = Notifier


def _are_stored(run: RunHandle, files: Sequence[LocalFile], *, own: bool) -> list[bool]:
    """Return which files have a receipt without a doubt, with `own` one of this run."""
    known = zip(files, run.receipts(files, own=own), strict=True)
    return [receipt is not None and not is_doubtful(file, receipt) for file, receipt in known]
