"""The scheduler against the bundled server in both flavours, through a relay that drops requests and answers."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote
from urllib.request import urlopen

import pytest
from client.transfer.scheduled_uploads import Batches, Upload, digests, make, on_disk
from proxy import Holding, Onlooker, Proxy, Request, answer
from serving import running_server
from time_limits import PATIENCE

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, WarningCode
from uploader_cli.core.jobs import FIRST_JOBS, MOST_JOBS
from uploader_cli.transfer import pool, tus_state
from uploader_server import shares
from uploader_server.faults import Answer

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_server.http.tracking import LoggedRequest
    from uploader_server.serving import EmbeddedServer


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "stored"
    path.mkdir()
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


HOSTILE = (
    "plain.mp4",
    "with space.mp4",
    'say "cheese".mp4',
    "it's.mp4",
    "景区 视频.mp4",
    "🎬.mp4",
    "[b]bold[x].mp4",
    "100%.mp4",
    "%22.mp4",
    "a;b=c&d.mp4",
    "back\\slash.mp4",
    'both\\a".mp4',
    "two\nlines.mp4",
    b"latin-\xe9.mp4",
    "-dash.mp4",
    "e\u0301.mp4",
)


@pytest.mark.parametrize("flavour", ["bundled", "reference"])
def test_files_of_any_name_arrive_as_they_are(source: Path, root: Path, flavour: str) -> None:
    paths = make(source, *HOSTILE)
    with running_server(port=0, root=root, flavour=flavour, processing_seconds=0.01, max_files=100) as server:
        upload = Upload(server.url, paths)
        assert upload.go() is None
        assert upload.failed == {}
        assert upload.completed == list(range(len(paths)))
        assert on_disk(root) == digests(paths)
        if flavour == "bundled":
            for event in upload.all(ev.FileCompleted):
                stored = root / unquote(event.location.removeprefix("/uploads/"))
                assert stored.read_bytes() == paths[event.file].read_bytes()


def test_seven_mp4_and_two_avi_cost_eight_calls_on_the_reference_backend(source: Path, root: Path) -> None:
    paths = make(source, *(f"{n}.mp4" for n in range(7)), "a.avi", "b.avi")
    with running_server(port=0, root=root, flavour="reference", processing_seconds=0.0) as server:
        with Proxy(server.url) as relay:
            upload = Upload(relay.url, paths)
            assert upload.go() is None
            assert relay.count("/api/") == 8
            assert relay.count("/health") == 1
        assert len(upload.all(ev.SessionCreated)) == 4
        assert len(upload.all(ev.FileCompleted)) == 9
        assert on_disk(root) == digests(paths)


@pytest.mark.parametrize(("far", "workers"), [(0.0, 2), (math.inf, 0)])
def test_workers_connect_to_a_distant_server_before_its_session_is_open(
    source: Path, root: Path, monkeypatch: pytest.MonkeyPatch, far: float, workers: int
) -> None:
    """A connection takes a round trip; two files need two."""
    monkeypatch.setattr(tus_state, "FAR", far)
    opened: list[int] = []

    class Waiting(Onlooker):
        def head(self, request: Request) -> None:
            if request.line.startswith("POST /api/upload/session "):
                until = time.monotonic() + (PATIENCE if workers else 0.0)
                while self.proxy.connections < 1 + workers and time.monotonic() < until:
                    time.sleep(0.005)
                opened.append(self.proxy.connections - 1)

    paths = make(source, "a.mp4", "b.mp4")
    with running_server(port=0, root=root) as server, Proxy(server.url, Waiting()) as relay:
        upload = Upload(relay.url, paths, protocol="tus", pack=False)
        assert upload.go() is None
        assert upload.completed == [0, 1]
    assert opened == [workers]


@pytest.mark.parametrize("protocol", ["batch", "tus"])
@pytest.mark.parametrize("missing", [False, True])
def test_session_is_finished_by_the_client_unless_all_its_files_are_stored(
    source: Path, root: Path, protocol: str, missing: bool
) -> None:
    """The server ends a session once it has stored the expected files: a call that says so would change nothing."""
    paths = make(source, "a.mp4", "b.mp4", "c.mp4")
    with running_server(port=0, root=root) as server, Proxy(server.url) as relay:
        upload = Upload(relay.url, paths, protocol=protocol, pack=protocol == "batch")
        if missing:
            upload.before = {ev.SessionCreated: paths[1].unlink}
        assert upload.go() is None
        assert relay.count("/finish") == missing
        (opened,) = upload.all(ev.SessionCreated)
        with urlopen(f"{server.url}/api/upload/progress/{opened.session}", timeout=PATIENCE) as answer:
            state = json.load(answer)
        assert state["overallStatus"] == ("partial" if missing else "completed")


def test_session_of_files_with_equal_names_on_the_server_is_finished(source: Path, root: Path) -> None:
    """The server counts a path with equal bytes in a pack once."""
    paths = make(source, b"\xff.mp4", "%FF.mp4")
    paths[1].write_bytes(paths[0].read_bytes())
    with running_server(port=0, root=root) as server:
        upload = Upload(server.url, paths)
        assert upload.go() is None
        (opened,) = upload.all(ev.SessionCreated)
        with urlopen(f"{server.url}/api/upload/progress/{opened.session}", timeout=PATIENCE) as answer:
            assert json.load(answer)["overallStatus"] == "completed"


def test_a_file_that_fails_inside_a_200_is_named(source: Path, root: Path) -> None:
    paths = make(source, "good.mp4", "bad.mp4")
    config = {"port": 0, "root": root, "flavour": "reference", "processing_seconds": 0.0, "fail_files": ("bad*",)}
    with running_server(**config) as server:
        upload = Upload(server.url, paths)
        assert upload.go() is None
    assert upload.completed == [0]
    assert upload.failed == {1: FailureCode.SERVER_FAILED}


# --- lost requests and answers


@pytest.mark.parametrize("how", ["cut", "early"])
def test_request_that_did_not_arrive_whole_is_resent_and_stored_once(source: Path, root: Path, how: str) -> None:
    """A 200 before the last byte was sent confirms nothing."""
    paths = make(source, "a.mp4", "b.mp4", size=8_000_000)  # more than the sockets hold
    with running_server(port=0, root=root) as server, Proxy(server.url, Batches(how, 1, 2)) as relay:
        upload = Upload(relay.url, paths)
        assert upload.go() is None
        assert relay.count("/batch") == 3
        assert upload.completed == [0, 1]
        assert [e.attempts for e in upload.all(ev.FileCompleted)] == [3, 3]
        assert on_disk(root) == digests(paths)


def test_lost_answer_is_settled_by_stored_digests(source: Path, root: Path) -> None:
    """Nothing is sent twice, and the files count as verified."""
    paths = make(source, "a b.mp4", "景.mp4", b"\xe9.mp4")
    with running_server(port=0, root=root) as server, Proxy(server.url, Batches("swallow", 1)) as relay:
        upload = Upload(relay.url, paths)
        assert upload.go() is None
        assert relay.count("/batch") == 1
        assert relay.count("HEAD /uploads/personal/") == 3
        assert upload.completed == [0, 1, 2]
        assert all(event.verified for event in upload.all(ev.FileCompleted))
        assert on_disk(root) == digests(paths)


@pytest.mark.parametrize(("busy", "stored"), [(2, True), (9, False)])
def test_lost_answer_is_asked_for_again_while_the_server_is_busy(
    source: Path, root: Path, busy: int, stored: bool
) -> None:
    """Nothing is sent twice: that the server does not say it is not that the file is not stored."""

    class Busy(Batches):
        left = busy

        def head(self, request: Request) -> bytes | None:
            if request.line.startswith("HEAD /uploads/") and self.left:
                self.left -= 1
                return answer(503)
            return super().head(request)

    paths = make(source, "a.mp4")
    with running_server(port=0, root=root) as server, Proxy(server.url, Busy("swallow", 1)) as relay:
        upload = Upload(relay.url, paths, retries=2)
        assert upload.go() is None
        assert relay.count("/batch") == 1
        assert upload.completed == ([0] if stored else [])
        assert upload.failed == ({} if stored else {0: FailureCode.OUTCOME_UNKNOWN})
        assert on_disk(root) == digests(paths)


def test_a_lost_answer_for_a_second_version_stores_neither_twice(source: Path, root: Path) -> None:
    """Another file has the path, so ours has another name; the server recognises the resent file.

    The session ended with its last file, so it takes another one.
    """
    (first,) = make(source, "a.mp4")
    with running_server(port=0, root=root) as server:
        assert Upload(server.url, [first]).go() is None
        before = digests([first])
        first.write_bytes(os.urandom(6000))
        with Proxy(server.url, Batches("swallow", 1)) as relay:
            upload = Upload(relay.url, [first])
            assert upload.go() is None
            assert relay.count("/batch") == 3
        assert upload.completed == [0]
        assert on_disk(root) == sorted(before + digests([first]))


def test_lost_answer_of_the_reference_backend_is_unknown_despite_its_progress(source: Path, root: Path) -> None:
    """Its `/progress` calls the failed file completed as well (3.4)."""
    paths = make(source, "a.mp4", "b.mp4")
    config = {"port": 0, "root": root, "flavour": "reference", "processing_seconds": 0.1, "fail_files": ("b.mp4",)}
    with running_server(**config) as server, Proxy(server.url, Batches("swallow", 1)) as relay:
        upload = Upload(relay.url, paths)
        assert upload.go() is None
        assert relay.count("/batch") == 1
        assert upload.failed == dict.fromkeys((0, 1), FailureCode.OUTCOME_UNKNOWN)
        assert on_disk(root) == digests(paths[:1])


def test_lost_answer_without_progress_is_unknown_and_stored_once(source: Path, root: Path) -> None:
    paths = make(source, "a.mp4")
    config = {"port": 0, "root": root, "flavour": "reference", "processing_seconds": 0.0, "progress_linger": 0.05}
    with running_server(**config) as server, Proxy(server.url, Batches("swallow", 1)) as relay:
        upload = Upload(relay.url, paths)
        assert upload.go() is None
        assert relay.count("/batch") == 1
        assert upload.failed == {0: FailureCode.OUTCOME_UNKNOWN}
        assert on_disk(root) == digests(paths)


@pytest.mark.parametrize("flavour", ["bundled", "reference"])
def test_lost_session_is_replaced(source: Path, tmp_path: Path, flavour: str) -> None:
    """As after a restart: the files go to a server that does not know their session."""
    paths = make(source, "a.mp4", "b.mp4")
    config: dict[str, Any] = {"port": 0, "flavour": flavour, "processing_seconds": 0.0}
    root = tmp_path / "second"
    root.mkdir()
    with running_server(**config) as first, running_server(**config, root=root) as second:

        class Move(Onlooker):
            def head(self, request: Request) -> None:
                if "/batch" in request.line:
                    self.proxy.target = second.url

        with Proxy(first.url, Move()) as relay:
            upload = Upload(relay.url, paths)
            assert upload.go() is None
            assert relay.count("POST /api/upload/session ") == 2
    assert upload.completed == [0, 1]
    assert [str(e.code) for e in upload.all(ev.RunWarning)] == [WarningCode.SESSION_LOST]
    assert [e.status for e in upload.all(ev.SessionFinished)] == ["lost", "completed"]


def test_disk_error_of_the_server_is_retried_in_the_same_session(source: Path, root: Path) -> None:
    """The bundled server answers 500 UPLOAD_FAILED then, which is a lost session on the reference backend."""
    failed = Answer(500, body=b'{"error": "UPLOAD_FAILED"}', when="after_body")
    with running_server(port=0, root=root) as server:
        server.faults.next_answers("POST", "/api/upload/batch", [failed] * 2)
        upload = Upload(server.url, make(source, "a.mp4", "b.mp4"), retries=2)
        assert upload.go() is None
    assert upload.completed == [0, 1]
    assert len(upload.all(ev.SessionCreated)) == 1
    assert len(upload.all(ev.FileRetry)) == 4


def test_killed_server_ends_the_run_and_every_file_is_reported(source: Path, root: Path) -> None:
    paths = make(source, *(f"{n}.mp4" for n in range(40)))
    with running_server(port=0, root=root) as server, Proxy(server.url, Batches("die", 2)) as relay:
        upload = Upload(relay.url, paths, wait_for_server=0.0)
        assert isinstance(upload.go(), errors.Unreachable)
        assert upload.completed == list(range(16))
        assert set(upload.failed.values()) == {FailureCode.NETWORK}
        assert len(upload.failed) + len(upload.all(ev.FileSkipped)) == 24
        assert relay.count("/batch") == 2
        assert on_disk(root) == digests(paths[:32])


def test_a_rate_limit_is_waited_out_and_costs_no_retry(source: Path, root: Path) -> None:
    paths = make(source, "a.mp4", "b.mp4")
    config = {"port": 0, "root": root, "rate_limit": 3, "rate_window": 4.0, "max_files": 1, "relative_paths": False}
    with running_server(**config) as server:
        upload = Upload(server.url, paths, retries=0)
        assert upload.go() is None
    assert upload.completed == [0, 1]
    assert [e.attempts for e in upload.all(ev.FileCompleted)] == [1, 1]
    assert WarningCode.RATE_LIMITED in [e.code for e in upload.all(ev.RunWarning)]


SESSIONS, UPLOADS = "/api/upload/session", "/api/upload/files/"


def created(server: EmbeddedServer, path: str, status: int = 201) -> list[LoggedRequest]:
    """Return the creations of sessions or uploads with this answer."""
    return [entry for entry in server.faults.requests if (entry.path, entry.status) == (path, status)]


def in_two_chunks(tmp_path: Path, count: int) -> tuple[list[Path], dict[str, Any]]:
    return make(tmp_path, *(f"{n}.mp4" for n in range(count)), size=100_000), {
        "protocol": "tus",
        "chunk_size": 1 << 16,
        "retries": 0,
    }


@pytest.mark.parametrize(("kind", "path", "uploads"), [("sessions", SESSIONS, 2), ("uploads", UPLOADS, 3)])
def test_used_share_pauses_no_upload_that_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: shares.Kind, path: str, uploads: int
) -> None:
    """The server lets this client hold one session or two uploads, and asks for ten minutes of patience."""
    monkeypatch.setitem(shares.MOST, kind, {"sessions": 4, "uploads": 8}[kind])
    monkeypatch.setattr(shares, "RETRY_AFTER", 600)
    files, settings = in_two_chunks(tmp_path, 3)
    with running_server(max_files=uploads) as server:

        def waits(request: Request) -> bool:
            if request.method == "PATCH":
                return not paused.is_set()
            return (
                bool(created(server, SESSIONS))
                and path == SESSIONS in request.line
                and len(created(server, UPLOADS)) < 2
            )

        with Proxy(server.url, Holding(waits)) as relay:
            paused, upload = threading.Event(), Upload(relay.url, files, jobs=3, **settings)
            upload.before = {ev.RunWarning: paused.set}
            upload.stop_at = ev.FileCompleted
            watchdog = threading.Timer(PATIENCE, upload.stop.set)
            watchdog.start()
            assert upload.go() is None
            watchdog.cancel()
        assert created(server, path, 429)
    assert upload.completed


def test_used_share_delays_creations_as_long_as_the_server_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that may hold one session and two uploads warns once, and uses no retry."""
    monkeypatch.setitem(shares.MOST, "uploads", 8)
    monkeypatch.setitem(shares.MOST, "sessions", 4)
    monkeypatch.setattr(shares, "RETRY_AFTER", 1)
    files, settings = in_two_chunks(tmp_path, 5)
    with running_server(max_files=3) as server:

        def waits(request: Request) -> bool:
            """Keep two uploads open until the third is refused, and that one until the second session is."""
            path = UPLOADS if len(created(server, UPLOADS)) < 3 else SESSIONS
            return request.method == "PATCH" and not created(server, path, 429)

        with Proxy(server.url, Holding(waits)) as relay:
            upload = Upload(relay.url, files, jobs=4, **settings)
            assert upload.go() is None
        for path in (SESSIONS, UPLOADS):
            first = created(server, path, 429)[0].time
            assert not [entry for entry in created(server, path) if first < entry.time < first + 0.95]
    assert upload.completed == [0, 1, 2, 3, 4]
    assert [event.code for event in upload.all(ev.RunWarning)] == [WarningCode.RATE_LIMITED]


class Pair(Onlooker):
    """Holds the first upload until there is a second one; `most` were on their way at the same time."""

    def __init__(self) -> None:
        self._running, self.most, self._two = set[Request](), 0, threading.Event()

    def head(self, request: Request) -> None:
        if UPLOADS in request.line:
            self._running.add(request)
            self.most = max(self.most, len(self._running))
            if self.most > 1:
                self._two.set()
            self._two.wait(PATIENCE)

    def at_answer(self, request: Request) -> None:
        self._running.discard(request)


def test_limit_rate_is_divided_among_as_many_connections_as_the_server_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight would be slower than a server's minimum."""
    monkeypatch.setattr("uploader_cli.settings.model.LEAST_RATE", 200_000)
    files = make(tmp_path, *(f"{number}.mp4" for number in range(8)), size=60_000)
    with running_server() as server, Proxy(server.url, pair := Pair()) as relay:
        upload = Upload(relay.url, files, protocol="tus", jobs=8, limit_rate=400_000)
        assert upload.go() is None
    assert upload.completed == list(range(8))
    assert pair.most == 2


# --- stops during a request


@pytest.mark.thorough
@pytest.mark.parametrize("flavour", ["bundled", "reference"])
def test_a_stop_while_the_body_travels_leaves_nothing_on_the_server(source: Path, root: Path, flavour: str) -> None:
    """Every file is reported as cancelled, and none as stored (protocol.md, section 3.9)."""
    paths = make(source, "a.mp4", "b.mp4", size=30_000_000)
    with running_server(port=0, root=root, flavour=flavour, processing_seconds=0.0) as server:
        upload = Upload(server.url, paths)
        upload.stop_at = ev.BytesSent
        assert upload.go() is None
    assert [e.files for e in upload.all(ev.FilesCancelled)] == [(0, 1)]
    assert upload.all(ev.RunWarning, ev.BodySent, ev.FileCompleted) == []
    assert [e.status for e in upload.all(ev.SessionFinished)] == ["cancelled"]
    assert on_disk(root) == []


@pytest.mark.thorough
def test_auto_jobs_rise_while_the_throughput_rises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file costs a round trip of 20 ms, so each worker more sends more."""
    monkeypatch.setattr(pool, "MEASURED_SECONDS", 0.1)
    files = [tmp_path / f"{number}.mp4" for number in range(300)]
    for file in files:
        file.write_bytes(b"x" * 1000)
    with running_server(latency_ms=20) as server:
        upload = Upload(server.url, files, protocol="tus", jobs="auto")
        assert upload.go() is None
    running = most = 0
    for event in upload.all(ev.FileStarted, ev.FileCompleted):
        running += 1 if isinstance(event, ev.FileStarted) else -1
        most = max(most, running)
    assert len(upload.completed) == 300
    assert FIRST_JOBS < most <= MOST_JOBS
