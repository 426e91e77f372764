"""What is uploaded to: the bundled server, @tus/server, and a relay before either. Each is a process of its own."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from benchmarks.measure import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator

STOP = 10.0
"""Seconds for a server to stop; then it is killed."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    endpoint: str
    """Of tus."""
    root: Path
    process: subprocess.Popen[str]
    start_seconds: float
    plain: bool = False
    """Whether it speaks tus only, without the calls of the bundled server."""

    def stored(self) -> Iterator[Path]:
        """Yield the files that were uploaded."""
        for path in self.root.rglob("*"):
            own = ".uploader" in path.parts or (self.plain and path.suffix == ".json")
            if not own and path.is_file():
                yield path

    def at(self, url: str) -> Server:
        """Return the same server as it is reached by another URL."""
        endpoint = url + urlsplit(self.endpoint).path
        return Server(url, endpoint, self.root, self.process, self.start_seconds, self.plain)


Serve: TypeAlias = Callable[[Path, Mapping[str, str]], Server]
"""Starts a server that keeps files in a new directory, with an environment."""


def bundled(command: str, *options: str, endpoint: bool = False) -> Serve:
    """Return what starts `uploader serve`; with `endpoint`, clients are to use its tus endpoint alone."""

    def serve(root: Path, environment: Mapping[str, str]) -> Server:
        arguments = [command, "serve", "--port", "0", "--root", str(root), *options]
        process, url, seconds = _start(arguments, r"ready on (http://\S+)", environment)
        return Server(url, f"{url}/api/upload/files/", root, process, seconds, endpoint)

    return serve


def tus_node(script: Path) -> Serve:
    """Return what starts @tus/server with a FileStore."""

    def serve(root: Path, environment: Mapping[str, str]) -> Server:
        root.mkdir()
        process, port, seconds = _start(["node", str(script), str(root)], r"(\d+)", environment)
        url = f"http://127.0.0.1:{port}"
        return Server(url, f"{url}/files/", root, process, seconds, plain=True)

    return serve


@contextlib.contextmanager
def relay(server: Server, environment: Mapping[str, str], *options: str) -> Iterator[str]:
    """Yield the URL of a relay before a server; `options` are those of `benchmarks.slow_link`."""
    parts = urlsplit(server.url)
    arguments = [sys.executable, "-m", "benchmarks.slow_link", str(parts.hostname), str(parts.port), *options]
    process, port, _ = _start(arguments, r"(\d+)", environment)
    try:
        yield f"https://localhost:{port}" if "--certificate" in options else f"http://127.0.0.1:{port}"
    finally:
        stop(process)


@contextlib.contextmanager
def watched(server: Server, count: int, events: Path, environment: Mapping[str, str]) -> Iterator[list[int]]:
    """Have an upload watched by so many; the list yielded has the number of messages in the end."""
    messages: list[int] = []
    if not count:
        yield messages
        return
    arguments = [sys.executable, "-m", "benchmarks.watchers", server.url, str(count), str(events)]
    process, _, _ = _start(arguments, "(ready)", environment)
    try:
        yield messages
    finally:
        messages.append(int(stop(process).strip() or 0))


def stop(process: subprocess.Popen[str]) -> str:
    """End a process, and return what it wrote since it was ready."""
    process.terminate()
    try:
        return process.communicate(timeout=STOP)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


@cache
def has_option(command: str, option: str) -> bool:
    """Return whether `uploader serve --help` has an option."""
    shown = subprocess.run([command, "serve", "--help"], capture_output=True, text=True, check=False)
    return option in shown.stdout


def _start(
    arguments: list[str], ready: str, environment: Mapping[str, str]
) -> tuple[subprocess.Popen[str], str, float]:
    """Start a process; return it, what the group of `ready` finds in its first line, and the seconds until then."""
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, a pipe that nobody reads would stop the process
    began = time.perf_counter()
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(ready, line)
    if found is None:
        stop(process)
        errors.seek(0)
        raise BenchmarkError(f"`{' '.join(arguments)}` did not start: {line}{errors.read()}".strip())
    return process, found[1], time.perf_counter() - began
