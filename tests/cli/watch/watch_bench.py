"""An uploading client, and `watch` in a thread of this process with its event stream."""

from __future__ import annotations

import io
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import requests
from command import check_stream
from serving import inside
from time_limits import PATIENCE

from uploader_cli import Settings
from uploader_cli.exit_status import Exit
from uploader_cli.render.ndjson import NdjsonView
from uploader_cli.run.interrupts import Interrupts
from uploader_cli.run.watch import watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uploader_cli.core.events import RunFinished
    from uploader_cli.core.state import Observer
    from uploader_server.serving import EmbeddedServer

DEADLINE = 60.0
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def open_session(url: str, files: int = 1, **headers: str) -> str:
    """Create a session as another user."""
    asked = {"category": "personal", "expectedFiles": files}
    answer = requests.post(f"{url}/api/upload/session", json=asked, headers=headers, timeout=PATIENCE)
    return str(answer.json()["sessionId"])


def send(url: str, session: str, *names: str, **headers: str) -> None:
    """Send a batch as another user."""
    parts = [("files", (name, b"content", "video/mp4")) for name in names]
    fields = {"sessionId": session, "category": "personal"}
    answer = requests.post(f"{url}/api/upload/batch", data=fields, files=parts, headers=headers, timeout=DEADLINE)
    answer.raise_for_status()


def cancel(url: str, session: str) -> None:
    """Cancel it as another user."""
    requests.post(f"{url}/api/upload/cancel/{session}", timeout=PATIENCE).raise_for_status()


def rooms(server: EmbeddedServer) -> list[str]:
    """Sessions that have at least one watcher."""
    known = inside(server).realtime.server.manager.rooms.get("/", {})
    return [room for room in known if str(room).startswith("session:")]


class Watching:
    """`uploader watch`, started when it is created; a context manager that always stops it."""

    def __init__(
        self, url: str, *sessions: str, wait: float = 30.0, views: Sequence[Observer] = (), **settings: Any
    ) -> None:
        self.interrupts = Interrupts()
        self.outcome: RunFinished | None = None
        self._stream = io.StringIO()
        views = [NdjsonView(self._stream, "run-of-the-watch", time.time), *views]
        asked = (Settings(server=url, **settings), sessions, wait, views, self.interrupts)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=asked, name="watch-of-the-test")
        self._thread.start()

    def _run(self, *asked: Any) -> None:
        try:
            self.outcome = watch(*asked)
        except BaseException as error:  # noqa: BLE001 - raised by `end`
            self._failure = error

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events so far."""
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of one type."""
        return [event for event in self.events if event["type"] == kind]

    def until(self, kind: str, **fields: Any) -> None:
        """Return once there was such an event."""

        def seen() -> bool:
            return any(event.items() >= fields.items() for event in self.of(kind))

        wait_until(lambda: seen() or not self._thread.is_alive(), self._stream.getvalue)
        assert seen(), self._stream.getvalue()

    def end(self) -> Exit:
        """Its exit code; the stream keeps all promises."""
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), self._stream.getvalue()
        if self._failure is not None:
            raise self._failure
        check_stream(self.events)
        assert self.outcome is not None
        return Exit(self.outcome.exit_code)

    @property
    def ends(self) -> dict[str, str]:
        """The reported end of each session."""
        return {event["session"]: event["status"] for event in self.of("session.finished")}

    @property
    def files(self) -> dict[str, str]:
        """What became of each file, by its name."""
        ended = [event for event in self.events if event["type"] in ("file.completed", "file.failed")]
        return {event["path"]: event["type"].removeprefix("file.") for event in ended}

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_: object) -> None:
        self.interrupts.raise_(Exit.SIGINT)
        self._thread.join(DEADLINE)


def wait_until(true: Callable[[], object], told: Callable[[], object] = lambda: "") -> None:
    """Return when it is so; the limit only guards against hanging."""
    end = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < end, f"it did not come: {told()}"
        time.sleep(0.01)
