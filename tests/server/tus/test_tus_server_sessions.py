"""tus uploads in sessions (docs/protocol.md): state, events, `/progress`, limits, cancel, finish."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests
from server.batches import (
    HELD,
    UNKNOWN,
    eventually,
    file,
    held_processing,
    listening,
    new_session,
    progress,
    upload,
    watching,
)
from server.tus.tus_client import (
    DEADLINE,
    append,
    concatenate,
    content,
    create,
    created,
    data_of,
    error,
    file_id,
    head,
    offset_of,
    part,
    patching,
    terminate,
)
from server_clock import ServerClock
from serving import inside, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server() as server:
        yield server


def post(server: EmbeddedServer, call: str, **body: int) -> requests.Response:
    return requests.post(f"{server.url}/api/upload/{call}", json=body or None, timeout=DEADLINE)


def test_an_upload_ends_its_session_like_a_batch(server: EmbeddedServer) -> None:
    session = new_session(server.url, 2)
    data = os.urandom(100_000)
    first = created(server.url, len(data), sessionId=session, filename="one.mp4", relativePath="v/one.mp4")
    assert append(first, 0, data[:50_000]).status_code == 204
    known = progress(server.url, session).json()
    first_id = file_id(server.root, first)
    told = {"id": first_id, "originalName": "one.mp4", "relativePath": "v/one.mp4"}
    arriving = {"progress": 50, "status": "uploading", "fileSize": len(data), "receivedBytes": 50_000}
    assert known["files"] == [{**told, **arriving}]
    assert (known["overallStatus"], known["totalProgress"], known["totalFiles"]) == ("uploading", 25, 2)
    answer = append(first, 50_000, data[50_000:])
    assert answer.headers["content-location"] == "/uploads/personal/v/one.mp4"
    assert requests.get(server.url + "/uploads/personal/v/one.mp4", timeout=DEADLINE).content == data
    (second,) = upload(server.url, file("two.mp4", b"2"), session=session)
    known = progress(server.url, session).json()
    assert [f["id"] for f in known["files"]] == [first_id, second["id"]]
    assert (known["overallStatus"], known["completedFiles"], known["totalProgress"]) == ("completed", 2, 100)


def test_events_show_the_bytes_and_the_ends(server: EmbeddedServer) -> None:
    session = new_session(server.url, 1)
    data = os.urandom(400_000)
    with watching(server.url, session=session) as watcher:
        up = created(server.url, len(data), sessionId=session, filename="seen.mp4")
        with patching(up, 0, len(data)) as request:
            for offset in range(0, len(data), 100_000):
                request.send(data[offset : offset + 100_000])
                wanted = min(99, offset // 4000 + 25)
                eventually(lambda w=wanted: progress(server.url, session).json()["files"][0]["progress"] >= w)
                time.sleep(0.11)  # events are at most ten a second
            assert request.status() == 204
        events = watcher.wait_for_end()
    mine = [event for event in events if event.get("currentFile")]
    assert {event["currentFile"]["id"] for event in mine} == {file_id(server.root, up)}
    assert {event["currentFile"]["originalName"] for event in mine} == {"seen.mp4"}
    percents = [event["currentFile"]["progress"] for event in mine]
    assert percents == sorted(percents)
    assert len(set(percents)) >= 3
    assert percents[-1] == 100
    assert mine[-1]["currentFile"]["status"] == "completed"
    assert mine[0]["currentFile"]["uploadSpeed"] > 0
    assert (events[-1]["overallStatus"], events[-1]["totalProgress"]) == ("completed", 100)
    assert "currentFile" not in events[-1]


@pytest.mark.thorough
def test_events_come_ten_times_a_second_at_most(server: EmbeddedServer) -> None:
    session = new_session(server.url, 2)
    with listening(server.url, session) as listener:
        up = created(server.url, 100, sessionId=session)
        assert listener.event()["overallStatus"] in {"pending", "uploading"}
        began = time.monotonic()
        for offset in range(99):
            assert append(up, offset, b"x").status_code == 204
        seconds = time.monotonic() - began
        assert append(up, 99, b"x").status_code == 204
        count = 0
        while listener.event()["currentFile"]["status"] != "completed":
            count += 1
    assert 1 <= count <= seconds / 0.1 + 2


def test_late_join_gets_a_snapshot(server: EmbeddedServer) -> None:
    session = new_session(server.url, 1)
    up = created(server.url, 10, b"12345", sessionId=session, filename="late.mp4")
    with listening(server.url, session) as listener:
        snapshot = listener.event()
        assert (snapshot["overallStatus"], snapshot["currentFile"]["progress"]) == ("uploading", 50)
        assert snapshot["currentFile"]["id"] == file_id(server.root, up)


@pytest.mark.parametrize("session", [UNKNOWN, "nonsense", "", UNKNOWN.replace("-", "")])
def test_an_unknown_session_is_not_found(server: EmbeddedServer, session: str) -> None:
    assert error(create(server.url, 3, b"abc", sessionId=session)) == (404, "SESSION_NOT_FOUND")


def test_the_id_of_a_session_may_be_in_capitals(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    created(server.url, 3, b"abc", sessionId=session.upper(), filename="capitals.txt")
    assert progress(server.url, session).json()["overallStatus"] == "completed"


def test_tus_creation_in_an_ended_session_is_refused(server: EmbeddedServer) -> None:
    ended, cancelled = new_session(server.url), new_session(server.url)
    created(server.url, 3, b"abc", sessionId=ended)
    assert post(server, f"cancel/{cancelled}").status_code == 200
    assert error(create(server.url, 3, sessionId=ended)) == (409, "SESSION_ENDED")
    assert error(create(server.url, 3, sessionId=cancelled)) == (409, "CANCELLED")


def test_cancel_ends_tus_writers_and_deletes_their_bytes(server: EmbeddedServer) -> None:
    session = new_session(server.url, 3)
    idle = created(server.url, 5, b"ab", sessionId=session)
    piece = part(server.url, b"ab", sessionId=session)
    busy = created(server.url, 5, sessionId=session)
    done = created(server.url, 3, b"abc", sessionId=session, filename="done before cancel.txt")
    data = [data_of(server.root, upload) for upload in (idle, busy, piece)]
    assert all(path.exists() for path in data)
    with listening(server.url, session) as listener, patching(busy, 0, 5) as request:
        request.send(b"abc")
        eventually(lambda: inside(server).backend.tus.known.get(busy.rpartition("/")[2]).writer)
        assert post(server, f"cancel/{session}").status_code == 200
        assert request.status() == 410
        while (event := listener.event())["overallStatus"] != "cancelled":
            pass
        assert "currentFile" not in event
    assert [head(up).status_code for up in (idle, busy, piece)] == [410, 410, 410]
    assert error(append(idle, 2, b"cde")) == (410, "CANCELLED")
    assert content(done) == b"abc"
    assert not any(path.exists() for path in data)
    known = progress(server.url, session).json()
    assert (known["overallStatus"], [f["originalName"] for f in known["files"]]) == (
        "cancelled",
        ["done before cancel.txt"],
    )


def test_unfinished_upload_leaves_its_session_for_one_that_continues_it(server: EmbeddedServer) -> None:
    first, second = new_session(server.url), new_session(server.url)
    created(server.url, 5, b"ab", sessionId=first, filename="moved.txt", uploadKey="moved")
    assert len(progress(server.url, first).json()["files"]) == 1
    assert create(server.url, 5, uploadKey="moved", sessionId=second).headers["upload-offset"] == "2"
    assert [len(progress(server.url, session).json()["files"]) for session in (first, second)] == [0, 1]


def test_finish_ends_a_session_without_its_unfinished_uploads(server: EmbeddedServer) -> None:
    session = new_session(server.url, 3)
    created(server.url, 3, b"abc", sessionId=session)
    late = created(server.url, 5, b"ab", sessionId=session, filename="late finish.txt", uploadKey="late")
    answer = post(server, f"session/{session}/finish", failed=0)
    assert (answer.json()["overallStatus"], answer.json()["completedFiles"]) == ("completed", 1)
    assert len(progress(server.url, session).json()["files"]) == 1
    again = new_session(server.url)
    assert create(server.url, 5, uploadKey="late", sessionId=again).headers["upload-offset"] == "2"
    assert append(late, 2, b"cde").status_code == 204
    assert progress(server.url, again).json()["overallStatus"] == "completed"
    assert progress(server.url, session).json()["completedFiles"] == 1
    another = new_session(server.url)
    assert create(server.url, 5, uploadKey="late", sessionId=another).headers["upload-offset"] == "5"
    (stored,) = progress(server.url, another).json()["files"]
    assert (stored["status"], stored["progress"]) == ("completed", 100)


def test_finish_waits_for_writers(server: EmbeddedServer) -> None:
    session = new_session(server.url, 2)
    up = created(server.url, 5, sessionId=session)
    with patching(up, 0, 5) as request:
        request.send(b"a")
        eventually(lambda: inside(server).backend.tus.known.get(up.rpartition("/")[2]).writer)
        assert error(post(server, f"session/{session}/finish")) == (409, "SESSION_BUSY")
    assert eventually(lambda: post(server, f"session/{session}/finish").status_code == 200)


def test_terminated_upload_is_removed_from_its_session(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    up = created(server.url, 5, b"ab", sessionId=session)
    with listening(server.url, session) as listener:
        assert listener.event()["currentFile"]["progress"] == 40
        assert terminate(up).status_code == 204
        assert listener.event()["overallStatus"] == "uploading"
    assert progress(server.url, session).json()["files"] == []


def test_session_limits_apply_to_tus_uploads() -> None:
    with running_server(max_files=2, types=("mp4", "avi"), mixed_types=False) as server:
        session = new_session(server.url, 2)
        refused = create(server.url, 1, sessionId=session, filename="x.txt")
        assert error(refused) == (400, "INVALID_FILE_FORMAT")
        assert refused.json()["allowedFormats"] == [".mp4", ".avi"]
        assert create(server.url, 1, sessionId=session, filename="a.mp4").status_code == 201
        assert error(create(server.url, 1, sessionId=session, filename="b.avi")) == (400, "INVALID_FILE_FORMAT")
        assert create(server.url, 1, sessionId=session, filename="b.MP4").status_code == 201
        assert error(create(server.url, 1, sessionId=session, filename="c.mp4")) == (400, "TOO_MANY_FILES")


def test_fail_files_makes_a_tus_file_fail_alone() -> None:
    with running_server(fail_files=("bad*",)) as server:
        session = new_session(server.url, 2)
        bad = created(server.url, 3, sessionId=session, filename="bad.mp4")
        with listening(server.url, session) as listener:
            listener.event()
            assert error(append(bad, 0, b"abc")) == (400, "UPLOAD_FAILED")
            while (event := listener.event())["currentFile"]["status"] != "failed":
                pass
            assert event["currentFile"]["error"]
        assert head(bad).status_code == 410
        created(server.url, 3, b"abc", sessionId=session, filename="good.mp4")
        known = progress(server.url, session).json()
        assert (known["overallStatus"], known["completedFiles"], known["failedFiles"]) == ("partial", 1, 1)


def test_processing_takes_its_time() -> None:
    with running_server(processing_seconds=0.3) as server:
        began = time.monotonic()
        created(server.url, 3, b"abc", sessionId=new_session(server.url), filename="slow.mp4")
        assert time.monotonic() - began >= 0.3


def test_processing_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    processed = held_processing(monkeypatch)
    with running_server(processing_seconds=HELD) as server:
        session = new_session(server.url)
        up = created(server.url, 3, sessionId=session, filename="stopped.mp4")
        with patching(up, 0, 3) as request, ThreadPoolExecutor(1) as other:
            request.send(b"abc")
            eventually(lambda: inside(server).backend.tus.known.get(up.rpartition("/")[2]).offset == 3)
            cancelling = other.submit(post, server, f"cancel/{session}")
            eventually(lambda: inside(server).backend.sessions.known[session].status == "cancelled")
            processed.set()
            assert cancelling.result().status_code == 200
            assert request.status() == 410
        assert not (server.root / "personal" / "stopped.mp4").exists()


def test_concatenation_in_another_session_than_its_parts(server: EmbeddedServer) -> None:
    first, second = new_session(server.url), new_session(server.url)
    parts = [part(server.url, b"ab", sessionId=first), part(server.url, b"cd", sessionId=first)]
    assert concatenate(server.url, *parts, sessionId=second, filename="moved.txt").status_code == 201
    assert progress(server.url, second).json()["overallStatus"] == "completed"


def test_session_does_not_expire_while_its_upload_is_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerClock(monkeypatch)
    with running_server() as server:
        session = new_session(server.url)
        up = created(server.url, 5, b"ab", sessionId=session)
        for _ in range(3):
            clock.ahead += 0.7 * server.config.session_ttl
            clock.wait_for_sweeps()
            assert offset_of(up) == 2
        assert progress(server.url, session).status_code == 200
        clock.ahead += server.config.session_ttl + 1
        eventually(lambda: session not in inside(server).backend.sessions.known, "the end of the session")
        assert offset_of(up) == 2  # the upload outlives it
        assert append(up, 2, b"cde").headers["content-location"].startswith("/uploads/personal/")


def test_finish_waits_for_a_file_that_is_being_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    processed = held_processing(monkeypatch)
    with running_server(processing_seconds=HELD) as server:
        session = new_session(server.url, 2)
        up = created(server.url, 3, sessionId=session, filename="being stored.mp4")
        with patching(up, 0, 3) as request:
            request.send(b"abc")
            eventually(lambda: inside(server).backend.tus.known.get(up.rpartition("/")[2]).offset == 3)
            assert error(post(server, f"session/{session}/finish")) == (409, "SESSION_BUSY")
            processed.set()
            assert request.status() == 204
        answer = post(server, f"session/{session}/finish").json()
        assert (answer["overallStatus"], answer["completedFiles"]) == ("completed", 1)
