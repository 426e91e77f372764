"""Runs a client in one situation after the other, or waits for whatever client comes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from uploader_cli.exit_status import Exit
from uploader_cli.features.checks.check import Check, Checked, Ended, Finding, Verdict
from uploader_cli.features.tester.http_server import HttpServer, Malformed, Request
from uploader_cli.features.tester.play import Play, Situation, Transfer

FILE_SIZE = 256 << 10
"""Bytes of the file that the client sends."""
FILE_NAME = "judge.bin"
URL_VARIABLE, FILE_VARIABLE = "JUDGE_URL", "JUDGE_FILE"
"""Variables of the client's environment."""
_GRACE = 2.0
"""Seconds that a client has to end after it was asked to."""
_NOT_STARTED = (126, 127)
"""Exit codes of the shell for a command that it can't run."""


class Bench:
    """The server with its situations, and the file; `close` ends and deletes them."""

    def __init__(self, kind: type[Play], situations: Sequence[Situation], port: int = 0) -> None:
        """`kind` is the server of the protocol. Raises `OSError` if the port is taken, or the file can't be written."""
        self._directory = tempfile.TemporaryDirectory(prefix="uploader-judge-")
        self.file = Path(self._directory.name) / FILE_NAME
        content = os.urandom(FILE_SIZE)
        self.file.write_bytes(content)
        self._plays: dict[str, Play] = {
            one.check.id: kind(f"/{one.check.id}", one, content, **one.how) for one in situations
        }
        self._server = HttpServer(self._begin, port)
        self.calls = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    def url(self, check: Check) -> str:
        return f"{self.address}/{check.id}/"

    def close(self) -> None:
        self._server.close()
        self._directory.cleanup()

    def _begin(self, request: Request) -> Transfer:
        self.calls += 1
        play = self._plays.get(request.path.split("/")[1])
        if play is None:
            raise Malformed(request.path)
        return play.begin(request)

    def result(self, check: Check, exit_code: int | None = None) -> Checked:
        """Judge what has happened in a situation, and the exit code of the client if it is known."""
        self._server.settled()
        played = self._plays[check.id].played
        played.exit = exit_code
        if not played.requests:
            return Checked(check, Finding(Verdict.SKIPPED, "no client came"))
        try:
            found = check.look(played)
        except Ended as ended:
            found = ended.finding
        found = found if isinstance(found, Finding) else Finding(Verdict.PASS, found or "")
        return Checked(check, replace(found, details={"requests": [*map(str, played.requests)]}))

    def run(self, check: Check, command: str, seconds: float) -> Checked:
        """Run the client in a situation, at most so many seconds, and judge it."""
        played = self._plays[check.id].played
        url, file = self.url(check), str(self.file)
        line = command.replace("{url}", shlex.quote(url)).replace("{file}", shlex.quote(file))
        with tempfile.TemporaryFile() as said:
            client = subprocess.Popen(  # noqa: S602 - the user's own command
                line,
                shell=True,
                env={**os.environ, URL_VARIABLE: url, FILE_VARIABLE: file},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = client.wait(seconds)
            except subprocess.TimeoutExpired:
                return _error(check, f"the client did not end within {seconds:g} s")
            finally:
                _end(client)
            if not played.requests:
                said.seek(0)
                last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
                why = "can't be started" if code in _NOT_STARTED else "sent no request"
                return _error(check, f"the client {why}: exit code {code}, {last or 'no output'}")
        return self.result(check, code)


def _error(check: Check, message: str) -> Checked:
    return Checked(check, Finding(Verdict.ERROR, message, exit=Exit.RETRY_MAY_HELP))


def _end(client: subprocess.Popen[bytes]) -> None:
    """End a client with all that it has started."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(client.pid, how)
        with suppress(subprocess.TimeoutExpired):
            client.wait(_GRACE)
            return
