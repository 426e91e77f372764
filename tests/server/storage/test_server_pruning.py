"""What the sweeps remove: rows that nothing needs, and nothing that a request uses in the meantime."""

from __future__ import annotations

import asyncio
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
from server.batches import DEADLINE, eventually, file, new_session, progress, upload
from server.packs.packing import body_of_pack, half_sent, manifest_of, post_pack, recalled
from server.tus.tus_client import append, create, created, head
from server_clock import ServerClock
from serving import inside, running_server

from uploader_server import sessions
from uploader_server.auth import issue_token
from uploader_server.storage import pruning
from uploader_server.storage.database import Database
from uploader_server.storage.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

SECRET = "s" * 32
TOKEN = {"Authorization": f"Bearer {issue_token(SECRET)}"}
DAY = 24 * 3600.0


def names(server: EmbeddedServer) -> set[str]:
    """Return the names in the rows of files."""
    rows = inside(server).store.database.wait(lambda db: db.execute("SELECT original_name FROM files").fetchall())
    return {row["original_name"] for row in rows}


def delete(server: EmbeddedServer, file_id: str) -> int:
    return requests.delete(f"{server.url}/api/upload/file/{file_id}", headers=TOKEN, timeout=DEADLINE).status_code


@pytest.mark.thorough
def test_rows_of_deleted_files_go_with_their_session_and_the_answer_to_their_pack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = ServerClock(monkeypatch)
    with running_server(packs=True, jwt_secret=SECRET) as server:
        session = new_session(server.url, 99)
        batch = upload(server.url, *(file(f"batch-{n}", f"b{n}".encode()) for n in range(3)), session=session)
        pack = post_pack(server.url, session, {f"pack-{n}": f"p{n}".encode() for n in range(3)}, key="key").json()
        tus = [create(server.url, 1, b"%d" % n, sessionId=session, filename=f"tus-{n}") for n in range(2)]
        tus.append(create(server.url, 1, b"x", filename="tus-alone"))
        ids = [answer.headers["upload-file-id"] for answer in tus]
        (server.root / "personal" / "batch-2").unlink()  # by another program
        gone = [batch[0]["id"], pack["files"][0]["id"], ids[0], ids[2]]
        assert [delete(server, one) for one in gone] == [200] * 4
        clock.wait_for_sweeps()
        kept = {"batch-0", "batch-1", "batch-2", "pack-0", "pack-1", "pack-2", "tus-0", "tus-1"}
        assert names(server) == kept
        assert len(progress(server.url, session).json()["files"]) == 8

        clock.ahead += DAY + 1
        clock.wait_for_sweeps()
        clock.wait_for_sweeps()
        assert names(server) == {"batch-1", "pack-0", "pack-1", "pack-2", "tus-1"}
        answer = recalled(server.url, "key").json()["files"]
        assert [one["id"] for one in answer[1:]] == [one["id"] for one in pack["files"][1:]]

        clock.ahead += 7 * DAY
        clock.wait_for_sweeps()
        clock.wait_for_sweeps()
        assert names(server) == {"batch-1", "pack-1", "pack-2", "tus-1"}
        assert [delete(server, one) for one in (batch[1]["id"], pack["files"][1]["id"], ids[1])] == [200] * 3
        assert [delete(server, one) for one in (batch[1]["id"], pack["files"][1]["id"], *gone)] == [404] * 6
        clock.wait_for_sweeps()
        assert names(server) == {"pack-2"}
        wanted = {"category": "personal", "files": [{"relativePath": "pack-2", "size": 2}]}
        found = requests.post(f"{server.url}/api/upload/lookup", json=wanted, timeout=DEADLINE).json()["files"]
        assert found[0]["sha256"]


def insert_dead(database: Database, count: int) -> None:
    rows = [(str(uuid.uuid4()), "a name " * 40) for _ in range(count)]
    columns = "id, session, position, original_name, size, status, progress, speed"
    statement = f"INSERT INTO files ({columns}) VALUES (?, '', 0, ?, 0, 'completed', 100, 0)"
    database.wait(lambda db: db.executemany(statement, rows))


def test_database_gives_the_pages_of_dead_rows_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerClock(monkeypatch)
    stored = tmp_path / ".uploader" / "server.sqlite3"
    with running_server(root=tmp_path) as server:
        insert_dead(inside(server).store.database, 6000)
        clock.wait_for_sweeps()
        assert names(server) == set()
        clock.wait_for_sweeps()
        clock.wait_for_sweeps()
    assert stored.stat().st_size < 1.5e6


def test_file_stored_during_a_sweep_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep sees that it is missing; it is stored again before its rows are deleted."""
    with running_server(root=tmp_path, packs=True, jwt_secret=SECRET) as server:
        stored = create(server.url, 3, b"abc", filename="a").headers["upload-file-id"]
        post_pack(server.url, new_session(server.url), {"b": b"b"})
        pruner, missing = inside(server).store.pruner, pruning.Pruner.missing
        seen: list[list[str]] = []

        def first_missing(self: pruning.Pruner, paths: Any) -> list[str]:
            seen.append([*paths])
            return missing(self, seen[-1]) if threading.current_thread().name == "uploader-database" else seen[-1]

        monkeypatch.setattr(pruning.Pruner, "missing", first_missing)
        asyncio.run(pruner.run())
        assert seen == [["personal/b", "tus/a"]] * 2 + [["personal/b"]] * 2
        assert delete(server, stored) == 200
        wanted = {"category": "personal", "files": [{"relativePath": "b", "size": 1}]}
        found = requests.post(f"{server.url}/api/upload/lookup", json=wanted, timeout=DEADLINE).json()["files"]
        assert found[0]["sha256"]


# Sweeps and requests at the same time


def test_session_used_while_a_sweep_waits_for_the_disk_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerClock(monkeypatch)
    with running_server() as server:
        first, second = (new_session(server.url, 3) for _ in range(2))
        for session in (first, second):
            upload(server.url, file(session, b"1"), session=session)
        clock.wait_for_sweeps()
        known, busy, free = inside(server).backend.sessions.known, threading.Event(), threading.Event()

        def hold(_: object) -> None:
            busy.set()
            free.wait(DEADLINE)

        threading.Thread(target=inside(server).store.database.wait, args=[hold]).start()
        assert busy.wait(DEADLINE)
        clock.ahead += DAY + 1
        eventually(lambda: first not in known, "the first deletion, which waits")
        before = known[second].touched
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(progress, server.url, second)
            eventually(lambda: known[second].touched > before, "its use")
            free.set()
            assert asked.result().status_code == 200
        clock.wait_for_sweeps()
        assert progress(server.url, second).status_code == 200
        assert progress(server.url, first).status_code == 404


def test_session_of_a_pack_that_has_begun_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerClock(monkeypatch)
    with running_server(packs=True) as server:
        session = new_session(server.url, 2)
        upload(server.url, file("a", b"1"), session=session)
        body = body_of_pack(manifest_of(session, {"b": b"2"}), b"2")
        clock.ahead += 0.9 * DAY
        known = inside(server).backend.sessions.known[session]
        before = known.touched
        late = half_sent(server.url, body, sent=body.index(b'name="data"'))
        eventually(lambda: known.touched > before, "its manifest")
        clock.ahead += 0.9 * DAY
        clock.wait_for_sweeps()
        late.sendall(body[body.index(b'name="data"') :])
        assert late.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert progress(server.url, session).json()["overallStatus"] == "completed"


def test_sessions_beyond_the_limit_lose_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_KNOWN", 4)

    def rows(server: EmbeddedServer) -> list[str]:
        ids = inside(server).store.database.wait(lambda db: db.execute("SELECT id FROM sessions").fetchall())
        return sorted(row["id"] for row in ids)

    with running_server(root=tmp_path, jwt_secret=SECRET) as server:
        still_open = new_session(server.url)
        ended = [new_session(server.url)]
        ids = []
        for number in range(5):
            ids += upload(server.url, file(str(number), b"1"), session=ended[-1])
            ended.append(new_session(server.url))
        assert rows(server) == sorted([still_open, *ended[-3:]])
        assert delete(server, ids[0]["id"]) == 200  # of a session without a row
    monkeypatch.setattr(sessions, "MAX_KNOWN", 3)
    with running_server(root=tmp_path) as server:
        known = inside(server).backend.sessions.known
        assert sorted(known) == rows(server) == sorted([still_open, *ended[-2:]])


def test_upload_that_is_being_stored_does_not_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerClock(monkeypatch)
    with running_server() as server:
        url = created(server.url, 3, b"ab", filename="slow")
        backend, begun, free = inside(server).backend, threading.Event(), threading.Event()
        put = backend.sessions.put  # type: ignore[union-attr]

        async def late(*files: Any, **how: Any) -> None:
            begun.set()
            await asyncio.to_thread(free.wait, DEADLINE)
            await put(*files, **how)

        monkeypatch.setattr(backend.sessions, "put", late)  # type: ignore[union-attr]
        answers: list[int] = []
        storing = threading.Thread(target=lambda: answers.append(append(url, 2, b"c").status_code))
        storing.start()
        assert begun.wait(DEADLINE)
        clock.ahead += server.config.upload_ttl + 1
        clock.wait_for_sweeps()
        free.set()
        storing.join(DEADLINE)
        assert answers == [204]
        assert head(url).status_code == 200


def test_record_of_an_upload_used_during_a_sweep_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep has found it in the database; a repeated creation moves it to another session first."""
    clock = ServerClock(monkeypatch)
    with running_server() as server:
        url = created(server.url, 3, b"abc", filename="a", uploadKey="k" * 22)
        backend = inside(server).backend
        clock.ahead += server.config.upload_ttl + 1
        with monkeypatch.context() as patched:
            real = backend.tus.expire  # type: ignore[union-attr]
            begun: list[str] = []

            async def late(upload_id: str) -> None:
                if not begun:
                    begun.append(upload_id)
                    session = new_session_in_thread(server)
                    again = await asyncio.to_thread(
                        create, server.url, 3, sessionId=await session, filename="a", uploadKey="k" * 22
                    )
                    assert again.status_code == 200
                await real(upload_id)

            patched.setattr(backend.tus, "expire", late)  # type: ignore[union-attr]
            eventually(lambda: begun, "the sweep")
            clock.wait_for_sweeps()
        assert head(url).status_code == 200


async def new_session_in_thread(server: EmbeddedServer) -> str:
    return await asyncio.to_thread(new_session, server.url)


def test_file_below_a_category_that_is_gone_is_not_missing(tmp_path: Path) -> None:
    """The disk to which its symbolic link leads is not mounted."""
    store = Store(tmp_path)
    (tmp_path / "scenic").rmdir()
    (tmp_path / "scenic").symlink_to(tmp_path / "unmounted")
    try:
        assert store.pruner.missing(["personal/a", "scenic/a"]) == ["personal/a"]
    finally:
        store.close()
