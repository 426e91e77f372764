"""A fake server and a fake clock for the tests of the transfer package."""

from __future__ import annotations

import io
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import multipart
from fakes import Supplied

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.capabilities import Capabilities
from uploader_cli.core.last_heard import LastHeard
from uploader_cli.core.packs import FoundFile
from uploader_cli.core.plan import ASSUMED, Limits, LocalFile
from uploader_cli.core.protocol import Session, StoredFile
from uploader_cli.core.terms import Offer
from uploader_cli.errors import Interrupted
from uploader_cli.settings import Settings
from uploader_cli.transfer import engine
from uploader_cli.transfer.answers import Answer
from uploader_cli.transfer.budget import RateBudget
from uploader_cli.transfer.connection import Sockets
from uploader_cli.transfer.http_client import RequestIds
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.reading import RunTarget
from uploader_cli.transfer.pacer import Pacer, Stop
from uploader_cli.transfer.scheduler import Scheduler
from uploader_cli.transfer.upload_session import RunContext

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_cli.transfer.bodies import Body
    from uploader_cli.transfer.engine import Supply
    from uploader_cli.transfer.protocols.machine import Ask

WORDS = {
    "name": "originalName",
    "status": "status",
    "server_id": "id",
    "location": "fileName",
    "error": "errorMessage",
    "error_code": "errorCode",
    "size": "fileSize",
    "relative_path": "relativePath",
    "file_path": "filePath",
}
"""The words for the fields of a `StoredFile` in an answer."""
BUNDLED = Limits(1000, 1 << 40, frozenset({"*"}), mixed_types=True, relative_paths=True)


class Clock:
    """A clock that only `sleep` moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeStop(Stop):
    """Sleeps in no time. `at` stops the run in the middle of its nth sleep."""

    def __init__(self, clock: Clock | None = None, at: int | None = None) -> None:
        super().__init__()
        self.slept: list[float] = []
        self._clock, self._at = clock or Clock(), at

    def sleep(self, seconds: float) -> None:
        self.checkpoint()
        self.slept.append(seconds)
        if self._at is not None and len(self.slept) >= self._at:
            self.set()
            raise Interrupted("interrupted")
        self._clock.now += seconds


@dataclass
class Request:
    """One batch request as it arrived."""

    session: str
    category: str
    names: list[str]
    paths: list[str]
    data: list[bytes]


def read_request(body: Body, data: bytes) -> Request:
    """Read back by a parser that is not ours."""
    boundary = body.content_type.partition("=")[2]
    parts = list(multipart.MultipartParser(io.BytesIO(data), boundary, content_length=len(data), strict=True))
    text = {part.name: part.value for part in parts if part.filename is None and part.name != "relativePath"}
    files = [part for part in parts if part.filename is not None]
    assert {part.name for part in files} == {"files"}
    paths = [part.value for part in parts if part.name == "relativePath"]
    return Request(text["sessionId"], text["category"], [p.filename for p in files], paths, [p.raw for p in files])


def drain(body: Body, most: int | None = None) -> bytes:
    """Take the whole body, or `most` bytes of it, as the kernel would."""
    pieces, room = [], len(body) if most is None else most
    while room and (piece := body.read(1 << 20)):
        body.checkpoint()
        pieces.append(bytes(piece[:room]))
        room -= len(pieces[-1])
        body.taken(len(pieces[-1]))
    return b"".join(pieces)


Script = "Callable[[FakeApi, Request], tuple[StoredFile, ...] | None]"


@dataclass
class FakeApi:
    """A fake `Api`. `answers` are for the batch requests, one each; after them all files are stored.

    An answer is an error to raise after the body, a function of the request (which returns None for an answer without a
    list of files), or None for "stored". An error in `early`
    comes before the body.
    """

    server = ""
    tus: Capabilities | None = None
    """Its offer of resumable uploads."""
    limits: Limits | None = None
    session_limits: Limits | None = ASSUMED
    answers: deque[Any] = field(default_factory=deque)
    early: deque[errors.UploaderError | None] = field(default_factory=deque)
    sessions: deque[errors.UploaderError | None] = field(default_factory=deque)
    healths: deque[errors.UploaderError | None] = field(default_factory=deque)
    looks: deque[Any] = field(default_factory=deque)
    heads: deque[Any] = field(default_factory=deque)
    finishes: deque[errors.UploaderError | None] = field(default_factory=deque)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    budget: RateBudget = field(default_factory=RateBudget)
    request_ids: RequestIds = field(default_factory=RequestIds)
    pacer: Pacer = field(init=False)
    settings: Settings = field(init=False)
    emit: Any = None
    sockets: Sockets = field(default_factory=Sockets)
    has_created: threading.Event = field(default_factory=threading.Event)
    has_patched: threading.Event = field(default_factory=threading.Event)
    option: str = "--server"
    warned: set[ev.WarningCode] = field(default_factory=set)
    model: Any = None
    """What answers tus requests."""

    def another(self) -> FakeApi:
        return self

    def request(self, *what: Any, **how: Any) -> Any:
        return self.model.request(*what, **how)

    def authorization(self) -> dict[str, str]:
        return {}

    def may_write(self, session: str) -> dict[str, str]:
        del session
        return {}

    def note(self, answer: Any) -> None:
        del answer

    def warn(self, code: ev.WarningCode, text: str) -> None:
        self.emit(ev.RunWarning(code, text))

    def warn_once(self, code: ev.WarningCode, text: str) -> None:
        if code not in self.warned:
            self.warned.add(code)
            self.warn(code, text)

    def close(self) -> None:
        """Nothing is open."""

    def count(self, kind: str) -> int:
        return sum(call[0] == kind for call in self.calls)

    def health(self, *, retries: int | None = None, patient: bool = True) -> Offer:
        self._play("health", self.healths, retries=retries, patient=patient)
        return Offer(self.limits, self.tus)

    def create_session(
        self, category: str, expected: int, size: int | None = None, retries: int | None = None
    ) -> Session:
        self._play("session", self.sessions, expected, retries=retries)
        self.offer = Offer(self.session_limits, self.tus)
        return Session(f"s{self.count('session')}", category, self.session_limits)

    def ask(self, wanted: Ask, body: Body) -> Answer:
        items = self.batch(wanted.session, body, len(wanted.files))
        said = [{word: getattr(item, name) for name, word in WORDS.items()} for item in items or ()]
        return Answer(200, {}, None if items is None else {"files": said}, wanted.url)

    def batch(self, session: str, body: Body, files: int) -> tuple[StoredFile, ...] | None:
        self._play("batch", self.early, files, patient=False)
        answer = self.answers.popleft() if self.answers else None
        if isinstance(answer, errors.ConnectionLost) and not answer.body_sent:
            drain(body, len(body) // 2)
            raise answer
        request = read_request(body, drain(body))
        self.requests.append(request)
        if isinstance(answer, errors.UploaderError):
            raise answer
        return (answer or stored)(request)

    def progress(self, session: str, *, patient: bool = False, **_how: Any) -> ev.SessionProgress | None:
        assert patient, "a look must not call in a pause"
        self.calls.append(("progress", session))
        answer = self.looks.popleft() if self.looks else None
        if isinstance(answer, errors.UploaderError):
            raise answer
        return answer

    def url_of(self, where: str) -> str:
        return f"http://files.example{where}"

    def stored(self, where: str, retries: int | None = None, *, patient: bool = True) -> Any:
        return self.pacer.call(lambda: self._stored(where), at_most=retries, only_excused=retries is None)

    def _stored(self, where: str) -> Any:
        self.calls.append(("stored", where))
        answer = self.heads.popleft() if self.heads else None if self.limits else (None, None)
        if isinstance(answer, errors.UploaderError):
            raise answer
        return FoundFile(answer[0], answer[1], None) if answer is not None else None

    def finish(self, session: str, failed: int = 0, retries: int | None = None) -> None:
        del failed
        self._play("finish", self.finishes, session, retries=retries)

    def cancel(self, session: str) -> dict[str, object]:
        self.calls.append(("cancel", session))
        return {}

    def _play(
        self, kind: str, script: deque[Any], *arguments: Any, retries: int | None = None, patient: bool = True
    ) -> None:
        def step() -> None:
            self.calls.append((kind, *arguments))
            error = script.popleft() if script else None
            if error is not None:
                raise error

        if patient:
            self.pacer.call(step, at_most=retries, only_excused=retries is None)
        else:
            step()


def stored(request: Request) -> tuple[StoredFile, ...]:
    """Every file of the request, stored as it is."""
    return tuple(
        StoredFile(
            name=name,
            status="completed",
            server_id=f"id-{name}",
            location=f"at-{name}",
            error=None,
            size=len(data),
            relative_path=path,
        )
        for name, data, path in zip(
            request.names, request.data, request.paths or [""] * len(request.names), strict=True
        )
    )


class Followers:
    """Records the calls of the channel."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.last_heard = LastHeard()

    def follow(self, session: str) -> None:
        self.told.append(("follow", session))

    def body_sent(self, session: str) -> None:
        self.told.append(("body_sent", session))

    def leave(self, session: str) -> None:
        self.told.append(("leave", session))


class Run:
    """A scheduler with everything around it faked."""

    def __init__(self, directory: Path, api: FakeApi | None = None, **settings: Any) -> None:
        self.directory = directory
        self.api = api or FakeApi()
        self.settings = Settings(server="http://server.invalid", **{"jobs": 1, **settings})
        self.events: list[ev.Event] = []
        self.followers = Followers()
        self.last_heard = self.followers.last_heard
        self.clock = Clock()
        self.stop: FakeStop = FakeStop(self.clock)
        self.api.budget = RateBudget(self.clock)
        self.api.budget.answered = True
        self.reported: Limits | None = None
        self.files: list[LocalFile] = []

    def file(self, name: str = "a.mp4", size: int = 10, *, named: bool = False) -> LocalFile:
        """Make a file, to be sent."""
        path = self.directory / str(len(self.files)) / name
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes([65 + len(self.files) % 26]) * size)
        made = LocalFile(len(self.files), str(path), name, size, path.stat().st_mtime_ns, named)
        self.files.append(made)
        return made

    def go(self, supply: Supply | None = None) -> errors.UploaderError | None:
        """Run the scheduler, by default on a walk that has ended.

        Every file must have exactly one end, every session that was opened one too.
        """
        settings, self.ends_at = self.settings, len(self.events)
        self.api.settings, self.api.emit = settings, self.events.append
        self.api.pacer = Pacer(self.stop, self.api.budget, settings, self.api.emit, clock=self.clock)
        with Journal(self.settings.state_path) as journal:
            run = journal.begin(RunTarget(self.settings.server, "personal"), {})
            context = RunContext(self.api, self.followers, run)  # type: ignore[arg-type]
            error = engine.upload(Scheduler(context), supply or Supplied(self.files))
        self.reported = context.terms.offer.limits
        ends = [e.file for e in self.all(ev.FileCompleted, ev.FileFailed, ev.FileSkipped)]
        ends += [number for e in self.all(ev.FilesCancelled) for number in e.files]
        assert sorted(ends) == [file.file for file in self.files]
        opened = sorted(e.session for e in self.all(ev.SessionCreated))
        assert sorted(e.session for e in self.all(ev.SessionFinished)) == opened
        assert sorted(session for what, session in self.followers.told if what == "leave") == opened
        return error

    def all(self, *kinds: type[ev.Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    @property
    def completed(self) -> list[int]:
        return [event.file for event in self.all(ev.FileCompleted)]

    @property
    def failed(self) -> dict[int, str]:
        return {event.file: str(event.code) for event in self.all(ev.FileFailed)}

    @property
    def untried(self) -> list[int]:
        skips = self.all(ev.FileSkipped)
        return sorted(event.file for event in skips if event.reason is ev.SkipReason.NOT_TRIED)

    @property
    def warnings(self) -> list[str]:
        return [str(event.code) for event in self.all(ev.RunWarning)]

    def attempts(self, file: LocalFile) -> int:
        return sum(event.file == file.file for event in self.all(ev.FileStarted))

    @property
    def groups(self) -> list[list[str]]:
        """The names of each batch request that arrived whole."""
        return [request.names for request in self.api.requests]


def lost(*, body_sent: bool) -> errors.ConnectionLost:
    return errors.ConnectionLost("the connection broke", body_sent=body_sent)


def refused(status: int, error: str = "") -> errors.AnswerError:
    return errors.AnswerError(f"the server refused: {status}", status=status, error=error)


def fault(status: int = 500, retry_after: float | None = None) -> errors.ServerFault:
    return errors.ServerFault(f"the server failed: {status}", status=status, retry_after=retry_after)


def too_slow() -> errors.TooSlow:
    error = errors.TooSlow("the request did not arrive within the server's time limit (408)", status=408)
    error.retryable = False  # as `Api.ask` raises it
    return error


def session_lost() -> errors.SessionLost:
    return errors.SessionLost("the server refused: 404", status=404, error="SESSION_NOT_FOUND")


def upload_failed() -> errors.ServerFault:
    return errors.ServerFault("the server failed: 500 UPLOAD_FAILED", status=500, error="UPLOAD_FAILED")
