"""`--log-file`: one JSON object per line with time, level, event and run, without headers, queries and secrets."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from uploader_cli.core import events as ev
from uploader_cli.core.names import escaped, rfc3339
from uploader_cli.core.state import Observer, ProgressState
from uploader_cli.named_files import Pipe
from uploader_cli.private_files import check_own

LEVELS = ("debug", "info", "warning", "error")  # from the lowest to the highest


class LogLines:
    """Appends whole lines, each in one call; a partial line is removed again."""

    def __init__(self, path: Path) -> None:
        """Raise `OSError`, or `UsageError` for a file of another user. End a partial line that a killed process left.

        The lines have URLs that give the right to write. An existing file of this user keeps its mode.
        """
        half = path.is_file() and not _ends_a_line(path)
        self._pipe = Pipe(path, os.O_WRONLY) if path.exists() and not path.is_file() else None
        if self._pipe is not None:
            return
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o600)
        try:
            check_own(self._handle, path)
        except BaseException:
            os.close(self._handle)
            raise
        if half:
            self.write("\n")

    def write(self, line: str) -> None:
        """Append an ASCII line. Raises OSError if it could not be written completely."""
        left, done = line.encode("ascii"), 0
        if self._pipe is not None:
            while done < len(left):
                done += self._pipe.write(left[done:])
            return
        try:
            while done < len(left):
                done += os.write(self._handle, left[done:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._handle, os.lseek(self._handle, 0, os.SEEK_END) - done)
            raise

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        else:
            os.close(self._handle)


def _ends_a_line(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read() == b"\n"
    return True  # empty or unreadable


class LogFile(Observer):
    """Appends to a file that the caller opened."""

    def __init__(
        self,
        stream: LogLines,
        run_id: str,
        wall_clock: Callable[[], float],
        *,
        level: str = "info",
        mask: Callable[[str], str] = str,
        lost: Callable[[str], None] = lambda _why: None,
    ) -> None:
        """`wall_clock` returns unix seconds; events below `level` are left out; `mask` removes secrets from a text.

        A write error (a full disk) does not end the upload: `lost` is called with the reason at the end.
        """
        self._stream, self._run, self._wall_clock = stream, run_id, wall_clock
        self._least, self._mask, self._lost = LEVELS.index(level), mask, lost
        self._problem: OSError | None = None

    def handle(self, event: ev.Event, _state: ProgressState | None = None, _now: float = 0.0) -> None:
        """Write the line of a public event or a request; other events have none."""
        name, level = "call" if isinstance(event, ev.CallMade) else event.type, _level(event)
        if not name or LEVELS.index(level) < self._least:
            return
        line: dict[str, Any] = {"time": rfc3339(self._wall_clock()), "level": level, "event": name, "run": self._run}
        for key, value in ev.as_fields(event).items():
            line[key] = escaped(self._mask(value)) if isinstance(value, str) else value
        try:
            if self._problem is None:
                self._stream.write(json.dumps(line) + "\n")
        except OSError as error:
            self._problem = error

    def close(self, _state: ProgressState | None = None, _now: float = 0.0) -> None:
        """Close the file and report a write error."""
        try:
            self._stream.close()
        except OSError as error:
            self._problem = self._problem or error
        if self._problem is not None:
            self._lost(self._problem.strerror or str(self._problem))


def _level(event: ev.Event) -> str:
    match event:
        case ev.FileProgress() | ev.ServerMessage():
            return "debug"
        case ev.FileRetry() | ev.RunWarning() | ev.CallMade(well=False):
            return "warning"
        case ev.FileFailed() | ev.RunFinished(ok=False):
            return "error"
    return "info"
