"""Open and write the file of `--log-file`."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from uploader_cli.errors import UsageError
from uploader_cli.settings import mask

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_cli.render.logfile import LogFile
    from uploader_cli.settings import Settings


def open_log(settings: Settings, run_id: str) -> LogFile | None:
    """Open the log of this run; None without `--log-file`. Raise `UsageError` if the file can't be written.

    A new file is private: the URL of an upload, which the log contains, is enough to write to it on some servers.
    """
    if settings.log_file is None:
        return None
    from uploader_cli.render.logfile import LogFile

    try:
        stream = _Lines(settings.log_file)
    except OSError as error:
        raise UsageError(
            f"{settings.sources.get('log_file', 'log_file')}: {settings.log_file} can't be written: {error.strerror}",
            hint="use a writable file",
        ) from error
    return LogFile(stream, run_id, time.time, level=settings.log_level, mask=mask, lost=_complain)


class _Lines:
    """Appends whole lines, each in one call; a partial line is removed again."""

    def __init__(self, path: Path) -> None:
        """Raises OSError. Ends a partial line that a killed process left."""
        half = path.is_file() and not _ends_a_line(path)
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        if half:
            self.write("\n")

    def write(self, line: str) -> None:
        """Append an ASCII line. Raises OSError if it could not be written completely."""
        left = line.encode("ascii")
        done = 0
        try:
            while done < len(left):
                done += os.write(self._handle, left[done:])
        except OSError:
            with suppress(OSError):  # a pipe can't be truncated
                os.ftruncate(self._handle, os.lseek(self._handle, 0, os.SEEK_END) - done)
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)


def _ends_a_line(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read() == b"\n"
    except OSError:  # empty or unreadable
        return True


def _complain(why: str) -> None:
    sys.stderr.write(f"warning: the log file is not complete: {why}\n")
