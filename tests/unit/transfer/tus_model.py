"""A tus server in this process that fails as a script says, one word for each request, and fakes for clock and sleep.

It replaces `Http`: `TusClient` and everything above it are the real ones. No socket, no real clock, no sleep.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fakes import Clock

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.tus import Capabilities
from uploader_cli.transfer.http import Answer
from uploader_cli.transfer.pacing import RateBudget, Stop, unlimited
from uploader_cli.transfer.retry import Retry
from uploader_cli.transfer.tus import TusClient
from uploader_cli.transfer.tus_parts import PartedUpload, PartStopped
from uploader_cli.transfer.tus_upload import ChunkSize, Terms, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from uploader_cli.transfer.tus_parts import Part
    from uploader_cli.transfer.tus_upload import Sent

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


class Model:
    """Words, one for each request, and what they do:

    `ok`; a status of `REFUSALS`, before anything is done, or with `!` after the work is; a status with `-`: the answer
    of something that is no tus server; `reset` before anything is done; `refused`: no connection; `cut` in the middle
    of the body, what came is kept; `lost`: done, but the answer is lost; `short`: only the first half of the body is
    taken; `forget`: the server loses every upload; `shrink`: it loses the second half of each; `flip`: a bit of the
    body changes on its way; `mute`: an answer without Upload-Offset.
    """

    def __init__(self, words: Iterable[str] = (), *, keys: bool = True, checks: bool = True, most: int = 5000) -> None:
        self.words = deque(words)
        self.keys = {} if keys else None
        self.checks = checks
        self.keeps_parts = False
        """Whether parts stay beside what they were joined to."""
        self.uploads: dict[str, Upload] = {}
        self.finals: dict[str, tuple[str, ...]] = {}
        self.calls: list[tuple[str, str, dict[str, str], int]] = []
        """Method, URL, headers and bytes of each request."""
        self._most = most
        self._made = 0
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
        read_timeout: float = 0,
        stranger: bool = False,
    ) -> Answer:
        with self._lock:
            return self._request(method, url, body, headers)

    def _request(self, method: str, url: str, body: Any, headers: Any) -> Answer:
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
            return self._answer(url, int(word))
        if word.endswith("-"):
            return Answer(int(word[:-1]), {}, None, url)
        self._happen(word)
        if word == "flip" and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        if word == "short":
            data = data[: (len(data) + 1) // 2]
        answer = self._done(method, url, dict(headers), data, whole=word not in ("cut", "short"))
        if word in ("lost", "cut"):
            raise errors.ConnectionLost(word, body_sent=word == "lost")
        if word.endswith("!"):
            return self._answer(url, int(word[:-1]))
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

    def _done(self, method: str, url: str, headers: dict[str, str], data: bytes, *, whole: bool) -> Answer:
        if method == "POST":
            return self._create(url, headers, data, whole=whole)
        upload = self.uploads.get(url)
        if upload is None:
            return self._answer(url, 404)
        if method == "DELETE":
            del self.uploads[url]
            return self._answer(url, 204)
        if method == "HEAD":
            return self._answer(url, 200, upload, **{"Upload-Length": str(upload.length)})
        if int(headers["Upload-Offset"]) != len(upload.data):
            return self._answer(url, 409, upload)
        return self._store(url, upload, headers, data, whole=whole, status=204)

    def _create(self, url: str, headers: dict[str, str], data: bytes, *, whole: bool) -> Answer:
        key = dict(pair.split() for pair in headers["Upload-Metadata"].split(","))["uploadKey"]
        if self.keys is not None and self.keys.get(key) in self.uploads:
            location = self.keys[key]
            return self._answer(url, 200, self.uploads[location], Location=location)
        self._made += 1
        location = f"{ENDPOINT}{self._made}"
        concat = headers.get("Upload-Concat", "")
        if concat.startswith("final;"):
            parts = tuple(concat.removeprefix("final;").split())
            if any(part not in self.uploads for part in parts):
                return self._answer(url, 404)
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
                return self._answer(url, status, upload, **more)
            if base64.b64encode(hashlib.new(algorithm, data).digest()).decode() != digest:
                return self._answer(url, 460)
        upload.data += data
        upload.covered += bytes([bool(algorithm) and self.checks]) * len(data)
        assert len(upload.data) <= upload.length
        return self._answer(url, status, upload, **more)

    def _answer(self, url: str, status: int, upload: Upload | None = None, **headers: str) -> Answer:
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
        self.check()
        self.slept.append(seconds)
        self.clock.pass_(seconds)


class Told:
    """A `Watch` that records its callbacks and asserts the promises of the event stream."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.retries: list[str] = []
        self.attempts: list[int] = []
        """The offset at which each attempt began."""
        self.sent = self.confirmed = self.checked = 0
        self.pledges: list[int] = []

    @property
    def watch(self) -> Watch:
        return Watch(
            created=self.urls.append,
            attempt=self._attempt,
            confirmed=self._confirmed,
            pledged=self.pledges.append,
            sent=self._sent,
            retry=self._retry,
        )

    def _attempt(self, offset: int, attempt: int) -> None:
        assert attempt == len(self.attempts) + 1 == len(self.retries) + 1
        self.attempts.append(offset)
        self.sent = self.confirmed = offset

    def _confirmed(self, offset: int, checked: int) -> None:
        assert len(self.attempts) == len(self.retries) + 1
        assert offset >= self.confirmed, "confirmed fell within an attempt"
        assert checked <= offset
        self.confirmed, self.checked = offset, checked

    def _sent(self, total: int) -> None:
        assert len(self.attempts) == len(self.retries) + 1
        assert total >= self.sent, "sent fell within an attempt"
        self.sent = total

    def _retry(self, error: errors.UploaderError, delay: float, attempt: int) -> None:
        assert attempt == len(self.attempts) + 1, "a retry without the attempt before it"
        assert delay >= 0
        self.retries.append(type(error).__name__)


def make_terms(
    *,
    chunk_size: int = 10,
    checksum: str | None = None,
    cwu: bool = True,
    extensions: Iterable[str] = (),
    stop: Stop | None = None,
    throttle: Callable[[int], int] = unlimited,
    **policy: Any,
) -> Terms:
    """Return terms with a clock of their own. `cwu`: the server takes creation-with-upload; `policy` is for `Retry`."""
    clock = Clock()
    offered = {"creation", "checksum", "concatenation", *extensions, *(["creation-with-upload"] if cwu else [])}
    capabilities = Capabilities(
        ENDPOINT, extensions=frozenset(offered), checksum_algorithms=frozenset({"sha1", "sha256"})
    )
    retry = Retry(FakeStop(clock) if stop is None else stop, RateBudget(clock), clock=clock, **policy)
    return Terms(retry, capabilities, ChunkSize(chunk_size), checksum=checksum, throttle=throttle)


def send_in_parts(
    clients: Sequence[TusClient],
    terms: Terms,
    file: LocalFile,
    metadata: Mapping[str, str],
    parts: Sequence[Part],
    key: str,
    **options: Any,
) -> Sent:
    """Drive a `PartedUpload` as the jobs of the pool do, with one thread for each client. Raise the first error."""
    upload = PartedUpload(terms, file, metadata, parts, key, **options)
    complete = upload.begin(clients[0])
    if complete is not None:
        return complete
    left, results, failures = deque(range(len(parts))), [], []

    def work(client: TusClient) -> None:
        while True:
            try:
                index = left.popleft()
            except IndexError:
                return
            try:
                results.append(upload.send(index, client, None))
            except PartStopped:
                continue
            except BaseException as error:  # noqa: BLE001 - raised below
                failures.append(error)

    threads = [threading.Thread(target=work, args=(client,), name=f"part-{n}") for n, client in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        assert len(failures) == 1, "the error is raised in one thread only"
        assert failures[0] is upload.error or len(results) == len(parts) - 1
        raise failures[0]
    whole = [sent for sent in results if sent is not None]
    assert len(whole) == 1, "one thread joins the parts"
    return whole[0]


def pauses(events: Iterable[ev.Event]) -> list[float]:
    """Return the seconds of each pause that was announced."""
    return [event.seconds for event in events if isinstance(event, ev.Paused)]


def make_client(model: Model) -> TusClient:
    """Return the real client, connected to the model."""
    return TusClient(model, ENDPOINT, dict)


def file_of(path: Path, data: bytes) -> LocalFile:
    """Write `data` to `path` and return it as a selected file."""
    path.write_bytes(data)
    info = os.stat(path)
    return LocalFile(0, str(path), path.name, info.st_size, info.st_mtime_ns)


def outcome(run: Callable[[], Sent]) -> Sent | errors.UploaderError:
    """Return what `run` returns or raises."""
    try:
        return run()
    except errors.UploaderError as error:
        return error
