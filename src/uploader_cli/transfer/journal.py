"""The durable journal: what a run has under way and what it has done, so that kill -9 loses nothing.

One SQLite file in WAL mode in the user's state directory, for all runs and all processes. Keys are server,
destination, absolute path, size and mtime (ns), never content. `synchronous=NORMAL`: a commit survives the death of
the process at any moment; after a power cut the last commits may be missing, never half there.

No token, header or password is stored. Upload URLs are, as the server gave them: to some servers they are
capabilities, which is why the file is 0600 and a directory made for it 0700.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from uploader_cli.transfer.journal_records import RunInfo, Target
    from uploader_cli.transfer.journal_run import RunHandle


class Journal:
    """The journal in `directory`, made where there is none, migrated where it is older, and pruned.

    `notices` are sentences for the user: a journal that can't be read (damaged, or of a newer version) was set aside.
    Raises `UsageError`, naming --state-dir, where nothing can be written.
    """

    notices: tuple[str, ...]

    def __init__(self, directory: Path, *, now: Callable[[], float] = time.time) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Let go; a run that was not finished counts as interrupted."""
        raise NotImplementedError

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(
        self,
        target: Target,
        arguments: Mapping[str, object],
        *,
        identity: object = None,
        run_id: str | None = None,
        fresh: bool = False,
    ) -> RunHandle:
        """Start a run, or go on with the newest unfinished one of the same target and identity that no process holds.

        `arguments` (JSON-able, no secrets) is what `resume` needs to run it again. `identity` (JSON-able) is what makes
        two commands the same, `arguments` by default: paths and cwd, say, without --jobs. `run_id` is random
        by default. `fresh` (--no-resume) goes on with nothing, neither run nor file, and retires such unfinished runs.
        """
        raise NotImplementedError

    def resume(self, run_id: str, *, new_id: str | None = None) -> RunHandle:
        """Go on with this very run (a unique prefix will do).

        Raises `UsageError` if there is none, if it is finished, or if a live process holds it.
        """
        raise NotImplementedError

    def runs(self) -> list[RunInfo]:
        """All that is remembered, newest first."""
        raise NotImplementedError

    def run(self, run_id: str) -> RunInfo:
        """The run with this id, or a unique prefix of it, or of an id that it had before it was resumed.

        Raises `UsageError` where that is none or several.
        """
        raise NotImplementedError

    def newest_unfinished(self) -> RunInfo | None:
        """The run to resume by default: the newest that is unfinished and that no live process holds."""
        raise NotImplementedError

    def forget(self, run_id: str) -> None:
        """Drop a run and what it has under way; its receipts stay. Raises `UsageError` as `run`, or if it is alive."""
        raise NotImplementedError
