"""The token of the API: from the environment, a file or a command. It is never shown."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from uploader_cli.errors import UsageError
from uploader_cli.settings.values import Invalid, secret

if TYPE_CHECKING:
    from pathlib import Path

COMMAND_LIMIT = 60.0
"""Seconds a token command may take: it may ask a person for a fingerprint, but must not hang a CI job."""


def from_file(file: Path, source: str) -> str:
    """The word in `file`, read anew each time because agents rotate it. Raises `UsageError`."""
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"{source}: the token file {file} can't be read ({why})") from None
    return _checked(content, f"{source}: the token file {file}")


class TokenCommand:
    """A shell command that prints a token. It is run once, and again when the server no longer takes the token."""

    def __init__(self, line: str, source: str) -> None:
        self._line = line
        self._source = source
        self._known: str | None = None
        self._lock = threading.Lock()

    def token(self, *, refresh: bool) -> str:
        """The token; `refresh` runs the command anew. Raises `UsageError` without the command or its output."""
        with self._lock:
            if refresh or self._known is None:
                self._known = self._run()
            return self._known

    def _run(self) -> str:
        import subprocess

        process = subprocess.Popen(  # noqa: S602 - the user's own line; a stranger's directory can't set it (layers.py)
            self._line,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it may name the secret, and would tear the live view
        )
        try:
            output, _ = process.communicate(timeout=COMMAND_LIMIT)
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


def _checked(content: str, what: str) -> str:
    try:
        return secret(content)
    except Invalid as error:
        raise UsageError(f"{what} {error}", hint=error.hint) from None
