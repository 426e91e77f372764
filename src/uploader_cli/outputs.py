"""Stdout and stderr of the process. A failed write does not end the command."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO


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
    sys.stdout = _text(out, sys.stdout)
    sys.stderr = _text(Output(2, "wb", closefd=False), sys.stderr)
    return out


def _connect(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere == number:
        os.set_inheritable(number, True)  # noqa: FBT003 - positional only
    else:
        os.dup2(nowhere, number)
        os.close(nowhere)


def _text(raw: Output, before: TextIO | None) -> TextIO:
    """Return a text stream on `raw` with the settings of Python's own, which is None for a closed descriptor."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before is not None else "utf-8",
        errors=before.errors if before is not None else "backslashreplace",
        line_buffering=isinstance(before, io.TextIOWrapper) and before.line_buffering,
    )
