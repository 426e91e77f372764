"""tus over real sockets: with the bundled server, over connections that break, and with peers that follow a script."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import requests
from proxy import Cut, Onlooker, Proxy
from scripted_server import Peer, ScriptedServer
from time_limits import PATIENCE

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.capabilities import Capabilities
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.sizes import ChunkSize
from uploader_cli.core.terms import Terms as ServerTerms
from uploader_cli.settings import Settings
from uploader_cli.settings.values import Header
from uploader_cli.sources.content import Digests
from uploader_cli.sources.unchanged import Doubts
from uploader_cli.transfer.answers import Answer
from uploader_cli.transfer.budget import Limiter, RateBudget
from uploader_cli.transfer.connection import Sockets
from uploader_cli.transfer.http_client import HttpClient
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.reading import RunTarget
from uploader_cli.transfer.ledger import Ledger
from uploader_cli.transfer.pacer import Pacer, Stop
from uploader_cli.transfer.tus_file import TusFile
from uploader_cli.transfer.tus_reading import Readings
from uploader_cli.transfer.tus_state import Tus
from uploader_cli.transfer.upload_calls import UploadCalls, upload_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uploader_cli.transfer.results import FileResult
    from uploader_server.serving import EmbeddedServer

MIB = 1 << 20
TUS = {"Tus-Resumable": "1.0.0"}


class Line:
    """A client on a server, and the number of its requests."""

    def __init__(self, endpoint: str, **settings: Any) -> None:
        self.http = HttpClient(Settings(server=endpoint, **settings))
        self.answers: list[Answer] = []
        token = {"Authorization": "Bearer t"}
        own = {"authorization": lambda: token, "budget": RateBudget(), "server": "", "option": ""}
        own |= {
            "settings": self.http.settings,
            "has_created": threading.Event(),
            "has_patched": threading.Event(),
        }
        api = SimpleNamespace(request=self.request, may_write=lambda _session: {}, **own)
        self.client = upload_calls(api, ServerTerms(tus=Capabilities(endpoint)))  # type: ignore[arg-type]

    def request(self, *what: Any, **how: Any) -> Answer:
        self.answers.append(self.http.request(*what, **how))
        return self.answers[-1]


def pacer_of(stop: Stop, **settings: Any) -> Pacer:
    return Pacer(stop, RateBudget(), Settings(**settings), lambda _event: None)


class NoWait(Stop):
    """Shorten the waits between attempts."""

    def sleep(self, seconds: float) -> None:
        super().sleep(min(seconds, 0.01))


@pytest.fixture
def lines() -> Iterator[Callable[..., Line]]:
    opened: list[Line] = []

    def make(endpoint: str, **settings: Any) -> Line:
        opened.append(Line(endpoint, **settings))
        return opened[-1]

    yield make
    for line in opened:
        line.http.close()


def terms_for(line: Line, *, chunk_size: int = MIB, checksum: str | None = "sha256", **more: Any) -> Terms:
    pacer = pacer_of(NoWait())
    return make_terms(pacer, line.client.options(), chunk_size, checksum, **more)


def plain_terms(endpoint: str, *, chunk_size: int = 8 * MIB, stop: Stop | None = None, retries: int = 5) -> Terms:
    pacer = pacer_of(NoWait() if stop is None else stop, retries=retries)
    return make_terms(pacer, Capabilities(endpoint), chunk_size)


class Terms(Tus):
    """Terms that cut a file into as many parts as there are idle workers, and one."""

    @property
    def pacer(self) -> Pacer:
        return self.context.pacer

    def parts(self, _size: int, idle: int, _spare: int, _round_trip: float | None) -> int:
        return 1 + idle


def make_terms(
    pacer: Pacer,
    capabilities: Capabilities,
    chunk_size: int,
    checksum: str | None = None,
    throttle: Callable[[int], int] = lambda wanted: wanted,
) -> Terms:
    how: dict[str, Any] = {"pacer": pacer, "stop": pacer.stop, "throttle": throttle, "chunk": ChunkSize(chunk_size)}
    context: Any = SimpleNamespace(**how, hashes=False, digests=Digests(lambda: None), doubts=Doubts())
    readings = Readings(lambda _code, _text: None, known=False)
    context.terms = ServerTerms(tus=capabilities, checksum=checksum)
    return Terms(context, SimpleNamespace(), capabilities, readings)  # type: ignore[arg-type]


NUMBERS = itertools.count()


class Sending:
    """One file under way: its jobs, run with one thread for each client, its events, and what the journal has."""

    def __init__(self, journal: Journal, terms: Terms, file: LocalFile, *, parts: int = 1) -> None:
        self.terms, self.file, self.parts = terms, file, parts
        self.events: list[Any] = []
        self.tell: Callable[[Any], None] = self.events.append
        self._handle = journal.begin(RunTarget(f"https://up.example/{next(NUMBERS)}", "tus"), {})
        self._line: deque[Any] = deque()

    def run(self, *clients: UploadCalls) -> FileResult:
        """Return the outcome of the file. Raise what ends the run."""
        emit = lambda event: self.tell(event)  # noqa: E731
        ledger: Any = Ledger(emit, self._handle, str)
        settings = Settings()
        pool: Any = SimpleNamespace(
            idle=self.parts - 1, spare=self.parts - 1, put=lambda jobs, first: self._line.extend(jobs)
        )
        context: Any = SimpleNamespace(
            settings=settings,
            emit=emit,
            ledger=ledger,
            run=self._handle,
            fails_fast=False,
            **vars(self.terms.context),
        )
        tus = replace(self.terms, context=context, pool=pool)
        session: Any = SimpleNamespace(id="")
        (claim,) = self._handle.claim([self.file])
        self._line.append(TusFile(tus, session, self.file, claim))
        with ThreadPoolExecutor(len(clients)) as threads, ThreadPoolExecutor(1) as helper:
            done = list(self._work(clients[0], helper, 1))
            for outcomes in threads.map(lambda client: list(self._work(client, helper)), clients):
                done += outcomes
        (outcome,) = done
        return outcome

    def _work(self, client: UploadCalls, helper: ThreadPoolExecutor, most: int = 1 << 30) -> Iterator[FileResult]:
        api = SimpleNamespace(request_ids=SimpleNamespace(round_trip=None), sockets=Sockets())
        worker: Any = SimpleNamespace(tus=client, api=api, helper=helper)
        while self._line and most:
            most -= 1
            with contextlib.suppress(IndexError):
                for outcomes in self._line.popleft().run(worker):
                    yield from outcomes

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def sending(tmp_path: Path) -> Iterator[Callable[..., Sending]]:
    with contextlib.closing(Journal(tmp_path / "state")) as journal:
        yield lambda *arguments, **options: Sending(journal, *arguments, **options)


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[[int], LocalFile]:
    def make(size: int) -> LocalFile:
        path = tmp_path / "a.bin"
        path.write_bytes(os.urandom(size))
        return LocalFile(0, str(path), "a.bin", size, path.stat().st_mtime_ns)

    return make


def content(file: LocalFile) -> bytes:
    with open(file.path, "rb") as source:
        return source.read()


def endpoint_of(server: EmbeddedServer) -> str:
    return f"{server.url}/api/upload/files/"


def stored(url: str) -> bytes:
    """The finished bytes, read back by a client that is not ours."""
    answer = requests.get(url, timeout=PATIENCE)
    assert answer.status_code == 200
    return answer.content


class TestBundledServer:
    def test_chunks_with_checksums_arrive_verified(
        self, server: EmbeddedServer, lines: Any, make_file: Any, sending: Any
    ) -> None:
        line, file = lines(endpoint_of(server)), make_file(3 * MIB + 5)
        case = sending(terms_for(line), file)
        sent = case.run(line.client)
        assert stored(server.url + sent.content_location) == content(file)
        assert (sent.verified, len(case.of(ev.FileStarted))) == (True, 1)
        assert sent.server_id
        told = [event.sent for event in case.of(ev.BytesSent)]
        assert told == sorted(told)
        assert told[-1] == file.size

    def test_small_file_takes_one_request(
        self, server: EmbeddedServer, lines: Any, make_file: Any, sending: Any, subtests: pytest.Subtests
    ) -> None:
        line = lines(endpoint_of(server))
        terms = terms_for(line)
        line.answers.clear()
        for size in (0, 1, 70_000):
            with subtests.test(size=size):
                file = make_file(size)
                sent = sending(terms, file).run(line.client)
                assert stored(server.url + sent.content_location) == content(file)
        assert [answer.status for answer in line.answers] == [201, 201, 201]

    @pytest.mark.thorough
    def test_file_in_parts_arrives_verified(
        self, server: EmbeddedServer, lines: Any, make_file: Any, sending: Any
    ) -> None:
        line, file = lines(endpoint_of(server)), make_file(4 * MIB + 3)
        case = sending(terms_for(line), file, parts=3)
        sent = case.run(line.client, *(lines(endpoint_of(server)).client for _ in range(2)))
        assert stored(server.url + sent.content_location) == content(file)
        assert sent.verified
        told = [event.sent for event in case.of(ev.BytesSent)]
        assert told == sorted(told)
        assert ([event.offset for event in case.of(ev.FileStarted)], told[-1]) == ([0], file.size)

    def test_parts_joined_before_are_not_sent_again(
        self, server: EmbeddedServer, lines: Any, make_file: Any, sending: Any
    ) -> None:
        """The run ended between the last request and its answer: the journal has the key, the server no parts."""
        line, file = lines(endpoint_of(server)), make_file(100)
        case = sending(terms_for(line), file, parts=2)
        first = case.run(line.client)
        line.answers.clear()
        again = case.run(line.client)
        assert (again.content_location, again.verified) == (first.content_location, True)
        assert [answer.status for answer in line.answers] == [410, 410, 200]

    def test_interrupted_upload_resumes_at_the_servers_offset(
        self, server: EmbeddedServer, lines: Any, make_file: Any, sending: Any
    ) -> None:
        line, file = lines(endpoint_of(server)), make_file(6 * MIB)
        stop = Stop()

        def stop_after_two_chunks(event: Any) -> None:
            if isinstance(event, ev.BytesSent) and event.sent > 2 * MIB:
                stop.set()

        terms = terms_for(line, checksum=None)
        case = sending(make_terms(pacer_of(stop), line.client.options(), MIB), file)
        case.tell = stop_after_two_chunks
        with pytest.raises(errors.Interrupted):
            case.run(line.client)
        case.terms, case.tell = terms, case.events.append
        sent = case.run(lines(endpoint_of(server)).client)
        assert stored(server.url + sent.content_location) == content(file)
        (began,) = case.of(ev.FileStarted)
        assert 2 * MIB <= began.offset < 4 * MIB


class Cutting(Onlooker):
    """Breaks the connection each time `every` bytes have passed, `times` times."""

    def __init__(self, every: int, times: int) -> None:
        self.every, self.left, self.seen = every, times, 0

    def passing(self, piece: bytes, *, to_server: bool) -> bytes:
        self.seen += len(piece) if to_server else 0
        if self.seen >= self.every and self.left:
            self.seen, self.left = 0, self.left - 1
            raise Cut
        return piece


@pytest.mark.thorough
@pytest.mark.parametrize("checksum", [None, "sha1"])
def test_upload_over_connections_that_break_arrives_whole(
    server: EmbeddedServer, lines: Any, make_file: Any, sending: Any, checksum: str | None
) -> None:
    with Proxy(server.url, cutting := Cutting(900_000, 4)) as relay:
        line, file = lines(f"{relay.url}/api/upload/files/"), make_file(4 * MIB)
        terms = terms_for(line, chunk_size=512 * 1024, checksum=checksum)
        case = sending(terms, file)
        sent = case.run(line.client)
        assert stored(server.url + sent.content_location) == content(file)
        assert sent.verified == (checksum is not None)
        assert cutting.left == 0
        assert len(case.of(ev.FileStarted)) > 3
        assert relay.connections < 20


@pytest.mark.usefixtures("kept_connections")
class TestRawPeers:
    def test_413_in_the_middle_of_a_chunk_halves_it(self, lines: Any, make_file: Any, sending: Any) -> None:
        """No more of the refused chunk is sent than the socket holds."""
        asked: list[tuple[str, int]] = []

        def script(peer: Peer) -> None:
            while True:
                line, headers = peer.head()
                asked.append((line.split()[0], int(headers.get("content-length", 0))))
                if line.startswith("POST"):
                    peer.answer(201, Location="/files/1", **{"Tus-Resumable": "1.0.0"})
                elif line.startswith("HEAD"):
                    peer.answer(200, **TUS, **{"Upload-Offset": "0"})
                elif int(headers["content-length"]) > 5 * MIB:
                    peer.read(70_000)
                    peer.answer(413, Connection="close")
                    peer.hold()
                else:
                    offset = int(headers["upload-offset"]) + len(peer.read(int(headers["content-length"])))
                    peer.answer(204, **TUS, **{"Upload-Offset": str(offset)})

        with ScriptedServer(script) as server:
            endpoint, file = f"{server.url}/files/", make_file(8 * MIB)
            sending(plain_terms(endpoint), file).run(lines(endpoint).client)
        assert asked == [("POST", 0), ("PATCH", 8 * MIB), ("HEAD", 0), ("PATCH", 4 * MIB), ("PATCH", 4 * MIB)]

    @pytest.mark.parametrize("extensions", [(), ("creation-with-upload",)])
    def test_offset_beyond_the_sent_bytes_confirms_nothing(
        self, extensions: tuple[str, ...], lines: Any, make_file: Any, sending: Any
    ) -> None:
        """The server answers with the full offset while most of the body is still here; HEAD tells the truth."""
        asked: list[str] = []

        def script(peer: Peer) -> None:
            while True:
                line, headers = peer.head()
                method, length = line.split()[0], int(headers.get("content-length", 0))
                asked.append(method)
                if method == "HEAD":
                    peer.answer(200, **TUS, **{"Upload-Offset": "70000", "Upload-Length": str(size)})
                elif length > size // 2 and len(asked) < 3:
                    peer.read(70_000)
                    status = 201 if method == "POST" else 204
                    peer.answer(status, Location="/files/1", **TUS, **{"Upload-Offset": str(length)})
                    peer.hold()
                elif method == "POST":
                    peer.answer(201, Location="/files/1", **TUS)
                else:
                    offset = int(headers["upload-offset"]) + len(peer.read(length))
                    peer.answer(204, **TUS, **{"Upload-Offset": str(offset)})

        with ScriptedServer(script, buffer=4096) as server:
            endpoint, size = f"{server.url}/files/", 16 * MIB
            capabilities = Capabilities(endpoint, frozenset(extensions))
            terms = make_terms(pacer_of(NoWait()), capabilities, 64 * MIB)
            assert sending(terms, make_file(size)).run(lines(endpoint).client).error is None
        assert asked == (["POST"] if extensions else ["POST", "PATCH"]) + ["HEAD", "PATCH"]

    def test_redirected_patch_keeps_its_body(self, lines: Any, make_file: Any, sending: Any) -> None:
        """`requests` would have sent it without the body."""
        bodies: list[tuple[str, int]] = []

        def script(peer: Peer) -> None:
            while True:
                line, headers, data = peer.request()
                method, path, _ = line.split()
                bodies.append((f"{method} {path}", len(data)))
                if method == "POST":
                    peer.answer(201, Location=f"http://127.0.0.1:{server.port}/files/1", **TUS)
                elif path == "/files/1":
                    peer.answer(308, Location="/moved/1")
                else:
                    assert headers["content-type"] == "application/offset+octet-stream"
                    assert "transfer-encoding" not in headers
                    peer.answer(204, **TUS, **{"Upload-Offset": str(len(data))})

        with ScriptedServer(script) as server:
            endpoint, file = f"{server.url}/files/", make_file(1000)
            sending(plain_terms(endpoint), file).run(lines(endpoint).client)
        assert bodies == [("POST /files/", 0), ("PATCH /files/1", 1000), ("PATCH /moved/1", 1000)]

    def test_other_origin_gets_neither_token_nor_own_headers(self, lines: Any, make_file: Any, sending: Any) -> None:
        """The endpoint gets both."""
        seen: list[dict[str, str]] = []

        def elsewhere(peer: Peer) -> None:
            _, headers, data = peer.request()
            seen.append(headers)
            peer.answer(204, **TUS, **{"Upload-Offset": str(len(data))})

        def script(peer: Peer) -> None:
            seen.append(peer.request()[1])
            peer.answer(201, Location=f"{other.url}/1", **TUS)

        with ScriptedServer(elsewhere) as other, ScriptedServer(script) as server:
            endpoint, file = f"{server.url}/files/", make_file(10)
            line = lines(endpoint, header=(Header("X-Api-Key", "k"),))
            sending(plain_terms(endpoint), file).run(line.client)
        assert [("authorization" in headers, "x-api-key" in headers) for headers in seen] == [
            (True, True),
            (False, False),
        ]

    @pytest.mark.thorough
    def test_stop_while_the_peer_reads_nothing_raises_interrupted(
        self, lines: Any, make_file: Any, sending: Any
    ) -> None:
        stop = Stop()

        def script(peer: Peer) -> None:
            peer.head()
            peer.answer(201, Location="/files/1", **TUS)
            peer.head()
            stop_soon.start()
            peer.hold()

        stop_soon = threading.Timer(0.1, stop.set)
        with ScriptedServer(script, buffer=4096) as server:
            endpoint, file = f"{server.url}/files/", make_file(16 * MIB)
            terms = plain_terms(endpoint, chunk_size=64 * MIB, stop=stop)
            with pytest.raises(errors.Interrupted):
                sending(terms, file).run(lines(endpoint).client)


def test_rate_limit_is_shared_by_two_uploads(server: EmbeddedServer, lines: Any, tmp_path: Path, sending: Any) -> None:
    """Together they are no faster than the limit."""
    rate, size = 3_000_000, 1_500_000
    stop = Stop()
    limiter = Limiter(rate, stop.sleep)
    threads = []
    for name in ("a", "b"):
        path = tmp_path / name
        path.write_bytes(os.urandom(size))
        line = lines(endpoint_of(server))
        file = LocalFile(0, str(path), name, size, path.stat().st_mtime_ns)
        upload = sending(terms_for(line, throttle=limiter), file)
        threads.append(threading.Thread(target=upload.run, args=(line.client,)))
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    assert 2 * size / seconds < rate * 1.3  # a fifth of a second of credit in one second


def test_server_that_never_answered_fails_the_file_after_the_retries(lines: Any, make_file: Any, sending: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}/files/"
        terms = plain_terms(endpoint, retries=2)
        case = sending(terms, make_file(10))
        assert isinstance(case.run(lines(endpoint).client).error, errors.ConnectFailed)
    assert len(case.of(ev.FileRetry)) == 2


def test_server_that_goes_down_during_an_upload_raises_unreachable(lines: Any, make_file: Any, sending: Any) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        server.close_door()
        peer.answer(201, Location="/files/1", Connection="close", **TUS)

    with ScriptedServer(script) as server:
        endpoint = f"{server.url}/files/"
        line, terms = lines(endpoint), plain_terms(endpoint)
        terms.pacer.wait_for_server = 0.0
        probes: list[int] = []
        terms.pacer.probe = lambda: probes.append(1) or line.client.options()  # type: ignore[func-returns-value]
        with pytest.raises(errors.Unreachable):
            sending(terms, make_file(10)).run(line.client)
    assert len(probes) == 1
