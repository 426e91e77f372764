"""The library: `from uploader_cli import upload`."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from uploader_cli.core import events as ev
from uploader_cli.core.observer import Observer
from uploader_cli.result import Receipts
from uploader_cli.run import analysis
from uploader_cli.run.from_file import readable_list
from uploader_cli.run.logfile import open_log
from uploader_cli.run.reports import of_settings
from uploader_cli.run.upload import Interrupts, begin, execute, select
from uploader_cli.settings import Settings, resolve, user_config_file
from uploader_cli.transfer.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uploader_cli.core.state import ProgressState
    from uploader_cli.result import Result


def upload(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    settings: Settings | None = None,
    *,
    server: str | None = None,
    on_progress: Callable[[ev.FileProgress], None] | None = None,
    on_completed: Callable[[ev.FileCompleted], None] | None = None,
    on_error: Callable[[ev.FileFailed], None] | None = None,
) -> Result:
    """Upload files and directories, or without `paths` the files listed in `settings.from_file`.

    `settings` default to the environment and the config files, as for the command; `server` overrides them. The
    callbacks run in the calling thread, one at a time; an exception in one ends the upload and is raised here. Failed
    files raise nothing: check `Result.ok` and `Result.receipts`. Raises `UsageError` for a missing path, an empty
    selection or invalid settings. All threads have ended when it returns.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if settings is None:
        settings = resolve({"server": server}, env=os.environ, cwd=Path.cwd(), user_config=user_config_file())
    elif server is not None:
        url = resolve({"server": server}, env={}, cwd=Path("/"), user_config=None).server
        protocol = "auto" if settings.tus_endpoint else settings.protocol  # a tus endpoint had set it to tus
        settings = replace(settings, server=url, tus_endpoint=None, protocol=protocol)
    names = [os.fspath(path) for path in given]
    receipts = Receipts()
    observers: list[Observer] = [_Callbacks(on_progress, on_completed, on_error), receipts]
    run_id = secrets.token_hex(8)
    with readable_list(settings, names) as ready:
        found = select(ready, names)
        analysis.check(ready, found)
        written = of_settings(ready, run_id, env={})
        with Journal(ready.state_path) as journal:
            run = begin(ready, names, journal, run_id)
            log = open_log(ready, run_id)
            kept = written.recorder(ready, run_id, run.resumed_from)
            observers += [log] if log else []
            outcome = execute(ready, found, observers, Interrupts(), journal=journal, run=run, kept=kept)
    problems = (problem for recorder in kept for problem in recorder.notices.problems)
    return replace(receipts.result(outcome), report_problems=tuple(problems))


class _Callbacks(Observer):
    """An observer that calls the callbacks."""

    def __init__(
        self,
        on_progress: Callable[[ev.FileProgress], None] | None,
        on_completed: Callable[[ev.FileCompleted], None] | None,
        on_error: Callable[[ev.FileFailed], None] | None,
    ) -> None:
        self._on_progress, self._on_completed, self._on_error = on_progress, on_completed, on_error

    def handle(self, event: ev.Event, state: ProgressState, now: float) -> None:  # noqa: ARG002 - the protocol's signature
        """Call the callback for this kind of event."""
        match event:
            case ev.FileProgress() if self._on_progress:
                self._on_progress(event)
            case ev.FileCompleted() if self._on_completed:
                self._on_completed(event)
            case ev.FileFailed() if self._on_error:
                self._on_error(event)
            case _:
                pass
