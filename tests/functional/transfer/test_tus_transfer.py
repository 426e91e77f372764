"""tus over real sockets: with the bundled server, over connections that break, and with peers that follow a script."""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import requests
from patience import PATIENCE
from raw_server import Peer, RawServer
from relays import Relay, address

from uploader_cli import errors
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.tus import Capabilities, parts
from uploader_cli.settings import Settings
from uploader_cli.settings.values import Header
from uploader_cli.transfer.http import Answer, Http
from uploader_cli.transfer.pacing import Limiter, RateBudget, Stop
from uploader_cli.transfer.retry import Retry
from uploader_cli.transfer.tus import TusClient
from uploader_cli.transfer.tus_parts import Part, PartedUpload
from uploader_cli.transfer.tus_upload import ChunkSize, Known, Terms, TusUpload, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uploader_cli.transfer.tus_upload import Sent
    from uploader_server.serving import EmbeddedServer

MIB = 1 << 20
TUS = {"Tus-Resumable": "1.0.0"}


class Line:
    """A client on a server, and the number of its requests."""

    def __init__(self, endpoint: str, **settings: Any) -> None:
        self.http = Http(Settings(server=endpoint, **settings))
        self.answers: list[Answer] = []
        self.client = TusClient(self.http, endpoint, lambda: {"Authorization": "Bearer t"}, self.answers.append)


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
    retry = Retry(NoWait(), RateBudget())
    return Terms(retry, line.client.options(), ChunkSize(chunk_size), checksum=checksum, **more)


def plain_terms(endpoint: str, *, chunk_size: int = 8 * MIB, stop: Stop | None = None, retries: int = 5) -> Terms:
    retry = Retry(NoWait() if stop is None else stop, RateBudget(), retries=retries)
    return Terms(retry, Capabilities(endpoint), ChunkSize(chunk_size))


def send_in_parts(
    clients: list[TusClient], terms: Terms, file: LocalFile, metadata: dict[str, str], parts: list[Part], **options: Any
) -> Sent:
    """Send the parts with one thread for each client, in turn."""
    upload = PartedUpload(terms, file, metadata, parts, "key of the whole", **options)
    complete = upload.begin(clients[0])
    if complete is not None:
        return complete
    with ThreadPoolExecutor(len(clients)) as threads, ThreadPoolExecutor(1) as helper:
        shares = [range(number, len(parts), len(clients)) for number in range(len(clients))]

        def work(client: TusClient, share: range) -> list[Sent | None]:
            return [upload.send(index, client, lambda: helper) for index in share]

        (whole,) = (sent for results in threads.map(work, clients, shares) for sent in results if sent is not None)
    return whole


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
    def test_chunks_with_checksums_arrive_verified(self, server: EmbeddedServer, lines: Any, make_file: Any) -> None:
        line, file = lines(endpoint_of(server)), make_file(3 * MIB + 5)
        told: list[int] = []
        watch = Watch(sent=told.append)
        sent = TusUpload(line.client, terms_for(line), file, {"filename": "a.bin"}, watch=watch).run()
        assert stored(sent.url) == content(file)
        assert (sent.verified, sent.attempts) == (True, 1)
        assert "Upload-File-Id" in sent.headers
        assert told == sorted(told)
        assert told[-1] == file.size

    def test_small_file_takes_one_request(self, server: EmbeddedServer, lines: Any, make_file: Any) -> None:
        line = lines(endpoint_of(server))
        terms = terms_for(line)
        line.answers.clear()
        for size in (0, 1, 70_000):
            file = make_file(size)
            sent = TusUpload(line.client, terms, file, {"filename": "a.bin"}).run()
            assert stored(sent.url) == content(file)
        assert [answer.status for answer in line.answers] == [201, 201, 201]

    def test_file_in_parts_arrives_verified(self, server: EmbeddedServer, lines: Any, make_file: Any) -> None:
        line, file = lines(endpoint_of(server)), make_file(4 * MIB + 3)
        clients = [line.client, *(lines(endpoint_of(server)).client for _ in range(2))]
        cut = [Part(start, length) for start, length in parts(file.size, 3)]
        told: list[int] = []
        watch = Watch(sent=told.append, attempt=lambda offset, number: told.append(offset + number - 1))
        sent = send_in_parts(clients, terms_for(line), file, {"filename": "a.bin"}, cut, watch=watch)
        assert stored(sent.url) == content(file)
        assert sent.verified
        assert told == sorted(told)
        assert (told[0], told[-1]) == (0, file.size)

    def test_parts_joined_before_are_not_sent_again(self, server: EmbeddedServer, lines: Any, make_file: Any) -> None:
        """The run ended between the last request and its answer: the journal has the key, the server no parts."""
        line, file = lines(endpoint_of(server)), make_file(100)
        urls: dict[int, str] = {}
        cut = [Part(start, length, watch=Watch(created=_put(urls, start))) for start, length in parts(file.size, 2)]
        terms = terms_for(line)
        first = send_in_parts([line.client], terms, file, {"filename": "a.bin"}, cut)
        line.answers.clear()
        known = [replace(part, known=Known(urls[part.start], "", part.length, part.length)) for part in cut]
        again = send_in_parts([line.client], terms, file, {"filename": "a.bin"}, known)
        assert (again.url, again.verified) == (first.url, True)
        assert [answer.status for answer in line.answers] == [410, 410, 200]

    def test_interrupted_upload_resumes_at_the_servers_offset(
        self, server: EmbeddedServer, lines: Any, make_file: Any
    ) -> None:
        line, file = lines(endpoint_of(server)), make_file(6 * MIB)
        stop, urls = Stop(), []

        def sent_so_far(total: int) -> None:
            if total > 2 * MIB:
                stop.set()

        terms = terms_for(line, checksum=None)
        stopping = replace(terms, retry=Retry(stop, RateBudget()))
        watch = Watch(created=urls.append, sent=sent_so_far)
        with pytest.raises(errors.Interrupted):
            TusUpload(line.client, stopping, file, {"filename": "a.bin"}, watch=watch).run()
        began: list[int] = []
        watch = Watch(attempt=lambda offset, _: began.append(offset))
        sent = TusUpload(lines(endpoint_of(server)).client, terms, file, {}, watch=watch, known=Known(urls[0])).run()
        assert stored(sent.url) == content(file)
        assert 2 * MIB <= began[0] < 4 * MIB


def _put(urls: dict[int, str], start: int) -> Callable[[str], None]:
    return lambda url: urls.update({start: url})


class Cutting(Relay):
    """Breaks the connection each time `every` bytes have passed, `times` times."""

    def __init__(self, target: tuple[str, int], every: int, times: int) -> None:
        self.every, self.left, self.seen = every, times, 0
        super().__init__(target)

    def _look(self, piece: bytes) -> None:
        self.seen += len(piece)
        if self.seen >= self.every and self.left:
            self.seen, self.left = 0, self.left - 1
            raise ConnectionError("cut")


@pytest.mark.parametrize("checksum", [None, "sha1"])
def test_upload_over_connections_that_break_arrives_whole(
    server: EmbeddedServer, lines: Any, make_file: Any, checksum: str | None
) -> None:
    relay = Cutting(address(server.url), 900_000, 4)
    try:
        line, file = lines(f"http://127.0.0.1:{relay.port}/api/upload/files/"), make_file(4 * MIB)
        terms = terms_for(line, chunk_size=512 * 1024, checksum=checksum)
        sent = TusUpload(line.client, terms, file, {"filename": "a.bin"}).run()
        assert stored(sent.url) == content(file)
        assert sent.verified == (checksum is not None)
        assert relay.left == 0
        assert sent.attempts > 3
        assert relay.connections < 20
    finally:
        relay.close()


class TestRawPeers:
    def test_413_in_the_middle_of_a_chunk_halves_it(self, lines: Any, make_file: Any) -> None:
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

        with RawServer(script) as server:
            endpoint, file = f"{server.url}/files/", make_file(8 * MIB)
            TusUpload(lines(endpoint).client, plain_terms(endpoint), file, {}).run()
        assert asked == [("POST", 0), ("PATCH", 8 * MIB), ("HEAD", 0), ("PATCH", 4 * MIB), ("PATCH", 4 * MIB)]

    def test_redirected_patch_keeps_its_body(self, lines: Any, make_file: Any) -> None:
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

        with RawServer(script) as server:
            endpoint, file = f"{server.url}/files/", make_file(1000)
            TusUpload(lines(endpoint).client, plain_terms(endpoint), file, {}).run()
        assert bodies == [("POST /files/", 0), ("PATCH /files/1", 1000), ("PATCH /moved/1", 1000)]

    def test_other_origin_gets_neither_token_nor_own_headers(self, lines: Any, make_file: Any) -> None:
        """The endpoint gets both."""
        seen: list[dict[str, str]] = []

        def elsewhere(peer: Peer) -> None:
            _, headers, data = peer.request()
            seen.append(headers)
            peer.answer(204, **TUS, **{"Upload-Offset": str(len(data))})

        def script(peer: Peer) -> None:
            seen.append(peer.request()[1])
            peer.answer(201, Location=f"{other.url}/1", **TUS)

        with RawServer(elsewhere) as other, RawServer(script) as server:
            endpoint, file = f"{server.url}/files/", make_file(10)
            line = lines(endpoint, header=(Header("X-Api-Key", "k"),))
            TusUpload(line.client, plain_terms(endpoint), file, {}).run()
        assert [("authorization" in headers, "x-api-key" in headers) for headers in seen] == [
            (True, True),
            (False, False),
        ]

    def test_stop_while_the_peer_reads_nothing_raises_interrupted(self, lines: Any, make_file: Any) -> None:
        stop = Stop()

        def script(peer: Peer) -> None:
            peer.head()
            peer.answer(201, Location="/files/1", **TUS)
            peer.head()
            stop_soon.start()
            peer.hold()

        stop_soon = threading.Timer(0.1, stop.set)
        with RawServer(script, buffer=4096) as server:
            endpoint, file = f"{server.url}/files/", make_file(16 * MIB)
            terms = plain_terms(endpoint, chunk_size=64 * MIB, stop=stop)
            with pytest.raises(errors.Interrupted):
                TusUpload(lines(endpoint).client, terms, file, {}).run()


def test_rate_limit_is_shared_by_two_uploads(server: EmbeddedServer, lines: Any, tmp_path: Path) -> None:
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
        upload = TusUpload(line.client, terms_for(line, throttle=limiter), file, {"filename": name})
        threads.append(threading.Thread(target=upload.run))
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    assert 2 * size / seconds < rate * 1.3  # a fifth of a second of credit in one second


def test_server_that_never_answered_raises_connect_failed_after_the_retries(lines: Any, make_file: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}/files/"
        terms = plain_terms(endpoint, retries=2)
        delays: list[float] = []
        watch = Watch(retry=lambda _error, delay, _attempt: delays.append(delay))
        with pytest.raises(errors.ConnectFailed):
            TusUpload(lines(endpoint).client, terms, make_file(10), {}, watch=watch).run()
    assert len(delays) == 2


def test_server_that_goes_down_during_an_upload_raises_unreachable_after_the_probes(lines: Any, make_file: Any) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        server.close_door()
        peer.answer(201, Location="/files/1", Connection="close", **TUS)

    with RawServer(script) as server:
        endpoint = f"{server.url}/files/"
        line, terms = lines(endpoint), plain_terms(endpoint, retries=2)
        probes: list[int] = []
        terms.retry.probe = lambda: probes.append(1) or line.client.options()  # type: ignore[func-returns-value]
        with pytest.raises(errors.Unreachable):
            TusUpload(line.client, terms, make_file(10), {}).run()
    assert len(probes) == 3
