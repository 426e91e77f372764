"""The shape of a run's row: SQLite keeps any value in any column, and another program may have written one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, convert, field

from uploader_cli.core.plan import is_secret_url
from uploader_cli.core.record import Record

is_run_id = re.compile(r"[0-9A-Za-z_-]{1,64}").fullmatch  # it is a part of the name of a file


class RunInfo(Record, frozen=True):
    """One run of the list. Times are in seconds since the epoch; `completed_*` include resumed runs.

    `state` is "running", "interrupted" or "finished"; `open_files` are in progress, `sessions` not finished.
    `outcome` is what `RunHandle.finish` got: empty while it runs, and after a kill.
    """

    id: str
    server: str
    destination: str
    started_at: float
    updated_at: float
    state: str
    completed_files: int
    completed_bytes: int
    open_files: int
    arguments: Mapping[str, object]
    outcome: Mapping[str, Any]
    sessions: tuple[str, ...]

    @property
    def is_offered(self) -> bool:
        """True for a run that `resume` takes without being told its ID: resuming helps, or it was killed.

        See `ProgressState.resuming_helps`; runs of earlier versions have no answer, so they are offered. One of URLs
        with queries is not: these may be signatures, and are not stored.
        """
        is_left = self.state == "interrupted" and bool(self.outcome.get("offered", True))
        return is_left and not self.has_secret_urls

    @property
    def has_secret_urls(self) -> bool:
        paths = self.arguments.get("paths")
        return isinstance(paths, list) and any(is_secret_url(str(path)) for path in paths)


class _Arguments(Struct):
    """What `resume` reads; a run without one of these is named when it is resumed."""

    paths: list[str] | None = None
    cwd: str | None = None
    options: dict[str, str | list[str] | bool] | None = None
    listed: str | None = field(name="list", default=None)


class _Failure(Struct):
    path: str
    code: str
    message: str


class _Outcome(Struct):
    done: int | None = None
    total: int | None = None
    searched: bool = True
    failed: int = 0
    failures: tuple[_Failure, ...] = ()
    trouble: str = ""
    offered: bool = True


def run_info(texts: Sequence[bytes], numbers: Sequence[object], state: str, sessions: tuple[str, ...]) -> RunInfo:
    """Return a run from the bytes of its texts (id, server, destination, arguments, outcome) and its numbers.

    The numbers are the times of its start and last change, and the counts of files, bytes and open files. Raise
    `ValueError` for a row of another shape.
    """
    ident, server, destination = (text.decode() for text in texts[:3])
    arguments, outcome = (convert(json.loads(text), dict[str, Any]) for text in texts[3:])  # paths may be no Unicode
    convert(arguments, _Arguments)
    convert(outcome, _Outcome)
    started, updated = convert(numbers[:2], tuple[float, float])
    files, size, open_files = convert(numbers[2:], tuple[int, int, int])
    if not is_run_id(ident) or not math.isfinite(started + updated):
        raise ValueError("no ID, or no time")
    known = (ident, server, destination, started, updated, state, files, size, open_files)
    return RunInfo(*known, arguments, outcome, sessions)
