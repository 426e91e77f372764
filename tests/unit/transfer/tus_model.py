"""A tus server in this process that fails as a script says, one word for each request, and fakes for clock and sleep.

It replaces `HttpClient`: `UploadCalls` and everything above it are the real ones. No socket, no real clock, no sleep.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate, count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fakes import Clock

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.capabilities import Capabilities
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.presence import ClaimState
from uploader_cli.core.sizes import ChunkSize
from uploader_cli.core.terms import Offer
from uploader_cli.core.terms import Terms as ServerTerms
from uploader_cli.settings import Settings
from uploader_cli.sources.content import Digests
from uploader_cli.sources.unchanged import Doubts
from uploader_cli.transfer.answers import Answer
from uploader_cli.transfer.budget import RateBudget
from uploader_cli.transfer.connection import Sockets
from uploader_cli.transfer.journal.reading import Claim, PendingPart, PendingUpload
from uploader_cli.transfer.pacer import Pacer, Stop
from uploader_cli.transfer.targets import target_of
from uploader_cli.transfer.tus_file import TusFile
from uploader_cli.transfer.tus_reading import Readings
from uploader_cli.transfer.tus_state import Tus
from uploader_cli.transfer.upload_calls import UploadCalls, upload_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from uploader_cli.transfer.results import FileResult

ENDPOINT = "https://up.example/files/"
TUS = {"Tus-Resumable": "1.0.0"}
REFUSALS = {"401", "403", "408", "409", "413", "423", "429", "460", "500", "503"}
PIECE = 7


class Runaway(AssertionError):
    """More requests than any run that ends needs."""


@dataclass
class Upload:
    """What the server has of one upload; `length` in bytes."""

    length: int
    data: bytearray = field(default_factory=bytearray)
    covered: bytearray = field(default_factory=bytearray)
    """One byte for each of `data`: 1 where it came in a chunk whose checksum was compared."""
    metadata: str = ""
    completed_by: str = ""
    """The word of the request that made it complete."""


class Model:
    """Words, one for each request, and what they do:

    `ok`; a status of `REFUSALS`, before anything is done, or with `!` after the work is; a status with `-`: the answer
    of something that is no tus server; `reset` before anything is done; `refused`: no connection; `cut` in the middle
    of the body, what came is kept; `lost`: done, but the answer is lost; `short`: only the first half of the body is
    taken; `forget`: the server loses every upload; `shrink`: it loses the second half of each; `flip`: a bit of the
    body changes on its way; `mute`: an answer without Upload-Offset.
    """

    readable = False  # whether GET gives out what is complete

    def __init__(self, words: Iterable[str] = (), *, keys: bool = True, checks: bool = True, most: int = 5000) -> None:
        self.words = deque(words)
        self.sockets = Sockets()
        self.keys: dict[str, Any] | None = {} if keys else None
        self.checks = checks
        self.keeps_parts = False
        """Whether parts stay beside what they were joined to."""
        self.uploads: dict[str, Upload] = {}
        self.finals: dict[str, tuple[str, ...]] = {}
        self.calls: list[tuple[str, str, dict[str, str], int]] = []
        """Method, URL, headers and bytes of each request."""
        self._most = most
        self.made, self._word = 0, ""
        self._lock = threading.Lock()

    @property
    def methods(self) -> str:
        """The calls by their methods, `POST+` for one with a body."""
        return " ".join(method + ("+" if size and method == "POST" else "") for method, _, _, size in self.calls)

    def request(
        self,
        method: str,
        url: str,
        *,
        body: Any = None,
        headers: Any = None,
        **_how: object,
    ) -> Answer:
        with self._lock:
            return self.respond(method, url, body, headers)

    def respond(self, method: str, url: str, body: Any, headers: Any) -> Answer:
        if len(self.calls) >= self._most:
            raise Runaway(f"{self._most} requests")
        word = self.words.popleft() if self.words else "ok"
        if word == "refused":
            self.calls.append((method, url, dict(headers), 0))
            raise errors.ConnectFailed("refused")
        limit = 0 if word in REFUSALS or word == "reset" or word.endswith("-") else None
        data = self._read(body, limit if word != "cut" else len(body or b"") // 2)
        self.calls.append((method, url, dict(headers), len(data) if body is not None else 0))
        if word == "reset":
            raise errors.ConnectionLost("reset")
        if word in REFUSALS:
            return self.answer(url, int(word))
        if word.endswith("-"):
            return Answer(int(word[:-1]), {}, None, url)
        self._happen(word)
        self._word = word
        if word == "flip" and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        if word == "short":
            data = data[: (len(data) + 1) // 2]
        answer = self.done(method, url, dict(headers), data, whole=word not in ("cut", "short"))
        if word in ("lost", "cut"):
            raise errors.ConnectionLost(word, body_sent=word == "lost")
        if word.endswith("!"):
            return self.answer(url, int(word[:-1]))
        if word == "mute":
            headers = {name: value for name, value in answer.headers.items() if name != "Upload-Offset"}
            return Answer(answer.status, headers, None, url)
        return answer

    def _read(self, body: Any, limit: int | None) -> bytes:
        data = b""
        while body is not None and (limit is None or len(data) < limit):
            piece = bytes(body.read(PIECE if limit is None else min(PIECE, limit - len(data))))
            if not piece:
                break
            data += piece
            body.taken(len(piece))
        return data

    def _happen(self, word: str) -> None:
        if word == "forget":
            self.uploads.clear()
        if word == "shrink":
            for upload in self.uploads.values():
                del upload.data[len(upload.data) // 2 :]
                del upload.covered[len(upload.data) :]

    def done(self, method: str, url: str, headers: dict[str, str], data: bytes, *, whole: bool) -> Answer:
        method = headers.get("X-HTTP-Method-Override", method)
        if method == "POST":
            return self.create(url, headers, data, whole=whole)
        upload = self.uploads.get(url)
        if upload is None:
            return self.answer(url, 404)
        if method == "DELETE":
            del self.uploads[url]
            return self.answer(url, 204)
        if method == "HEAD":
            return self.answer(url, 200, upload, **{"Upload-Length": str(upload.length)})
        if int(headers["Upload-Offset"]) != len(upload.data):
            return self.answer(url, 409, upload)
        return self._store(url, upload, headers, data, whole=whole, status=204)

    def create(self, url: str, headers: dict[str, str], data: bytes, *, whole: bool) -> Answer:
        key = dict(pair.split() for pair in headers["Upload-Metadata"].split(","))["uploadKey"]
        if self.keys is not None and self.keys.get(key) in self.uploads:
            location = self.keys[key]
            upload = self.uploads[location]
            if not upload.length:  # the answer to its creation says that it is complete
                upload.completed_by = self._word
            return self.answer(url, 200, upload, Location=location)
        self.made += 1
        location = f"{ENDPOINT}{self.made}"
        concat = headers.get("Upload-Concat", "")
        if concat.startswith("final;"):
            parts = tuple(concat.removeprefix("final;").split())
            if any(part not in self.uploads for part in parts):
                return self.answer(url, 404)
            found = [self.uploads[part] if self.keeps_parts else self.uploads.pop(part) for part in parts]
            joined, covered = (bytearray().join(getattr(part, name) for part in found) for name in ("data", "covered"))
            upload = Upload(len(joined), joined, covered, headers["Upload-Metadata"])
            self.finals[location] = parts
        else:
            upload = Upload(int(headers["Upload-Length"]), metadata=headers["Upload-Metadata"])
        self.uploads[location] = upload
        if self.keys is not None:
            self.keys[key] = location
        return self._store(url, upload, headers, data, whole=whole, status=201, Location=location)

    def _store(
        self, url: str, upload: Upload, headers: dict[str, str], data: bytes, *, whole: bool, status: int, **more: str
    ) -> Answer:
        algorithm, _, digest = headers.get("Upload-Checksum", "").partition(" ")
        if algorithm and self.checks:
            if not whole:
                return self.answer(url, status, upload, **more)
            if base64.b64encode(hashlib.new(algorithm, data).digest()).decode() != digest:
                return self.answer(url, 460)
        upload.data += data
        upload.covered += bytes([bool(algorithm) and self.checks]) * len(data)
        assert len(upload.data) <= upload.length
        if len(upload.data) == upload.length and (data or not upload.completed_by):
            upload.completed_by = self._word
        return self.answer(url, status, upload, **more)

    @contextmanager
    def stream(self, url: str, _headers: Mapping[str, str]) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """Give out a complete upload, if the model is `readable`."""
        upload = self.uploads.get(url)
        there = self.readable and upload is not None and len(upload.data) == upload.length
        size = {"Content-Range": f"bytes 0-0/{len(upload.data)}"} if there and upload is not None else {}
        yield Answer(206 if there else 405, size, None, url), iter(())

    def answer(self, url: str, status: int, upload: Upload | None = None, **headers: str) -> Answer:
        if status == 429:
            headers["Retry-After"] = "2"
        if upload is not None:
            headers["Upload-Offset"] = str(len(upload.data))
        return Answer(status, {**TUS, **headers}, None, url)


class FakeStop(Stop):
    """Advances a clock instead of sleeping; usable from any thread."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.checkpoint()
        self.slept.append(seconds)
        self.clock.pass_(seconds)


class Emitted:
    """The ledger, the events and the journal of one file. It asserts the promises of the event stream."""

    failures = 0
    kept_elsewhere = False

    def __init__(self, upload: PendingUpload | None = None) -> None:
        self.upload = upload or PendingUpload("k1")
        """What the journal has of the file."""
        self.urls: list[str] = []
        self.retries: list[str] = []
        self.attempts: list[int] = []
        """The offset at which each attempt began."""
        self.sent = self.confirmed = 0
        self.pledges: list[int] = []
        self.ends: list[int] = []
        """The end of each request, where the journal got it."""
        self.writes = 0
        """Changes of the upload in the journal."""
        self.keys = (f"k{number}" for number in count(2))
        self._lock = threading.Lock()

    def creation(self, _file: LocalFile) -> AbstractContextManager[None]:
        return nullcontext()

    def next_run(self) -> Emitted:
        """Return the same journal in another run."""
        told = Emitted(self.upload)
        told.keys = self.keys
        return told

    # --- the ledger and the events

    def start(self, _file: LocalFile, _session: str, _name: str, offset: int) -> bool:
        begins = len(self.attempts) == len(self.retries)
        if begins:
            self.attempts.append(offset)
            self.sent = self.confirmed = offset
        return begins

    def attempt(self, _file: LocalFile) -> int:
        return len(self.attempts)

    def retry(self, _files: Sequence[LocalFile], error: errors.UploaderError, delay: float = 0.0) -> None:
        assert len(self.attempts) == len(self.retries) + 1, "a retry without the attempt before it"
        assert delay >= 0
        self.retries.append(type(error).__name__)

    def emit(self, event: Any) -> None:
        if isinstance(event, ev.BodySent):
            return
        assert event.attempt == len(self.attempts) == len(self.retries) + 1
        if isinstance(event, ev.BytesSent):
            assert event.sent >= self.sent, "sent fell within an attempt"
            self.sent = event.sent
        else:
            assert event.confirmed >= self.confirmed, "confirmed fell within an attempt"
            self.confirmed = event.confirmed

    # --- the journal

    def claim(self, _files: Sequence[LocalFile]) -> list[Claim]:
        return [Claim(ClaimState.RESUME, self.upload)]

    def creating(
        self, _file: LocalFile, session: str | None = None, *, replaced: tuple[str, ...] = ()
    ) -> PendingUpload:
        self.upload = PendingUpload(next(self.keys), session=session, replaced=replaced)
        return self.upload

    def creating_part(self, file: LocalFile, part: int, *, replaced: tuple[str, ...] = ()) -> str:
        key, old = next(self.keys), self.upload.parts[part]
        self._set(file, None, replaced=replaced)
        self._set(file, part, **asdict(PendingPart(part, old.offset, old.size, key)))
        return key

    def split(self, file: LocalFile, sizes: Sequence[int]) -> tuple[PendingPart, ...]:
        ranges = enumerate(zip(accumulate(sizes, initial=0), sizes, strict=False))
        parts = tuple(PendingPart(index, start, size, next(self.keys)) for index, (start, size) in ranges)
        self._set(file, None, parts=parts)
        return parts

    def checked(self) -> None:
        """Called when the server has accepted a checksum."""

    def update(self, file: LocalFile, *, part: int | None = None, **values: Any) -> None:
        if "checked_until" in values:
            self.checked()
        self._set(file, part, **values)
        if part is None and "url" in values:
            self.urls.append(values["url"])
        if "pledged_until" in values:
            self.pledges.append(values["pledged_until"])
        if "sent_until" in values:
            self.ends.append(values["sent_until"])

    def _set(self, _file: LocalFile, part: int | None, **values: Any) -> None:
        with self._lock:
            self.writes += 1
            if part is None:
                self.upload = replace(self.upload, **values)
            else:
                parts = list(self.upload.parts)
                parts[part] = replace(parts[part], **values)
                self.upload = replace(self.upload, parts=tuple(parts))


@dataclass(frozen=True)
class Terms(Tus):
    """Terms that cut every file into as many parts as there are idle workers, and one."""

    @property
    def pacer(self) -> Pacer:
        return self.context.pacer

    def with_retries(self, retries: int) -> Terms:
        return replace(self, context=make_terms(retries=retries).context)

    def parts(self, _size: int, idle: int, _spare: int, _round_trip: float | None) -> int:
        return 1 + idle


def make_terms(
    *,
    chunk_size: int = 10,
    checksum: str | None = None,
    cwu: bool = True,
    extensions: Iterable[str] = (),
    stop: Stop | None = None,
    throttle: Callable[[int], int] = lambda wanted: wanted,
    emit: Callable[[ev.Event], None] = lambda _event: None,
    refresh: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> Terms:
    """Return terms with a clock of their own. `cwu`: the server takes creation-with-upload."""
    clock = Clock()
    offered = {"creation", "checksum", "concatenation", *extensions, *(["creation-with-upload"] if cwu else [])}
    capabilities = Capabilities(
        ENDPOINT, extensions=frozenset(offered), checksum_algorithms=frozenset({"sha1", "sha256"})
    )
    policy: Any = {"settings": Settings(**settings), "emit": emit, "refresh": refresh, "clock": clock}
    pacer = Pacer(FakeStop(clock) if stop is None else stop, RateBudget(clock), **policy)
    warnings: list[str] = []
    how: dict[str, Any] = {"pacer": pacer, "stop": pacer.stop, "throttle": throttle, "chunk": ChunkSize(chunk_size)}
    context: Any = SimpleNamespace(**how, hashes=False, digests=Digests(lambda: None), doubts=Doubts())
    context.terms = ServerTerms(tus=capabilities, checksum=checksum, parts=True)
    context.warn, context.warnings = lambda code, _text: warnings.append(code), warnings
    readings = Readings(lambda _code, _text: None, known=False)
    return Terms(context, SimpleNamespace(), capabilities, readings)  # type: ignore[arg-type]


def with_context(tus: Tus, pool: Any, **context: Any) -> Tus:
    """Return the terms with what a job needs of the run."""
    known: Any = SimpleNamespace(**vars(tus.context), fails_fast=False)
    vars(known).update(context)
    return replace(tus, context=known, pool=pool)


def tus_file(
    told: Emitted,
    line: deque[Any],
    terms: Terms,
    file: LocalFile,
    *,
    resumes: bool = False,
    session: str = "",
    foreign: bool = False,
    idle: int = 0,
) -> TusFile:
    """Return the job that sends a file. Others that it makes go into `line`; `idle` workers could send parts."""
    settings, offered = Settings(tus_endpoint=ENDPOINT if foreign else None), Offer(tus=terms.capabilities)
    known = replace(target_of(settings).terms(offered), checksum=terms.terms.checksum, trusts_checksums=True)
    pool: Any = SimpleNamespace(idle=idle, spare=idle, put=lambda jobs, first: line.extendleft(reversed(jobs)))
    tus = with_context(terms, pool, terms=known, settings=settings, emit=told.emit, ledger=told, run=told)
    opened: Any = SimpleNamespace(id=session, renew=lambda _api, _lost: False)
    claim = Claim(ClaimState.RESUME if resumes else ClaimState.NEW, told.upload)
    return TusFile(tus, opened, file, claim)


class Inline:
    """An executor that computes in the thread that asks."""

    def submit(self, call: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*args))
        except BaseException as error:  # noqa: BLE001 - raised by whoever asks for the result
            future.set_exception(error)
        return future


def worker_of(client: UploadCalls, helper: Any = None, round_trip: float | None = None) -> Any:
    """Return what a job needs of a worker."""
    api = SimpleNamespace(request_ids=SimpleNamespace(round_trip=round_trip), sockets=Sockets())
    return SimpleNamespace(tus=client, api=api, helper=helper or Inline())


def send(
    told: Emitted,
    clients: Sequence[UploadCalls],
    terms: Terms,
    file: LocalFile,
    *,
    helper: Any = None,
    round_trip: float | None = None,
    **options: Any,
) -> FileResult:
    """Run the jobs of a file as the pool does, with one thread for each client. Return its one outcome or raise."""
    line: deque[Any] = deque()
    outcomes: list[FileResult] = []
    raised: list[BaseException] = []
    line.append(tus_file(told, line, terms, file, **options))

    def work(client: UploadCalls, most: int = 1 << 30) -> None:
        while line and most:
            most -= 1
            with suppress(IndexError):
                job = line.popleft()
                try:
                    outcomes.extend(item for group in job.run(worker_of(client, helper, round_trip)) for item in group)
                except BaseException as error:  # noqa: BLE001 - raised below
                    raised.append(error)

    work(clients[0], 1)
    threads = [threading.Thread(target=work, args=(client,), name=f"part-{n}") for n, client in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) + len(raised) == 1, "a file ends once"
    if raised:
        raise raised[0]
    return outcomes[0]


def pauses(events: Iterable[ev.Event]) -> list[float]:
    """Return the seconds of each pause that was announced."""
    return [event.seconds for event in events if isinstance(event, ev.Paused)]


def make_client(model: Model) -> UploadCalls:
    """Return the real client, connected to the model."""
    return client_of(model, ENDPOINT)


def client_of(
    http: Any,
    endpoint: str,
    authorization: Callable[[], dict[str, str]] = dict,
    note: Callable[[Any], object] = lambda _headers: None,
) -> UploadCalls:
    """Return the real client, connected to what stands in for `HttpClient`."""
    api: Any = SimpleNamespace(
        option="--tus-endpoint",
        request=lambda *what, **how: http.request(*what, **how),
        stream=lambda *what: http.stream(*what),
        authorization=authorization,
        may_write=lambda _session: {},
        budget=SimpleNamespace(note=note),
        server="",
        settings=SimpleNamespace(retry_status=()),
        has_created=threading.Event(),
        has_patched=threading.Event(),
    )
    return upload_calls(api, ServerTerms(tus=Capabilities(endpoint)))


def file_of(path: Path, data: bytes) -> LocalFile:
    """Write `data` to `path` and return it as a selected file."""
    path.write_bytes(data)
    info = os.stat(path)
    return LocalFile(0, str(path), path.name, info.st_size, info.st_mtime_ns)


def failure(run: Callable[[], FileResult]) -> errors.UploaderError | None:
    """Return the error of a file, whether it ends the run or not; None where it is sent."""
    try:
        return run().error
    except errors.UploaderError as error:
        return error
