"""Where the lines of `--log-file` go."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from uploader_cli.errors import UsageError
from uploader_cli.settings import mask

if TYPE_CHECKING:
    from uploader_cli.render.logfile import LogFile
    from uploader_cli.settings import Settings


def open_log(settings: Settings, run_id: str) -> LogFile | None:
    """Open the log of this run; None where none was asked for. Raise `UsageError` where the file can't be written.

    A file that is made is the user's alone: to some servers the URL of an upload is all it takes to write to it.
    """
    if settings.log_file is None:
        return None
    from uploader_cli.render.logfile import LogFile

    try:
        stream = open(settings.log_file, "a", encoding="utf-8", opener=_private)  # noqa: SIM115 - `LogFile.end` closes it
    except OSError as error:
        raise UsageError(
            f"{settings.sources.get('log_file', 'log_file')}: {settings.log_file} can't be written: {error.strerror}",
            hint="name a file you may write to",
        ) from error
    return LogFile(stream, run_id, time.time, level=settings.log_level, mask=mask, lost=_complain)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _complain(why: str) -> None:
    sys.stderr.write(f"warning: the log file is not complete: {why}\n")
