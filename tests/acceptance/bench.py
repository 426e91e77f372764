"""Client, proxy and server of an acceptance test: real processes that can be killed at any moment."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from command import Done, start
from proxy import Proxy
from serving import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from command import Process
    from proxy import Onlooker

MIB = 1 << 20


class Bench:
    """A server process with its own root, a proxy in front of it, and one client at a time with its own home."""

    def __init__(self, directory: Path, onlooker: Onlooker | None = None, *options: str, fresh: bool = False) -> None:
        """`options` are those of the server; `fresh` starts new Pythons, whose memory can be measured."""
        self.home, self.root, self._log = directory / "home", directory / "root", directory / "client"
        self.home.mkdir()
        self._options = ("--root", str(self.root), *options)
        self._fresh = fresh
        self.server = ServerProcess(*self._options, fresh=fresh)
        self.proxy = Proxy(self.server.url, onlooker)
        self.client: Process | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill_client()
        self.proxy.__exit__()
        self.server.kill()

    # --- the server ---------------------------------------------------------------------------------------------------

    def kill_server(self) -> None:
        """Kill the server; its address refuses connections until `restart_server`."""
        self.server.kill()

    def restart_server(self) -> None:
        """Restart the server on the same root; the client's URL stays the same."""
        self.server = ServerProcess(*self._options)
        self.proxy.target = self.server.url

    # --- the client ---------------------------------------------------------------------------------------------------

    def start(
        self,
        *arguments: str | Path,
        server: str | None = None,
        terminal: int | None = None,
        constants: Mapping[str, float] | None = None,
    ) -> None:
        """Start `uploader ARGUMENTS --json` with the URL of the proxy, and outputs to files.

        With the descriptor of a `terminal`, stderr goes there. `constants` are those of `command.start`.
        """
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.client = start(
                *(*arguments, "--json"),
                home=self.home,
                stdout=out,
                stderr=terminal or err,
                fresh=self._fresh,
                constants=constants,
                UPLOADER_SERVER=server or self.proxy.url,
            )

    def wait(self, deadline: float = 90.0) -> Done:
        """Wait for the end of the client and return its result."""
        assert self.client is not None
        code = self.client.wait(deadline)
        done = Done(code, self._out.read_text(), self._err.read_text())
        assert "Traceback" not in done.err, done.err
        return done

    def kill_client(self) -> None:
        """Kill the client, from any thread, and wait for its end."""
        client = self.client
        if client is not None:
            client.kill()
            client.wait()

    @property
    def _out(self) -> Path:
        return self._log.with_suffix(".out")

    @property
    def _err(self) -> Path:
        return self._log.with_suffix(".err")

    # --- what is stored -----------------------------------------------------------------------------------------------

    def stored(self) -> dict[str, str]:
        """Return the SHA-256 of every stored file, by its path below the category."""
        return digests(self.root / "personal")

    def left_over(self) -> list[Path]:
        """Return what the server keeps of unfinished uploads."""
        private = self.root / ".uploader"
        return [path for name in ("tus", "incoming") for path in (private / name).iterdir()]


def make_files(top: Path, sizes: Mapping[str, int], seed: int) -> dict[str, str]:
    """Make files of random bytes; return the SHA-256 of each by its path on the server."""
    source = random.Random(seed)
    for name, size in sizes.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for start in range(0, size, MIB):
                file.write(source.randbytes(min(MIB, size - start)))
    return {f"{top.name}/{name}": digest for name, digest in digests(top).items()}


def sparse(path: Path, size: int) -> Path:
    """Make a file of zeros that takes no space on disk."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def digests(top: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory."""
    found = {}
    for path in sorted(top.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                found[path.relative_to(top).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def peak_memory(pid: int) -> int:
    """Return the highest resident size (VmHWM, bytes) of a process and its children; 0 if it has ended."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        own = next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:")), 0)
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = {int(child) for task in tasks for child in (task / "children").read_text().split()}
        return own + sum(map(peak_memory, children))
    return 0


def bytes_read(pid: int) -> int:
    """Return the bytes that a process has read from files and connections; 0 if it has ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/io").read_text().split()[1])
    return 0


@contextlib.contextmanager
def watched_memory(pid: int, measure: Callable[[int], int] = peak_memory) -> Iterator[list[int]]:
    """Record `measure` of a process every few milliseconds until the end of the context, the newest last."""
    readings, over = [measure(pid)], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            readings.append(max(readings[-1], measure(pid)))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield readings
    finally:
        over.set()
        watcher.join()


def written(path: Path) -> tuple[int, int]:
    """Return a value that changes with each write to a file; zeros if it does not exist."""
    with contextlib.suppress(FileNotFoundError):
        state = os.stat(path)
        return state.st_size, state.st_mtime_ns
    return 0, 0


def wait_for_writes(path: Path, count: int, deadline: float = 30.0) -> None:
    """Return when a file has changed this many times."""
    last, until = written(path), time.monotonic() + deadline
    while count:
        time.sleep(0.0002)
        now = written(path)
        if now != last:
            last, count = now, count - 1
        elif time.monotonic() > until:
            raise AssertionError(f"nothing writes to {path}")
