"""Memory, threads and descriptors of two processes during a run of many sessions, as reported by the kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from command import Done, environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Held:
    """The resources of a process: resident bytes, threads, open descriptors."""

    memory: float
    threads: float
    descriptors: float

    @classmethod
    def by(cls, pid: int) -> Held:
        """Return the current resources of a process."""
        status = Path(f"/proc/{pid}/status").read_text()
        memory = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS:"))
        return cls(memory, len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd")))

    @classmethod
    def usual(cls, looks: Iterable[Held]) -> Held:
        """Return the median of several samples, so that short-lived threads do not count as growth."""
        looks = list(looks)
        return cls(*(median(getattr(look, name) for look in looks) for name in ("memory", "threads", "descriptors")))

    def __str__(self) -> str:
        return f"{self.memory / (1 << 20):.1f} MiB, {self.threads:g} threads, {self.descriptors:g} descriptors"


class Soak:
    """Samples client and server after each session that ends."""

    def __init__(self, server: int) -> None:
        """`server` is a process id."""
        self._server = server
        self.client: list[Held] = []
        self.server: list[Held] = []

    def run(self, arguments: Sequence[str | Path], home: Path, deadline: float) -> Done:
        """Run `uploader ARGUMENTS --json` to its end; kill it after `deadline` seconds."""
        home.mkdir(exist_ok=True)
        line = [sys.executable, "-m", "uploader_cli", *map(str, arguments), "--json", "--progress", "none"]
        client = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=home, env=environment(home))
        watchdog = threading.Timer(deadline, client.kill)
        watchdog.start()
        with client:
            assert client.stdout is not None
            lines = [self._seen(client.pid, line) for line in client.stdout]
        watchdog.cancel()
        return Done(client.returncode, "".join(lines), "")

    def _seen(self, client: int, line: str) -> str:
        event: dict[str, Any] = json.loads(line)
        if event["type"] == "session.finished":
            self.client.append(Held.by(client))
            self.server.append(Held.by(self._server))
        return line

    def grown(self, after: int, around: int) -> dict[str, tuple[Held, Held]]:
        """For each side, return the usual values around the session `after` and over the last ones."""
        return {
            name: (Held.usual(looks[after - around : after]), Held.usual(looks[-around:]))
            for name, looks in (("client", self.client), ("server", self.server))
        }
