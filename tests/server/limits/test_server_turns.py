"""Long jobs of one client leave threads and the event loop to the uploads of others."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from server.batches import FromAddress, eventually, new_session
from server.packs.packing import body_of_pack, headers_of, manifest_of
from server.tus.tus_client import DEADLINE, append, concatenate, create, created, part
from serving import inside, running_server

from uploader_server.batch.lookup import Lookup
from uploader_server.serving import SHORT_JOBS
from uploader_server.storage import put
from uploader_server.storage.categories import Descent
from uploader_server.storage.file_state import FileState
from uploader_server.storage.reading import Reading
from uploader_server.storage.store import Store
from uploader_server.storage.turns import LONG_JOBS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

JOBS = SHORT_JOBS + LONG_JOBS + 1  # more than there are threads


def join(url: str, number: int, parts: list[str]) -> int:
    return concatenate(url, parts[number], filename=f"{number}.bin").status_code


def look_up(url: str, number: int, _: list[str]) -> int:
    files = [{"relativePath": f"{number}.bin", "size": 1}]
    body = {"category": "personal", "files": files}
    return requests.post(f"{url}/api/upload/lookup", json=body, timeout=DEADLINE).status_code


def store_equal(url: str, number: int, _: list[str]) -> int:
    return create(url, 1, b"x", filename="taken.bin", uploadKey=str(number)).status_code


@pytest.mark.parametrize(
    ("place", "name", "job", "status"),
    [(Reading, "join", join, 201), (Lookup, "_find_files", look_up, 200), (Reading, "equal", store_equal, 201)],
)
def test_many_long_jobs_of_a_client_leave_threads_to_uploads(
    place: type, name: str, job: Callable[[str, int, list[str]], int], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(put, "LARGE", 0)
    go_on, began, call = threading.Event(), list[int](), getattr(place, name)

    def slow(*arguments: Any) -> Any:
        began.append(1)
        go_on.wait(DEADLINE)
        return call(*arguments)

    with running_server(packs=True) as server, ThreadPoolExecutor(JOBS) as clients:
        parts = [part(server.url, b"x") for _ in range(JOBS)] if job is join else []
        created(server.url, 1, b"x", filename="taken.bin")
        monkeypatch.setattr(place, name, slow)
        try:
            answers = [clients.submit(job, server.url, number, parts) for number in range(JOBS)]
            created(server.url, 1 << 20, bytes(1 << 20), filename="other.bin")  # needs a thread
            assert len(began) <= 1
        finally:
            go_on.set()
        assert [answer.result() for answer in answers] == [status] * JOBS


def test_packs_of_one_client_delay_those_of_others_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack with 65,536 new directories takes seconds, and only one is stored at a time."""
    go_on, stored, link_all = threading.Event(), list[str](), put.Linking.run

    def slow(linking: put.Linking, files: list[Any], prepare: Any) -> None:
        stored.append(files[0].wanted_path)
        go_on.wait(DEADLINE)
        link_all(linking, files, prepare)

    def send(name: str, address: str) -> int:
        client = requests.Session()
        client.mount("http://", FromAddress(address))
        body = body_of_pack(manifest_of(session, {f"{name}/1": b"x", f"{name}/2": b"x"}), b"xx")
        return client.post(f"{url}/api/upload/packs", body, headers=headers_of(name), timeout=DEADLINE).status_code

    monkeypatch.setattr(put.Linking, "run", slow)
    with running_server(packs=True) as server, ThreadPoolExecutor() as clients:
        url, session, placing = server.url, new_session(server.url, 100), inside(server).store.names_in_use
        try:
            answers = [clients.submit(send, f"mine-{number}", "127.0.0.1") for number in range(3)]
            eventually(lambda: len(placing) == 6, "the packs of the first client")
            answers.append(clients.submit(send, "other", "127.0.0.2"))
            eventually(lambda: len(placing) == 8, "the pack of the second client")
        finally:
            go_on.set()
        assert [answer.result() for answer in answers] == [200] * 4
    assert stored.index("other/1") == 1


def test_deep_path_is_not_followed_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its directories is opened: by a creation, by a download, and by a HEAD."""
    enter, threads, deep = Descent.enter, set[str](), "d/" * 100 + "x.mp4"

    def noted(descent: Descent, name: str) -> None:
        threads.add(threading.current_thread().name)
        enter(descent, name)

    with running_server(durability="none") as server:
        monkeypatch.setattr(Descent, "enter", noted)
        created(server.url, 1, b"1", sessionId=new_session(server.url), relativePath=deep, filename="x.mp4")
        for method in ("GET", "HEAD"):
            assert requests.request(method, f"{server.url}/uploads/personal/{deep}", timeout=DEADLINE).ok
    assert threads
    assert "uploader-server" not in threads


def test_copy_of_a_data_file_with_a_second_name_is_not_made_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second name is that of a backup with hard links; a large file takes long."""
    copy, threads = Reading.join, list[str]()

    def noted(*arguments: Any) -> None:
        threads.append(threading.current_thread().name)
        copy(*arguments)

    monkeypatch.setattr(Reading, "join", noted)
    with running_server() as server:
        upload = created(server.url, 4, b"ab", filename="x.bin")
        (data,) = (server.root / ".uploader" / "tus").iterdir()
        (server.root / "backup").hardlink_to(data)
        assert append(upload, 2, b"cd").status_code == 204
        assert (server.root / "backup").read_bytes() == b"ab"
    assert threads
    assert "uploader-server" not in threads


def test_a_digest_that_nobody_waits_for_keeps_no_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server(root=tmp_path) as server:
        digests = inside(server).store.digests
        digests.patience = 0.3
        free = threading.Event()

        def slow(_: Reading, fd: int) -> bytes:
            os.close(fd)
            free.wait(DEADLINE)
            return b"x" * 32

        monkeypatch.setattr(Reading, "sha256", slow)
        for number in range(3):
            (tmp_path / "personal" / str(number)).write_bytes(b"x")
        for number in range(3):
            asked = requests.head(
                f"{server.url}/uploads/personal/{number}", headers={"Want-Repr-Digest": "sha-256=1"}, timeout=DEADLINE
            )
            assert asked.status_code == 503
        eventually(lambda: len(digests.jobs) == 1, "the end of the others")
        free.set()


def test_files_that_are_compared_for_long_do_not_take_the_turn_of_packs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "personal" / "a").write_bytes(b"x")
    large, small, free = FileState("a", size=put.LARGE + 1), FileState("b"), FileState("b", size=put.LARGE)
    half = FileState("a", size=put.LARGE // 2 + 1)
    turns = put.Linking(store, "personal", False).turns
    assert turns([small, large]) is turns([half, small, half]) is store.comparing
    assert turns([small, small]) is turns([free, half, free]) is store.linking
    store.close()
