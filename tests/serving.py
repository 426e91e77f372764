"""Start the bundled server for a test, in a thread of this process or as a child process."""

from __future__ import annotations

import contextlib
import os
import queue
import random
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock
from urllib.parse import urlsplit

import forking
from time_limits import PATIENCE

from uploader_server.config import ServerConfig
from uploader_server.realtime.rooms import HEARTBEAT
from uploader_server.serving import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from uploader_server.http.tracking import LoggedRequest

REPOSITORY = Path(__file__).resolve().parent.parent
USUAL = dict(HEARTBEAT)
PATIENT = {"uploader_server.serving.IO_DEADLINE": PATIENCE / 2}
"""At its end a server waits for a slow disk, and does not report it."""
_READY = re.compile(r"uploader server ready on (\S+) \(files in (.*?)(?:, removed on exit)?; Ctrl-C stops\)")


@contextlib.contextmanager
def running_server(*, described: bool = True, patient: bool = True, **config: Any) -> Iterator[EmbeddedServer]:
    """Run the bundled server in a thread, on a free port; keywords are those of `ServerConfig`.

    Unless a test has set another one, its heartbeat is `patient`: a pause of some seconds ends no connection.

    Packs are off by default, because most tests check the requests of single files. At the end all answers must be in
    `/openapi.json`, except after faults and without `described` (for tests that change the answers).
    """
    slower = {"bundled": HEARTBEAT["reference"]} if patient and HEARTBEAT == USUAL else {}
    with contextlib.ExitStack() as running:
        with mock.patch.dict(HEARTBEAT, slower):
            server = running.enter_context(EmbeddedServer(ServerConfig(**{"packs": False, **config})))
        yield server
        undescribed = answers_beyond(server) if described and server.config.flavour == "bundled" else []
    assert not undescribed, f"/openapi.json does not have {undescribed}"


def inside(server: EmbeddedServer) -> Any:
    """Return what the parts of a server share, for a test of what they tell no client."""
    return server.app.state


def free_port() -> int:
    """Return a free port outside the range from which the system takes ephemeral ports."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def closed_port(url: str = "") -> Iterator[int]:
    """Reserve a port on which nothing listens, such as that of a server that has ended: no other test gets it."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", urlsplit(url).port or 0))
        yield taken.getsockname()[1]


def answers_beyond(server: EmbeddedServer) -> list[tuple[str, str, int]]:
    """Return method, path and status of answers that `/openapi.json` does not describe; none if there were faults."""
    faults = server.faults
    if faults.rules or faults.script:
        return []
    answered = {(entry.method, entry.path, entry.status) for entry in faults.requests if entry.status}
    return [
        (method, path, status)
        for method, path, status in sorted(answered)
        for known, pattern, statuses in _described_calls(server)
        if method == known and pattern.fullmatch(path) and str(status) not in statuses
    ]


def _described_calls(server: EmbeddedServer) -> list[tuple[str, re.Pattern[str], set[str]]]:
    """Return method, pattern of paths and statuses of each call in `/openapi.json`, made once for equal servers."""
    config = server.config
    decides = (frozenset(route.path for route in server.app.routes), config.auth_token is None)
    if decides not in _CALLS:
        _CALLS[decides] = [
            (
                method.upper(),
                re.compile(re.sub("{(id|category)}", "[^/]+", re.sub("{(path|key)}", ".+", path)), re.DOTALL),
                {*call["responses"]},
            )
            for path, methods in server.app.document()["paths"].items()
            for method, call in methods.items()
        ]
    return _CALLS[decides]


_CALLS: dict[tuple[frozenset[str], bool], list[tuple[str, re.Pattern[str], set[str]]]] = {}


def calls_of(server: EmbeddedServer) -> list[LoggedRequest]:
    """Return the requests but those of realtime connections, which are logged at their end."""
    return [request for request in server.faults.requests if not request.path.startswith("/socket.io/")]


def runs_of(server: EmbeddedServer) -> set[str]:
    """Return the ids of the runs that made calls, by their request ids.

    A call that was cut is logged some time after the end of the run that made it.
    """
    return {request.request_id.rpartition("-")[0] for request in calls_of(server)}


class ServerProcess:
    """`python -m uploader_server --port 0 …` as a child process; see `server_process`."""

    def __init__(
        self,
        *arguments: str,
        cwd: Path | None = None,
        packs: bool = False,
        fresh: bool = False,
        package: str = "uploader_server",
        stdin: int = forking.DEVNULL,
        constants: Mapping[str, float] = PATIENT,
    ) -> None:
        """Start the server and wait until it is ready; `fresh` starts a new Python, for tests of memory or start-up.

        `constants` are those of `forking.start`. A given port is that of a server that has ended: a connection of
        another program may have it for a moment.
        """
        port = () if "--port" in arguments else ("--port", "0")
        line = [*arguments, *port, *(() if packs else ("--no-packs",))]
        how: dict[str, Any] = {"cwd": cwd, "env": os.environ, "fresh": fresh, "stdin": stdin, "constants": constants}
        until = time.monotonic() + PATIENCE
        while True:
            self.process = forking.start(package, line, **how)
            first = self._first_line()
            ready = _READY.search(first)
            if ready is not None:
                break
            self.kill()
            if port or " is in use" not in self.errors or time.monotonic() > until:
                raise RuntimeError(f"the server did not start: {first!r} {self.errors!r}")
        self.url, self.root = ready[1], Path(ready[2])

    def _first_line(self) -> str:
        lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=lambda: lines.put(self._stdout.readline()), daemon=True)
        self._reader.start()
        try:
            return lines.get(timeout=PATIENCE)
        except queue.Empty:
            return ""

    @property
    def _stdout(self) -> Any:
        return self.process.stdout

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal (SIGTERM by default), wait for the end and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self._end()

    def kill(self) -> int:
        """Kill the server (SIGKILL) and return the exit code."""
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
def server_process(*arguments: str, **how: Any) -> Iterator[ServerProcess]:
    """Run a server process on a free port; kill it at the end if it is still running."""
    server = ServerProcess(*arguments, **how)
    try:
        yield server
    finally:
        server.kill()
