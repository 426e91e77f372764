"""`--as reference`: the behaviour in docs/protocol.md, section 3, and the captured messages."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from server.batches import (
    DEADLINE,
    UNKNOWN,
    HalfSent,
    answered,
    body_of,
    eventually,
    file,
    listening,
    new_session,
    post_parts,
    progress,
    text,
    upload,
    watching,
)
from serving import running_server, server_process
from time_limits import PATIENCE

from uploader_server import serving as serving_module
from uploader_server.auth import issue_token
from uploader_server.simulation.reference import STEPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer

WIRE = Path(__file__).resolve().parents[2] / "wire"
QUICK = 0.09
"""Seconds of processing for each file, where the reference backend takes 2.7."""


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with running_server(flavour="reference", processing_seconds=QUICK) as server:
        yield server


def head_of(session: str, category: str = "personal") -> list[tuple[str, bytes]]:
    return [text("sessionId", session), text("category", category)]


# The captured messages


def shape(value: Any, key: str = "") -> Any:
    """Replace what differs between runs: ids, times, paths, sizes of memory."""
    if isinstance(value, dict):
        return {k: shape(v, k) for k, v in sorted(value.items())}
    if isinstance(value, list):
        return [shape(v) for v in value]
    if key in {"errorMessage", "error"} and isinstance(value, str):
        return re.sub(r"'.*'", "'…'", value, flags=re.DOTALL)
    volatile = {"id", "sessionId", "timestamp", "createdAt", "uploadStartTime", "uploadEndTime", "lastUpdate"}
    if key in volatile | {"fileName", "filePath"}:
        return "…"
    if key in {"uptime", "rss", "heapTotal", "heapUsed", "external", "arrayBuffers"}:
        return "a number" if isinstance(value, int | float) else value
    return value


class Replay:
    """Sends a captured request, after the calls that it depends on."""

    def __init__(self, server: EmbeddedServer, name: str) -> None:
        self.server = server
        self.capture = json.loads((WIRE / f"{name}.json").read_text(encoding="utf-8"))
        self.request = self.capture["request"]
        self.headers: dict[str, str] = {}
        self.pending: HalfSent | None = None
        getattr(self, "before_" + name.replace("-", "_"), lambda: None)()

    def send(self) -> requests.Response:
        multipart = self.request.get("multipart")
        if multipart is None:
            return requests.request(
                self.request["method"],
                self.server.url + self.request["path"],
                json=self.request.get("json"),
                headers=self.headers,
                timeout=DEADLINE,
            )
        texts = dict(multipart["text"])
        if texts.get("sessionId", UNKNOWN) != UNKNOWN:
            texts["sessionId"] = new_session(self.server.url, 2, texts.get("category", "personal"))
        sent = [file(f["filename"], b"x" * f["size"]) for f in multipart["files"]]
        return post_parts(self.server.url, [*(text(*pair) for pair in texts.items()), *sent])

    def point_at(self, new: str) -> None:
        self.request["path"] = self.request["path"].rpartition("/")[0] + "/" + new

    def two_files(self) -> tuple[str, list[dict[str, Any]]]:
        session = new_session(self.server.url, 2)
        files = [file("a.mp4", b"x" * 2097152), file("景区 b.mp4", b"x" * 1048576)]
        return session, upload(self.server.url, *files, session=session)

    def under_way(self) -> str:
        """Return a session whose body is complete and whose processing has begun."""
        session = new_session(self.server.url, 2)
        files = [file("a.mp4", b"x" * 2097152), file("景区 b.mp4", b"x" * 1048576)]
        self.pending = HalfSent(self.server.url, body_of([*head_of(session), *files]))
        self.pending.send()
        eventually(lambda: progress(self.server.url, session).status_code == 200, "the processing")
        return session

    def before_cancel_ok(self) -> None:
        self.point_at(self.under_way())

    def before_progress_during(self) -> None:
        self.point_at(self.under_way())

    def before_progress_after(self) -> None:
        self.point_at(self.two_files()[0])

    def before_stored_head(self) -> None:
        self.point_at(self.two_files()[1][0]["fileName"])

    def before_delete_ok(self) -> None:
        self.point_at(self.two_files()[1][0]["id"])
        self.headers["Authorization"] = f"Bearer {issue_token(self.server.config.jwt_secret)}"

    def before_delete_unknown(self) -> None:
        self.headers["Authorization"] = f"Bearer {issue_token(self.server.config.jwt_secret)}"

    def before_delete_bad_token(self) -> None:
        self.headers["Authorization"] = "Bearer nonsense"

    def before_rate_limited(self) -> None:
        for _ in range(100):
            progress(self.server.url, "x")


@pytest.mark.parametrize("name", sorted(path.stem for path in WIRE.glob("*.json")))
def test_a_captured_request_gets_the_captured_answer(name: str) -> None:
    under_way = name in ("cancel-ok", "progress-during")
    with running_server(flavour="reference", processing_seconds=PATIENCE if under_way else QUICK) as server:
        replay = Replay(server, name)
        answer = replay.send()
        if replay.pending is not None:
            replay.pending.connection.close()
    capture = replay.capture
    assert answer.status_code == capture["status"], answer.text
    assert answer.headers["content-type"] == capture["headers"]["content-type"]
    for header in capture["headers"]:
        if header.startswith(("x-ratelimit", "retry-after", "accept-ranges")):
            assert header in answer.headers
    body: Any = answer.json() if answer.content else ""
    if name == "delete-bad-token":
        body.pop("details", None)
    assert shape(body) == shape(capture["body"])


def captured_events(name: str) -> list[dict[str, Any]]:
    lines = (WIRE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [shape(json.loads(line)["data"]) for line in lines]


def ids_consistent(events: list[dict[str, Any]]) -> bool:
    names = {(e["currentFile"]["id"], e["currentFile"]["originalName"]) for e in events if "currentFile" in e}
    return len({file_id for file_id, _ in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("events-two-files", [("a.mp4", 2097152), ("景区 b.mp4", 1048576)]),
        ("events-one-failed", [("good.mp4", 1000), (None, 1000)]),
    ],
)
def test_events_come_in_the_captured_order(server: EmbeddedServer, name: str, files: list[Any]) -> None:
    expected = captured_events(name)
    long = next(
        (
            e["currentFile"]["originalName"]
            for e in expected
            if len(e.get("currentFile", {}).get("originalName", "")) > 99
        ),
        "",
    )
    session = new_session(server.url, 2)
    with listening(server.url, session) as listener:
        listed = upload(server.url, *(file(n or long, b"x" * size) for n, size in files), session=session)
        events = [listener.event() for _ in expected]
    assert [shape(event) for event in events] == expected
    assert ids_consistent(events)
    assert {e["currentFile"]["id"] for e in events if "currentFile" in e} == {f["id"] for f in listed}


def test_cancel_does_not_stop_files_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 3.9: the event has `cancelled`, the other files are stored, and the answer has `completed`."""
    expected = captured_events("events-cancelled")
    pause, steps, sleep, cancelled = 0.013, itertools.count(), asyncio.sleep, threading.Event()

    async def held(seconds: float) -> None:
        if seconds == pause and next(steps) == STEPS.index(30) + 1:
            while not cancelled.is_set():
                await sleep(0.005)
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", held)
    with running_server(flavour="reference", processing_seconds=pause * len(STEPS)) as server:
        session = new_session(server.url, 1, "scenic")
        answers: list[requests.Response] = []
        parts = [*head_of(session, "scenic"), file("c.mp4", b"x" * 1000)]
        with listening(server.url, session) as listener:
            sending = threading.Thread(target=lambda: answers.append(post_parts(server.url, parts)))
            sending.start()
            events = list[Any]()
            while len(events) < len(expected):
                events.append(listener.event())
                if events[-1].get("totalProgress") == 30:
                    answer = requests.post(f"{server.url}/api/upload/cancel/{session}", timeout=DEADLINE)
                    assert answer.status_code == 200
                    cancelled.set()
            sending.join()
        shapes = [shape(event) for event in events]
        told = next(event for event in expected if event["overallStatus"] == "cancelled")
        assert told in shapes[6:]
        assert [e for e in shapes if e != told] == [e for e in expected if e != told]
        assert [f["status"] for f in answers[0].json()["files"]] == ["completed"]
        assert Path(answers[0].json()["files"][0]["filePath"]).stat().st_size == 1000


# docs/protocol.md, section 3, point by point


def test_3_1_no_progress_during_the_body(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    with listening(server.url, session) as listener:
        with HalfSent(server.url, body_of([*head_of(session), file("a.mp4", b"x" * 2_000_000)])) as request:
            request.send(1_500_000)
            with pytest.raises(TimeoutError):
                listener.packet(timeout=0.3)
            assert progress(server.url, session).status_code == 404
            request.send()
            assert request.status() == 200
        assert "totalProgress" not in listener.event()


def test_3_2_answer_takes_time_for_each_file() -> None:
    with running_server(flavour="reference", processing_seconds=0.3) as server:
        began = time.monotonic()
        upload(server.url, file("a.mp4", b"1"), file("b.mp4", b"2"))
        assert time.monotonic() - began >= 0.6
        assert server.config.limits.processing == 0.3
    with running_server(flavour="reference") as server:
        assert server.config.limits.processing == 2.7


def test_3_4_completed_comes_twice_even_after_partial(server: EmbeddedServer) -> None:
    server.faults.fail_files.append("bad*")
    session = new_session(server.url, 2)
    with listening(server.url, session) as listener:
        upload(server.url, file("good.mp4", b"1"), file("bad.mp4", b"2"), session=session)
        events = list[Any]()
        while len([e for e in events if e["overallStatus"] != "uploading"]) < 2:
            events.append(listener.event())
    partial, crude = events[-2:]
    assert (partial["overallStatus"], partial["failedFiles"]) == ("partial", 1)
    assert (crude["overallStatus"], crude["completedFiles"], crude["failedFiles"], crude["totalFiles"]) == (
        "completed",
        2,
        0,
        2,
    )


def test_3_5_success_may_contain_a_failed_file(server: EmbeddedServer) -> None:
    server.faults.fail_files.append("bad*")
    session = new_session(server.url, 2)
    answer = post_parts(server.url, [*head_of(session), file("bad.mp4", b"1"), file("good.mp4", b"2")])
    assert (answer.status_code, answer.json()["success"]) == (200, True)
    assert [f["status"] for f in answer.json()["files"]] == ["failed", "completed"]
    assert set(answer.json()["files"][0]) == {
        "id",
        "originalName",
        "fileSize",
        "fileType",
        "status",
        "progress",
        "uploadSpeed",
        "uploadStartTime",
        "errorMessage",
        "errorCode",
    }


def test_3_6_progress_counts_twice_and_disappears() -> None:
    with running_server(flavour="reference", processing_seconds=QUICK, progress_linger=PATIENCE) as server:
        session = new_session(server.url, 2)
        listed = upload(server.url, file("a.mp4", b"1"), file("empty.mp4", b""), session=session)
        known = progress(server.url, session).json()
        assert (known["totalProgress"], known["completedFiles"], known["totalFiles"]) == (0, 4, 2)
        assert [f["progress"] for f in known["files"]] == [100, None]
        assert {f["id"] for f in known["files"]}.isdisjoint(f["id"] for f in listed)
    with running_server(flavour="reference", processing_seconds=QUICK, progress_linger=0.2) as server:
        session = new_session(server.url)
        upload(server.url, file("a.mp4", b"1"), session=session)
        eventually(lambda: progress(server.url, session).status_code == 404, "the end of /progress")


def test_3_6_progress_is_gone_after_five_seconds_by_default() -> None:
    with running_server(flavour="reference") as server:
        assert server.config.progress_linger == 5.0


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_3_7_join_has_no_acknowledgement_and_no_snapshot(server: EmbeddedServer, transport: str) -> None:
    acknowledged = threading.Event()
    with watching(server.url, transport) as watcher:
        for session in (new_session(server.url), UNKNOWN, "no id at all"):
            watcher.client.emit("join-session", session, callback=lambda *_: acknowledged.set())
        assert not acknowledged.wait(0.3)
        assert watcher.events == []
        assert watcher.client.connected


def test_3_7_there_is_no_replay(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    upload(server.url, file("a.mp4", b"1"), session=session)
    with listening(server.url, session) as listener, pytest.raises(TimeoutError):
        listener.packet(timeout=0.2)


def test_3_9_a_connection_closed_mid_body_stores_nothing(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    with HalfSent(server.url, body_of([*head_of(session), file("a.mp4", b"x" * 2_000_000)])) as request:
        request.send(1_500_000)
        eventually(lambda: list((server.root / ".uploader/incoming").iterdir()), "the temporary file")
    eventually(lambda: not list((server.root / ".uploader/incoming").iterdir()), "its removal")
    assert list((server.root / "personal").iterdir()) == []


def test_3_9_a_client_that_leaves_after_the_last_byte_leaves_its_file(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    with HalfSent(server.url, body_of([*head_of(session), file("a.mp4", b"x")])) as request:
        request.send()
        eventually(lambda: progress(server.url, session).status_code == 200, "the processing")
    eventually(lambda: progress(server.url, session).json()["overallStatus"] == "completed", "the end")
    assert len(list((server.root / "personal").iterdir())) == 1


def test_3_10_a_request_that_takes_too_long_is_a_408_without_a_body() -> None:
    with running_server(flavour="reference", request_timeout=0.3) as server:
        session = new_session(server.url)
        with HalfSent(server.url, body_of([*head_of(session), file("a.mp4", b"x" * 10_000)])) as request:
            request.send(5_000)
            answer = request.answer()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b" 408 " in head.split(b"\r\n")[0] + b" "
        assert body == b""
    with running_server(flavour="reference") as server:
        assert server.config.limits.request_timeout == 300.0


@pytest.mark.thorough
def test_3_11_a_hundred_requests_in_fifteen_minutes_polls_included(server: EmbeddedServer) -> None:
    new_session(server.url)
    answers = [progress(server.url, UNKNOWN) for _ in range(100)]
    assert [a.status_code for a in answers] == [404] * 99 + [429]
    assert answers[-1].json() == {"error": "TOO_MANY_REQUESTS", "message": "请求过于频繁，请稍后再试"}  # noqa: RUF001
    assert 0 < int(answers[-1].headers["retry-after"]) <= 900
    assert requests.get(f"{server.url}/health", timeout=DEADLINE).status_code == 200
    assert requests.get(f"{server.url}/uploads/personal/x", timeout=DEADLINE).status_code == 404


def test_3_11_a_429_does_not_wait_for_the_body() -> None:
    with running_server(flavour="reference", rate_limit=1) as server:
        session = new_session(server.url)
        with HalfSent(server.url, body_of([*head_of(session), file("a.mp4", b"x" * 10_000)])) as request:
            request.send(100)
            assert request.status() == 429


@pytest.mark.parametrize(
    ("status", "code", "parts"),
    [
        (400, "INVALID_FILE_FORMAT", [file("a.mov", b"x" * 5000)]),
        (400, "TOO_MANY_FILES", [file(f"{n}.mp4", b"x" * 2000) for n in range(4)]),
        (413, "FILE_TOO_LARGE", [file("a.mp4", b"x" * 9000)]),
        (500, "UPLOAD_FAILED", [text("sessionId", UNKNOWN), file("a.mp4", b"x" * 5000)]),
        (400, "NO_SESSION_ID", [text("sessionId", ""), file("a.mp4", b"x" * 5000)]),
    ],
)
def test_3_12_refusals_come_after_the_whole_body(status: int, code: str, parts: list[tuple[str, bytes]]) -> None:
    with running_server(flavour="reference", max_size=8000) as server:
        body = body_of([*head_of(new_session(server.url)), *parts])
        with HalfSent(server.url, body) as request:
            request.send(len(body) - 10)
            request.connection.settimeout(0.3)
            with pytest.raises(TimeoutError):
                request.answer()
            request.connection.settimeout(DEADLINE)
            request.send()
            answer = request.answer()
        assert int(answer.split(b" ", 2)[1]) == status
        assert code.encode() in answer
        assert list((server.root / "personal").iterdir()) == []
        eventually(lambda: not list((server.root / ".uploader/incoming").iterdir()), "the temporary files' removal")


def test_3_12_the_limits() -> None:
    with running_server(flavour="reference") as server:
        limits = server.config.limits
        assert (limits.max_files, limits.types, limits.max_size) == (3, ("mp4", "avi"), 314_572_800)


def test_3_12_the_size_limit_is_inclusive() -> None:
    with running_server(flavour="reference", processing_seconds=0, max_size=1000) as server:
        assert upload(server.url, file("a.mp4", b"x" * 1000))[0]["status"] == "completed"


def test_3_12_nothing_beyond_the_captured_fields_is_offered(server: EmbeddedServer) -> None:
    """No limits in /health, no relative paths, no finish, no digest."""
    assert "limits" not in requests.get(f"{server.url}/health", timeout=DEADLINE).json()
    session = new_session(server.url)
    assert requests.post(f"{server.url}/api/upload/session/{session}/finish", timeout=DEADLINE).status_code == 404
    (known,) = upload(server.url, file("a.mp4", b"1"), session=session, paths=("d/a.mp4",))
    assert "/" not in known["fileName"]
    head = requests.head(f"{server.url}/uploads/personal/{known['fileName']}", timeout=DEADLINE)
    assert head.status_code == 200
    assert "repr-digest" not in head.headers


def test_3_13_escapes_in_names_come_back_as_sent(server: EmbeddedServer) -> None:
    (known,) = upload(server.url, file("q%22 n%0A.mp4", b"1"))
    assert known["originalName"] == "q%22 n%0A.mp4"
    assert known["fileName"].endswith("_q_22_n_0A.mp4")


def test_3_13_filename_star_is_refused_after_the_body(server: EmbeddedServer) -> None:
    part = ("Content-Disposition: form-data; name=\"files\"; filename*=UTF-8''a.mp4", b"x" * 100_000)
    assert post_parts(server.url, [*head_of(new_session(server.url)), part]).status_code == 400


def test_3_14_sessions_are_gone_after_a_restart(tmp_path: Path) -> None:
    with running_server(flavour="reference", root=tmp_path) as server:
        session = new_session(server.url)
    with running_server(flavour="reference", root=tmp_path) as server:
        answer = post_parts(server.url, [*head_of(session), file("a.mp4", b"1")])
        assert (answer.status_code, answer.json()["details"]) == (500, "会话不存在")


def test_full_disk_under_a_body_is_an_answer_and_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with running_server(flavour="reference", faults=("disk-full:batch#1:10",), processing_seconds=0.0) as server:
        answer = post_parts(server.url, [*head_of(new_session(server.url)), file("a.mp4", b"1" * 1000)])
        assert (answer.status_code, answer.json()["error"]) == (500, "UPLOAD_FAILED")
        again = post_parts(server.url, [*head_of(new_session(server.url)), file("a.mp4", b"1" * 1000)])
        assert again.status_code == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_3_15_server_killed_in_processing_stored_one_file(tmp_path: Path) -> None:
    arguments = ("--as", "reference", "--root", str(tmp_path), "--processing", "30")
    with server_process(*arguments) as server:
        session = new_session(server.url, 2)
        body = body_of([*head_of(session), file("now.mp4", b"x" * 100), file("later.mp4", b"x" * 100)])
        with HalfSent(server.url, body) as request:
            request.send()
            eventually(lambda: list((tmp_path / "personal").iterdir()), "the first file in place")
            server.kill()
    (stored,) = (tmp_path / "personal").iterdir()
    assert stored.name.endswith("_now.mp4")
    assert stored.stat().st_size == 100


def test_3_15_batch_in_processing_gets_500_from_a_server_that_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "STOP_GRACE", DEADLINE)  # a slow machine may need it
    with running_server(flavour="reference", processing_seconds=30.0) as server:
        session = new_session(server.url, 2)
        body = body_of([*head_of(session), file("now.mp4", b"x" * 100), file("later.mp4", b"x" * 100)])
        with HalfSent(server.url, body) as request:
            request.send()
            eventually(lambda: list((server.root / "personal").iterdir()), "the first file in place")
            server.stop()
            assert request.status() == 500


def test_3_16_an_idle_connection_is_soon_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert serving_module.KEEP_ALIVE["reference"] == 5.0
    monkeypatch.setitem(serving_module.KEEP_ALIVE, "reference", 0.5)
    with running_server(flavour="reference") as server:
        began = time.monotonic()
        with answered(server.url) as connection:
            assert connection.recv(1) == b""
        assert time.monotonic() - began > 0.3


def test_3_16_a_long_answer_is_gzipped_where_that_is_accepted(server: EmbeddedServer) -> None:
    session = new_session(server.url, 3)
    answer = post_parts(server.url, [*head_of(session), *(file(f"{n}.mp4", b"x") for n in range(3))])
    assert answer.headers["content-encoding"] == "gzip"
    assert len(answer.json()["files"]) == 3


def test_3_17_a_second_batch_at_once_takes_over_the_progress(server: EmbeddedServer) -> None:
    session = new_session(server.url, 2)
    with HalfSent(server.url, body_of([*head_of(session), file("one.mp4", b"1")])) as one:
        one.send()
        eventually(lambda: progress(server.url, session).status_code == 200, "the first batch")
        upload(server.url, file("two.mp4", b"2"), session=session)
        assert [f["originalName"] for f in progress(server.url, session).json()["files"]] == ["two.mp4"]
        assert one.status() == 200


def test_a_session_takes_one_batch_after_another(server: EmbeddedServer) -> None:
    session = new_session(server.url, 1)
    for name in ("a.mp4", "b.mp4"):
        assert upload(server.url, file(name, b"1"), session=session)[0]["status"] == "completed"


def test_the_heartbeat_is_the_slow_one(server: EmbeddedServer) -> None:
    answer = requests.get(f"{server.url}/socket.io/?EIO=4&transport=polling", timeout=DEADLINE)
    opened = json.loads(answer.text.removeprefix("0"))
    assert (opened["pingInterval"], opened["pingTimeout"]) == (25_000, 20_000)
