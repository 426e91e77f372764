"""A tus server whose finishes fail at random, in a thread of this process; it is never killed."""

from __future__ import annotations

import contextlib
import os
import random
from typing import TYPE_CHECKING

from scripted_server import Answer
from tus_services import Finishing, Upload

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FAULTS = ("fail", "refuse", "gateway", "lose", "hang", "die", "die")
UNREADABLE = (404, 410, 500, 405, 400)
"""Answers to `GET` of a file that is not stored, or that the server does not give out."""


class Storing(Finishing):
    """Keep files below `root`, under their paths. Until it is `calm` every third finish or so has a fault.

    Its store also fails after the last byte, without an answer (`die`): the offset is the length then, as that of a
    stored file whose answer was lost.
    """

    hangs = 1.0

    def __init__(self, root: Path, chance: random.Random) -> None:
        super().__init__(with_upload=chance.random() < 0.5)
        self.calm, self.hits = False, 0
        self.readable = chance.random() < 0.5
        code = b"ERR_INCOMPLETE_UPLOAD"  # tusd's; a server that gives out no file does not say that
        self.unreadable = Answer(chance.choice(UNREADABLE), code if self.readable else b"")
        self._root, self._chance = root, chance

    def fault_of(self, upload: Upload) -> str:
        fault = "" if self.calm or self._chance.random() < 0.6 else self._chance.choice(FAULTS)
        self.hits += bool(fault)
        return fault

    def store(self, upload: Upload) -> None:
        path = self._root / "personal" / upload.metadata["relativePath"]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = self._root / f"{id(upload)}.part"
        part.write_bytes(upload.content)
        os.replace(part, path)


class TusServer:
    """The server of a round with `--tus-endpoint`: the part of `processes.Server` that a round uses."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory, self.root = directory, directory / "root"
        self.root.mkdir(parents=True)
        self._service = Storing(self.root, random.Random(f"tus server {seed}"))
        self._running = contextlib.ExitStack()

    def start(self, rules: Sequence[str] = ()) -> None:
        """Start the server, or end all faults of the running one."""
        if self._service.url:
            self._service.calm = True
        else:
            self._running.enter_context(self._service)

    @property
    def address(self) -> tuple[str, str]:
        """The option that names the server."""
        return "--tus-endpoint", self._service.url

    @property
    def port(self) -> int:
        """The port of the endpoint."""
        return int(self._service.url.split(":")[2].partition("/")[0])

    def hits(self) -> int:
        """Return the number of finishes that had a fault."""
        return self._service.hits

    def stop(self) -> None:
        """Do nothing: the server keeps its uploads in memory."""

    def kill(self) -> None:
        """End the server."""
        self._running.close()
