"""The token of the API: from the environment, a file or a command. It is never shown."""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from uploader_cli.errors import Interrupted, UsageError
from uploader_cli.settings.values import Invalid, secret

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

LOOK = 0.1
"""Seconds between two looks at whether somebody wants to stop."""
COMMAND_LIMIT = 60.0
"""Seconds a token command may take: it may ask a person for a fingerprint, but must not hang a CI job."""


def from_file(file: Path, source: str, stopped: Callable[[], bool] = lambda: False) -> str:
    """The word in `file`, read anew each time because agents rotate it. Raises `UsageError`, or `Interrupted`."""
    try:
        raw = _from_pipe(file, stopped) if file.is_fifo() else file.read_bytes()
        content = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"{source}: the token file {file} can't be read ({why})") from None
    return _checked(content, f"{source}: the token file {file}")


def _from_pipe(file: Path, stopped: Callable[[], bool]) -> bytes:
    """All that comes through a named pipe. Nothing may come for long: a plain read could not be ended."""
    out = b""
    pipe = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            _check(stopped)
            if not select.select([pipe], [], [], LOOK)[0]:
                continue
            with suppress(BlockingIOError):
                piece = os.read(pipe, 1 << 16)
                if not piece:
                    return out
                out += piece
    finally:
        os.close(pipe)


def _check(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise Interrupted("interrupted while waiting for a token")


class TokenCommand:
    """A shell command that prints a token. It is run once, and again when the server no longer takes the token."""

    def __init__(self, line: str, source: str) -> None:
        self._line = line
        self._source = source
        self._known: str | None = None
        self._lock = threading.Lock()

    def token(self, *, refresh: bool, stopped: Callable[[], bool] = lambda: False) -> str:
        """The token; `refresh` runs the command anew. Raises `UsageError` without its output, or `Interrupted`."""
        with self._lock:
            if refresh or self._known is None:
                _check(stopped)
                self._known = self._run(stopped)
            return self._known

    def _run(self, stopped: Callable[[], bool]) -> str:
        import subprocess

        process = subprocess.Popen(  # noqa: S602 - the user's own line; a stranger's directory can't set it (layers.py)
            self._line,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it may name the secret, and would tear the live view
        )
        try:
            output = _said(process, stopped)
        except BaseException as error:
            # Not `with process`: that would wait for grandchildren that hold the pipe.
            process.kill()
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise UsageError(f"{self._source}: the token command took over {COMMAND_LIMIT:.0f} s") from None
            raise
        if process.returncode:
            raise UsageError(
                f"{self._source}: the token command ended with exit code {process.returncode}",
                hint="run it by hand to see what it says; its output is not shown here because it may be secret",
            )
        return _checked(output.decode("ascii", "replace"), f"{self._source}: what the token command printed")


def _said(process: subprocess.Popen[bytes], stopped: Callable[[], bool]) -> bytes:
    """What the process printed. Raises TimeoutExpired, or `Interrupted`."""
    from subprocess import TimeoutExpired

    until = time.monotonic() + COMMAND_LIMIT
    while True:
        try:
            return process.communicate(timeout=LOOK)[0]
        except TimeoutExpired:
            _check(stopped)
            if time.monotonic() > until:
                raise


def _checked(content: str, what: str) -> str:
    try:
        return secret(content)
    except Invalid as error:
        raise UsageError(f"{what} {error}", hint=error.hint) from None
