"""Start the bundled server for a test: in a thread of this process, or as a process of its own."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import forking
from patience import PATIENCE

from uploader_server.config import ServerConfig
from uploader_server.serving import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parent.parent
_READY = re.compile(r"uploader server ready on (\S+) \(files in (.*?)(?:, removed on exit)?; Ctrl-C stops\)")


@contextlib.contextmanager
def running_server(*, described: bool = True, **config: Any) -> Iterator[EmbeddedServer]:
    """The bundled server in a thread, on a free port; keywords are those of `ServerConfig`.

    It offers no packs unless asked to: most tests look at the requests of single files. What it answered must be in
    its own description, unless a fault was asked for or it is not `described`: a test changes its answers.
    """
    with EmbeddedServer(ServerConfig(**{"packs": False, **config})) as server:
        yield server
        undescribed = answers_beyond(server) if described and server.config.flavour == "bundled" else []
    assert not undescribed, f"/openapi.json does not have {undescribed}"


def answers_beyond(server: EmbeddedServer) -> list[tuple[str, str, int]]:
    """Method, path and status of answers to known calls that `/openapi.json` does not describe; none after a fault."""
    faults = server.faults
    if faults.rules or faults._script:
        return []
    answered = {(entry.method, entry.path, entry.status) for entry in faults.requests if entry.status}
    calls = {
        (method.upper(), re.compile(re.sub("{(id|category)}", "[^/]+", re.sub("{(path|key)}", ".+", path)))): call
        for path, methods in server.app.document()["paths"].items()
        for method, call in methods.items()
    }
    return [
        (method, path, status)
        for method, path, status in sorted(answered)
        for (known, pattern), call in calls.items()
        if method == known and pattern.fullmatch(path) and str(status) not in call["responses"]
    ]


class ServerProcess:
    """`python -m uploader_server --port 0 …` as a child; a context manager that never leaves it running."""

    def __init__(self, *arguments: str, cwd: Path | None = None, packs: bool = False, fresh: bool = False) -> None:
        """`fresh`: in a new Python, where the memory of the process or its start is the subject."""
        line = ["--port", "0", *(() if packs else ("--no-packs",)), *arguments]
        self.process = forking.start("uploader_server", line, cwd=cwd, env=os.environ, fresh=fresh)
        lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=lambda: lines.put(self._stdout.readline()), daemon=True)
        self._reader.start()
        try:
            line = lines.get(timeout=PATIENCE)
        except queue.Empty:
            line = ""
        ready = _READY.search(line)
        if ready is None:
            self.kill()
            raise RuntimeError(f"the server did not start: {line!r} {self.errors!r}")
        self.url, self.root = ready[1], Path(ready[2])

    @property
    def _stdout(self) -> Any:
        return self.process.stdout

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop, and return its exit code once it has."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self._end()

    def kill(self) -> int:
        """End it as `kill -9` does."""
        if self.process.poll() is None:
            self.process.kill()
        return self._end()

    def _end(self) -> int:
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        self._reader.join()
        if self.process.stderr is not None and not self.process.stderr.closed:
            self.errors = self.process.stderr.read()
            self.process.stderr.close()
            self._stdout.close()
        return code

    errors = ""
    """What it wrote to stderr, after its end."""


@contextlib.contextmanager
def server_process(*arguments: str, cwd: Path | None = None, packs: bool = False) -> Iterator[ServerProcess]:
    """A real server process on a free port; killed at the end if it still runs."""
    server = ServerProcess(*arguments, cwd=cwd, packs=packs)
    try:
        yield server
    finally:
        server.kill()
