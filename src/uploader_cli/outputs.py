"""Stdout and stderr of the process: what can't be written there ends no command."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO


class Output(io.FileIO):
    """A descriptor whose first failed write (a full disk, a closed terminal) sends all that follows nowhere.

    A reader that went away still raises BrokenPipeError.
    """

    problem = ""
    """Why the write failed."""

    def write(self, data: Any, /) -> int:
        """Write, or drop, all of `data`; return its length."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            self.problem = error.strerror or str(error)
            _connect(self.fileno())
            return memoryview(data).nbytes


def guard() -> Output:
    """Replace `sys.stdout` and `sys.stderr` by streams that survive; return the descriptor of stdout.

    Standard descriptors that are closed lead nowhere: else the next file that is opened would be taken for one of them.
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
        os.set_inheritable(number, True)  # noqa: FBT003 - as it is declared
    else:
        os.dup2(nowhere, number)
        os.close(nowhere)


def _text(raw: Output, before: TextIO | None) -> TextIO:
    """A text stream on `raw`, of the kind that Python made; it makes none (None) of a closed descriptor."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before is not None else "utf-8",
        errors=before.errors if before is not None else "backslashreplace",
        line_buffering=isinstance(before, io.TextIOWrapper) and before.line_buffering,
    )
