"""Log lines: texts of clients can't forge a line or send an escape sequence to a terminal; paths have no secrets.

Without `--verbose` only errors are shown, so what an operator has to know in any case is logged as an error.
"""

from __future__ import annotations

import logging
import os
import re
import time
import traceback
from typing import Any

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_RIGHT_TO_WRITE = re.compile(r"(/api/upload/(?:files|packs)/).+", re.DOTALL)
EVERY = 1.0  # minimum seconds between two lines about unexpected errors of one kind
LONGEST = 200  # maximum characters of such an error's text
INDENT = "    "  # before each line of a traceback, so that none looks like a message


def printable(text: str) -> str:
    """Escape control characters, line separators, direction marks and lone surrogates, as JSON does."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def without_secrets(path: str) -> str:
    """Mask the id of a tus upload and the key of a pack in a path: each is the right to write."""
    return _RIGHT_TO_WRITE.sub(r"\1***", path)


class Seldom(logging.Filter):
    """Makes one line of an unexpected error, and passes at most one a second of a kind: its type and its place.

    With `verbose` the line is followed by the traceback.
    """

    def __init__(self, *, verbose: bool) -> None:
        super().__init__()
        self._verbose = verbose
        self._passed: dict[tuple[str, str], float] = {}  # when the last one of a kind was passed (monotonic seconds)
        self._dropped: dict[tuple[str, str], int] = {}  # how many were dropped since then

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return True
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"
        kind, now = (type(error).__name__, place), time.monotonic()
        if now < self._passed.get(kind, -EVERY) + EVERY:
            self._dropped[kind] = self._dropped.get(kind, 0) + 1
            return False
        self._passed[kind] = now
        more = self._dropped.pop(kind, 0)
        what, text = record.getMessage().partition("\n")[0], str(error)[:LONGEST]
        record.msg, record.args = f"{what}: {kind[0]}: {text} ({place}){f', and {more} more' if more else ''}", ()
        if not self._verbose:
            record.exc_info = record.exc_text = None
        return True


class Formatter(logging.Formatter):
    """Formats records as `LEVEL: message` in one line, and tracebacks in indented lines below it."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return "\n".join(INDENT + printable(line) for line in super().formatException(ei).split("\n"))
