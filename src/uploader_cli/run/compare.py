"""The command `check`: compare local files with those on the server."""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

from uploader_cli.core import events as ev
from uploader_cli.core.state import ProgressState
from uploader_cli.errors import NetworkError, Unreachable, UsageError
from uploader_cli.exit_status import Exit
from uploader_cli.render import in_ci
from uploader_cli.render.comparison import ComparisonView
from uploader_cli.render.ndjson import NdjsonView
from uploader_cli.run.from_file import readable_list
from uploader_cli.run.rest_commands import client
from uploader_cli.run.state import writable_state
from uploader_cli.run.upload import history_of, select
from uploader_cli.run.views import UNFOLDED, columns
from uploader_cli.transfer.compare import Comparison

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.compare import Result


def check(settings: Settings, paths: Sequence[str], *, content: bool) -> int:
    """Compare the files with the server's by size, with `content` by SHA-256; exit 4 unless all are the same."""
    if settings.tus_endpoint:
        raise UsageError(
            f"{settings.tus_endpoint} can't be asked which files it has: a tus server has no lookup",
            hint="compare the files as they are sent, with: uploader upload --verify",
        )
    with writable_state(settings) as (able, _), readable_list(able, paths) as ready:
        found = select(ready, paths)
        view, lock = _view(ready, content=content), threading.Lock()

        def tell(event: ev.Event) -> None:
            with lock:
                view.tell(event)

        def emit(event: ev.Event) -> None:  # in the threads of the comparison, as `on_read`
            if isinstance(event, ev.RunWarning):
                tell(event)

        def on_read(_file: LocalFile, _position: int, data: memoryview) -> None:
            with lock:
                view.read(len(data))

        with closing(view), history_of(ready, paths) as history, client(ready, emit=emit) as api:
            offer = api.find_lookup()
            api.retry.wait_for_server, api.retry.probe = ready.wait_for_server, api.health
            with closing(Comparison(api, offer, ready, history, on_read if content else None)) as comparison:
                try:
                    return _report(comparison.results(found), tell)
                except NetworkError as error:
                    raise Unreachable(str(error), hint=error.hint) from error


def _report(results: Iterable[Result], tell: Callable[[ev.Event], None]) -> int:
    """Report each result and the summary; return the exit code."""
    counts, size, began = Counter[str](), 0, time.monotonic()
    for result in results:
        match result:
            case ev.CheckFile():
                counts[result.result] += 1
                size += result.size
            case ev.FileFailed():
                counts["failed"] += 1
            case ev.FileSkipped():
                counts["skipped"] += 1
        tell(result)
    same = not counts["different"] and not counts["missing"] and not counts["failed"]
    tell(
        ev.CheckFinished(
            same=counts["same"],
            different=counts["different"],
            missing=counts["missing"],
            failed=counts["failed"],
            skipped=counts["skipped"],
            bytes=size,
            seconds=round(time.monotonic() - began, 3),
            exit_code=Exit.OK if same else Exit.FAILED_FOR_GOOD,
        )
    )
    return Exit.OK if same else Exit.FAILED_FOR_GOOD


class _JsonView:
    """Writes each event at once as a line of JSON; has the methods of `ComparisonView`."""

    def __init__(self) -> None:
        self._lines, self._state = NdjsonView(sys.stdout, secrets.token_hex(8), time.time), ProgressState()

    def tell(self, event: ev.Event) -> None:
        self._lines.handle(event, self._state, 0.0)
        self._lines.refresh(self._state, 0.0)

    def read(self, _count: int) -> None:
        pass

    def close(self) -> None:
        pass


def _view(settings: Settings, *, content: bool) -> ComparisonView | _JsonView:
    if settings.json:
        return _JsonView()
    return ComparisonView(
        sys.stderr,
        width=columns(UNFOLDED),
        content=content,
        verbose=settings.verbose > 0,
        quiet=settings.quiet,
        moves=sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not in_ci(os.environ),
    )
