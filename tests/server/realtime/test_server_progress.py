"""`GET /progress` of sessions with many files: built off the event loop, once for callers that wait together."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from server.batches import DEADLINE, eventually, file, new_session, progress, upload, watching
from server.packs.packing import send_pack
from server.tus.tus_client import append, concatenate, created, part
from serving import inside, running_server

from uploader_server.storage.file_state import FileState
from uploader_server.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

CALLERS = 20
MANY = 300


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with running_server(packs=True) as server:
        yield server


class Held:
    """Holds the first response that shows its files until `let_go`; counts the shown files, and the threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown, self.threads = 0, set[str]()
        self.began, self.let_go = threading.Event(), threading.Event()
        monkeypatch.setattr(FileState, "shown", self._patched(FileState.shown))

    def _patched(self, original: Any) -> Any:
        def shown(of: FileState) -> Any:
            self.shown += 1
            self.threads.add(threading.current_thread().name)
            if not self.began.is_set():
                self.began.set()
                self.let_go.wait(DEADLINE)
            return original(of)

        return shown


def waiting_callers(server: EmbeddedServer) -> int:
    return sum("/progress/" in seen.path for seen in server.app.tracker.busy().values())


@pytest.mark.thorough
def test_callers_share_a_response_that_is_built_off_the_loop(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is being built, and the next one for all who came meanwhile."""
    session = new_session(server.url, MANY + 1)
    upload(server.url, *(file(f"{n}", b"x") for n in range(MANY)), session=session)
    held = Held(monkeypatch)
    with ThreadPoolExecutor(CALLERS) as threads:
        first = threads.submit(progress, server.url, session)
        assert held.began.wait(DEADLINE)
        others = [threads.submit(progress, server.url, session) for _ in range(CALLERS - 1)]
        eventually(lambda: waiting_callers(server) == CALLERS, "all callers")
        assert requests.get(f"{server.url}/health", timeout=DEADLINE).status_code == 200  # the loop runs
        held.let_go.set()
        answers = [answer.result() for answer in (first, *others)]
    assert "uploader-server" not in held.threads
    assert held.shown == 2 * MANY
    assert {answer.text for answer in answers[1:]} == {answers[1].text}
    assert [len(answer.json()["files"]) for answer in answers] == [MANY] * CALLERS


@pytest.mark.parametrize("way", ["batch", "pack"])
def test_progress_has_every_upload_that_was_confirmed_before(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Also while a response is being built that has read the state earlier."""
    session = new_session(server.url, MANY + 1)
    upload(server.url, *(file(f"{n}", b"x") for n in range(MANY)), session=session)
    held = Held(monkeypatch)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(progress, server.url, session)
        assert held.began.wait(DEADLINE)
        if way == "batch":
            upload(server.url, file("last", b"x"), session=session)
        else:
            send_pack(server.url, session, {"last": b"x"})
        second = threads.submit(progress, server.url, session)
        eventually(lambda: waiting_callers(server) == 2, "both callers")
        held.let_go.set()
        earlier, later = first.result().json(), second.result().json()
    assert earlier["completedFiles"] == len(earlier["files"]) == MANY
    assert later["completedFiles"] == len(later["files"]) == MANY + 1
    assert later["overallStatus"] == "completed"
    assert "last" in {shown["originalName"] for shown in later["files"]}


def test_file_is_uploading_until_it_is_recorded(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    session, save = new_session(server.url), Store.save
    linked, let_go = threading.Event(), threading.Event()

    async def paused(*arguments: Any, **options: Any) -> None:
        linked.set()
        await asyncio.to_thread(let_go.wait, DEADLINE)
        await save(*arguments, **options)

    def statuses() -> list[tuple[str, int]]:
        return [(one["status"], one["progress"]) for one in progress(server.url, session).json()["files"]]

    with ThreadPoolExecutor() as threads:
        monkeypatch.setattr(Store, "save", paused)
        sent = threads.submit(upload, server.url, file("a", b"x"), session=session)
        assert linked.wait(DEADLINE)
        before = statuses()
        let_go.set()
        sent.result()
    assert (before, statuses()) == ([("uploading", 99)], [("completed", 100)])


def test_join_shows_the_file_that_is_arriving_without_reading_all(server: EmbeddedServer) -> None:
    session = new_session(server.url, 3)
    upload(server.url, file("done", b"x"), session=session)
    known: Any = inside(server).backend.sessions
    state = known.known[session]
    state.add(FileState("arriving"))
    assert [one.original_name for one in state.files.values()] == ["arriving"]
    with watching(server.url, "websocket", session) as watcher:
        (snapshot,) = watcher.wait(lambda events: events)
    assert snapshot["currentFile"]["originalName"] == "arriving"


@pytest.mark.parametrize("cancelled", [False, True])
def test_progress_counts_bytes(tmp_path: Path, cancelled: bool) -> None:
    """Those of stored files, arriving uploads and parts, not of failed ones, also after a restart."""
    asked, headers = {"category": "personal", "expectedFiles": 5}, {"X-Expected-Bytes": "1000"}
    with running_server(root=tmp_path, packs=True, faults=("fail-file:bad*",)) as server:
        url = f"{server.url}/api/upload/session"
        session = requests.post(url, json=asked, headers=headers, timeout=DEADLINE).json()["sessionId"]
        upload(server.url, file("a.mp4", bytes(100)), file("bad.mp4", bytes(200)), session=session)
        send_pack(server.url, session, {"b/c.txt": bytes(30)})
        append(created(server.url, 400, sessionId=session, filename="d.mp4"), 0, bytes(150))
        place = {"sessionId": session, "finalKey": "e", "finalLength": "40"}
        parts = [part(server.url, bytes(20), partOffset=offset, **place) for offset in ("0", "20")]
        known = progress(server.url, session).json()
        assert (known["receivedBytes"], known["totalBytes"]) == (320, 1000)
        sizes = {one["originalName"]: one["fileSize"] for one in known["files"]}
        assert sizes == {"a.mp4": 100, "bad.mp4": 200, "c.txt": 30, "d.mp4": 400}
        if cancelled:
            requests.post(f"{server.url}/api/upload/cancel/{session}", timeout=DEADLINE).raise_for_status()
        before = summary_of_session(server)
    with running_server(root=tmp_path) as server:
        assert summary_of_session(server) == before
        if not cancelled:
            concatenate(server.url, *parts, sessionId=session, uploadKey="e").raise_for_status()
            assert summary_of_session(server)["receivedBytes"] == 320
    assert (before["totalBytes"], before["name"]) == (1000, "a.mp4")
    assert before["receivedBytes"] == (130 if cancelled else 320)
    assert bool(before["endedAt"]) == cancelled


def summary_of_session(server: EmbeddedServer) -> Any:
    (session,) = inside(server).backend.newest()
    return {key: session.get(key) for key in ("receivedBytes", "totalBytes", "name", "endedAt")}


@pytest.mark.parametrize("size", ["-1", "1e3", "", "1" * 16])
def test_announced_size_that_is_no_number_is_refused(server: EmbeddedServer, size: str) -> None:
    asked, headers = {"category": "personal", "expectedFiles": 1}, {"X-Expected-Bytes": size}
    answer = requests.post(f"{server.url}/api/upload/session", json=asked, headers=headers, timeout=DEADLINE)
    assert (answer.status_code, answer.json()["error"]) == (400, "INVALID_HEADER")
