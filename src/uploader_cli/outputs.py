"""Stdout and stderr of the process. A failed write does not end the command; signs are shown in any encoding."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any, TextIO

_SIGNS = dict(zip("✗■▶↑↻⋯·●◌◔○–━╸─╍═×²▁▂▃▄▅▆▇█│└┤", "x#>^~~|*ooo-#--==x2__--==##|+|", strict=True))
_SIGNS |= {"✓": "ok", "→": "->", "»": ">>", "…": "...", "≤": "<=", "±": "+-"}
_TABLE = str.maketrans(_SIGNS)


def ascii_signs(text: str) -> str:
    """Return the text with signs of ASCII instead of our others; letters of names stay."""
    return text.translate(_TABLE)


def _replaced(error: UnicodeEncodeError) -> tuple[bytes, int]:
    """Encode our signs as those of ASCII, and all else as escapes."""
    text = error.object[error.start : error.end]
    return ascii_signs(text).encode("ascii", "backslashreplace"), error.end


codecs.register_error("uploader", _replaced)  # type: ignore[arg-type]  # only streams that encode name it


class Output(io.FileIO):
    """A descriptor that discards all output after a failed write (a full disk, a closed terminal).

    A closed pipe still raises BrokenPipeError.
    """

    problem = ""
    """Why the write failed."""

    def write(self, data: Any, /) -> int:
        """Write, or discard, all of `data`; return its length."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            self.problem = error.strerror or str(error)
            _connect(self.fileno())
            return memoryview(data).nbytes


def guard() -> Output:
    """Replace `sys.stdout` and `sys.stderr` by streams that survive write errors; return the descriptor of stdout.

    Closed standard descriptors are opened on the null device; otherwise the next opened file would take their number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _connect(number)
    out = Output(1, "wb", closefd=False)
    only_ascii = os.environ.get("LC_ALL") in ("C", "POSIX") and not os.environ.get("PYTHONUTF8")
    sys.stdout = _text(out, sys.stdout, only_ascii=only_ascii and out.isatty())  # else it may be data
    sys.stderr = _text(Output(2, "wb", closefd=False), sys.stderr, only_ascii=only_ascii)
    return out


def is_unicode(encoding: str) -> bool:
    """Return whether an encoding has all signs."""
    return encoding.lower().replace("-", "").replace("_", "") == "utf8"


def _connect(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere == number:
        os.set_inheritable(number, True)  # noqa: FBT003 - positional only
    else:
        os.dup2(nowhere, number)
        os.close(nowhere)


def _text(raw: Output, before: TextIO | None, *, only_ascii: bool) -> TextIO:
    """Return a text stream on `raw` with the settings of Python's own, which is None for a closed descriptor.

    `only_ascii`: the user asks for it, where Python would choose UTF-8.
    """
    encoding = "ascii" if only_ascii else before.encoding if before is not None else "utf-8"
    errors = before.errors if before is not None else "backslashreplace"
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors=errors if is_unicode(encoding) else "uploader",
        line_buffering=isinstance(before, io.TextIOWrapper) and before.line_buffering,
    )
