"""Uploads by the scheduler with real calls, their files, and batches that a proxy spoils."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from fakes import Supplied
from proxy import Cut, Onlooker, Request, answer

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode
from uploader_cli.core.last_heard import LastHeard
from uploader_cli.core.plan import LocalFile
from uploader_cli.settings import Settings
from uploader_cli.transfer import engine
from uploader_cli.transfer.api import Api
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.reading import RunTarget
from uploader_cli.transfer.pacer import Stop
from uploader_cli.transfer.scheduler import Scheduler
from uploader_cli.transfer.upload_session import RunContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


class Batches(Onlooker):
    """Spoils the nth request for which `part` is in the line; the others pass.

    `cut` ends it in the middle of its body, `early` claims there that a.mp4 and b.mp4 are stored, `swallow` loses its
    answer, `die` does so, and the proxy takes no connection any more.
    """

    def __init__(self, how: str, *which: int, part: str = "POST /api/upload/batch") -> None:
        self._how, self._which, self._part = how, which, part
        self._seen, self._spoiled = 0, set[Request]()

    def head(self, request: Request) -> bytes | None:
        if self._part not in request.line:
            return None
        self._seen += 1
        if self._seen not in self._which:
            return None
        self._spoiled.add(request)
        if self._how == "cut":
            request.mark = 1000
        if self._how == "early":
            names = ("a.mp4", "b.mp4")
            files = [{"id": name, "originalName": name, "status": "completed"} for name in names]
            said = {"success": True, "sessionId": "s", "files": files, "summary": {}, "timestamp": "t"}
            return answer(200, body=json.dumps(said).encode(), close=True)
        return None

    def at_mark(self, request: Request, piece: bytes) -> bytes:
        raise Cut(reset=True)

    def at_answer(self, request: Request) -> None:
        if request in self._spoiled:
            if self._how == "die":
                self.proxy.close_door()
            raise Cut(reset=True)


class Upload:
    """A run of the scheduler with real calls."""

    def __init__(self, url: str, paths: Iterable[Path], **settings: Any) -> None:
        self.settings = Settings(server=url, **{"protocol": "batch", **settings})
        self.events: list[ev.Event] = []
        self.stop_at: type[ev.Event] | None = None
        self.before: dict[type[ev.Event], Callable[[], object]] = {}  # what is done when an event comes
        self.stop, self.last_heard = Stop(), LastHeard()
        self.files = []
        for number, path in enumerate(paths):
            info = path.stat()
            self.files.append(LocalFile(number, str(path), path.name, info.st_size, info.st_mtime_ns))

    def follow(self, session: str) -> None: ...

    def body_sent(self, session: str) -> None: ...

    def leave(self, session: str) -> None: ...

    def go(self) -> errors.UploaderError | None:
        api = Api(self.settings, self._emit, self.stop)
        with Journal(self.settings.state_path) as journal:
            run = journal.begin(RunTarget(self.settings.server, "personal"), {})
            scheduler = Scheduler(RunContext(api, self, run))
            try:
                return engine.upload(scheduler, Supplied(self.files))
            finally:
                api.close()

    def _emit(self, event: ev.Event) -> None:
        self.events.append(event)
        self.before.get(type(event), lambda: None)()
        if self.stop_at is not None and isinstance(event, self.stop_at):
            self.stop.set()

    def all(self, *kinds: type[ev.Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    @property
    def completed(self) -> list[int]:
        return sorted(event.file for event in self.all(ev.FileCompleted))

    @property
    def failed(self) -> dict[int, FailureCode]:
        return {event.file: event.code for event in self.all(ev.FileFailed)}


def make(directory: Path, *names: str | bytes, size: int = 5000) -> list[Path]:
    out = []
    for number, name in enumerate(names):
        path = directory / os.fsdecode(name)
        path.write_bytes(os.urandom(size + number))
        out.append(path)
    return out


def on_disk(root: Path) -> list[str]:
    """SHA-256 of every file under `root`."""
    return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.*") if _is_upload(root, path))


def _is_upload(root: Path, path: Path) -> bool:
    return path.is_file() and path.relative_to(root).parts[0] in ("personal", "scenic")


def digests(paths: Iterable[Path]) -> list[str]:
    return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
