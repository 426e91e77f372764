"""The API token, from a file or a command. It is never shown."""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from uploader_cli.errors import Interrupted, UsageError
from uploader_cli.named_files import naming
from uploader_cli.settings.values import Invalid, secret

if TYPE_CHECKING:
    import subprocess

LOOK = 0.1  # seconds between two checks for an interrupt
AGAIN_LIMIT = 5.0  # maximum seconds to wait for another token from a named pipe
COMMAND_LIMIT = 60.0  # maximum seconds for a token command: long enough for a prompt, short enough for a CI job


def token_from_file(file: Path, source: str, stopped: Callable[[], bool], *, refresh: bool = False) -> str | None:
    """Return the token in `file`, read each time because agents rotate it. Raises `UsageError` or `Interrupted`.

    With `refresh` return None for a pipe into which no other token is written.
    """
    with naming(source, f"the token file {file}"):
        if file.is_fifo():
            raw = _from_pipe(file, stopped, AGAIN_LIMIT if refresh else math.inf)
            if refresh and not raw:
                return None
        else:
            raw = file.read_bytes()
    try:
        content = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{source}: the token file {file} can't be read: not UTF-8") from None
    return _checked(content, f"{source}: the token file {file}")


def _from_pipe(file: Path, stopped: Callable[[], bool], limit: float) -> bytes:
    """Read a named pipe to its end, at most `limit` seconds; a blocking read could not be interrupted."""
    out, until = b"", time.monotonic() + limit
    pipe = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while time.monotonic() < until:
            _check(stopped)
            if not select.select([pipe], [], [], LOOK)[0]:
                continue
            with suppress(BlockingIOError):
                piece = os.read(pipe, 1 << 16)
                if not piece:
                    return out
                out += piece
        return out
    finally:
        os.close(pipe)


class TokenCommand:
    """A shell command that prints a token. It runs once, and again when the server rejects the token."""

    def __init__(self, line: str, source: str) -> None:
        self._line = line
        self._source = source
        self._known: str | None = None
        self._lock = threading.Lock()

    def token(self, *, refresh: bool, stopped: Callable[[], bool]) -> str:
        """Return the token; `refresh` runs the command again. Raises `UsageError` or `Interrupted`."""
        with self._lock:
            if refresh or self._known is None:
                _check(stopped)
                self._known = self._run(stopped)
            return self._known

    def _run(self, stopped: Callable[[], bool]) -> str:
        import subprocess

        process = subprocess.Popen(  # noqa: S602 - the user's command; an untrusted directory can't set it
            self._line,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it may contain the secret and would disturb the live view
        )
        try:
            output = self._output(process, stopped)
        except BaseException:
            # Not `with process`: it would wait for descendants that keep the pipe open.
            process.kill()
            process.wait()
            raise
        if process.returncode:
            raise UsageError(
                f"{self._source}: the token command failed with exit code {process.returncode}",
                hint="run it yourself to see its output, which may be secret and is not shown here",
            )
        return _checked(output.decode("ascii", "replace"), f"{self._source}: the output of the token command")

    def _output(self, process: subprocess.Popen[bytes], stopped: Callable[[], bool]) -> bytes:
        from subprocess import TimeoutExpired

        until = time.monotonic() + COMMAND_LIMIT
        while time.monotonic() < until:
            with suppress(TimeoutExpired):
                return process.communicate(timeout=LOOK)[0]
            _check(stopped)
        raise UsageError(f"{self._source}: the token command took longer than {COMMAND_LIMIT:.0f} s")


def _check(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise Interrupted("interrupted while waiting for a token")


def _checked(content: str, what: str) -> str:
    try:
        return secret(content)
    except Invalid as error:
        raise UsageError(f"{what} {error}", hint=error.hint) from None
