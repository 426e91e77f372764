"""Log lines: texts of clients can't forge a line or send an escape sequence to a terminal; paths have no secrets.

Without `--verbose` only errors are shown, so what an operator has to know in any case is logged as an error.
"""

from __future__ import annotations

import logging
import re
from typing import Any

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_RIGHT_TO_WRITE = re.compile(r"(/api/upload/(?:files|packs)/).+", re.DOTALL)
INDENT = "    "  # before each line of a traceback, so that none looks like a message


def printable(text: str) -> str:
    """Escape control characters, line separators, direction marks and lone surrogates, as JSON does."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def without_secrets(path: str) -> str:
    """Mask the id of a tus upload and the key of a pack in a path: each is the right to write."""
    return _RIGHT_TO_WRITE.sub(r"\1***", path)


class Formatter(logging.Formatter):
    """Formats records as `LEVEL: message` in one line, and tracebacks in indented lines below it."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return "\n".join(INDENT + printable(line) for line in super().formatException(ei).split("\n"))
