"""The server's data when the disk fails for a while, the root moves, or another program deletes files."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from server.batches import DEADLINE, eventually, file, new_session, progress, upload
from server.packs.packing import recalled, send_pack
from server.tus.tus_client import (
    TUS,
    append,
    concatenate,
    content,
    create,
    created,
    data_of,
    digest_of,
    error,
    file_id,
    head,
    offset_of,
    part,
    terminate,
)
from serving import inside, running_server
from time_limits import SLACK

from uploader_server.auth import issue_token
from uploader_server.options import StartupError
from uploader_server.storage.reading import Reading
from uploader_server.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator


def refusing(monkeypatch: pytest.MonkeyPatch, number: int) -> list[bool]:
    """Have links refused with an error until the list that is returned is emptied."""
    refused, link = [True], os.link

    def linking(source: Any, target: Any, **how: Any) -> None:
        if refused:
            raise OSError(number, os.strerror(number))
        link(source, target, **how)

    monkeypatch.setattr(os, "link", linking)
    return refused


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        (errno.EDQUOT, (507, "DISK_FULL")),
        (errno.EXDEV, (500, "UPLOAD_FAILED")),
        (errno.ENOSPC, (507, "DISK_FULL")),
    ],
)
def test_upload_survives_a_disk_error_at_its_end(
    monkeypatch: pytest.MonkeyPatch, number: int, answer: tuple[int, str]
) -> None:
    with running_server() as server:
        session = new_session(server.url)
        url = created(server.url, 6, b"abc", sessionId=session, filename="kept.bin")
        parts = [part(server.url, b"ab"), part(server.url, b"cd")]
        refused = refusing(monkeypatch, number)
        assert error(append(url, 3, b"def")) == answer
        assert error(concatenate(server.url, *parts, uploadKey="joined")) == answer
        assert progress(server.url, session).json()["failedFiles"] == 0
        refused.clear()
        assert head(url).headers["content-location"] == "/uploads/personal/kept.bin"
        assert content(url) == b"abcdef"
        joined = concatenate(server.url, *parts, uploadKey="joined")
        assert (joined.status_code, joined.headers["upload-offset"]) == (200, "4")
        assert progress(server.url, session).json()["overallStatus"] == "completed"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_root_without_hard_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    refusing(monkeypatch, number)
    with pytest.raises(StartupError, match=r"--root .*: its file system has no hard links"):
        Store(tmp_path)
    assert not any((tmp_path / ".uploader" / "incoming").iterdir())


def test_root_may_be_a_symlink_and_may_be_moved(tmp_path: Path) -> None:
    real, link, moved = tmp_path / "real", tmp_path / "link", tmp_path / "moved"
    real.mkdir()
    link.symlink_to(real)
    with running_server(root=link) as server:
        old = server.url
        url = created(old, 3, b"abc", filename="linked.bin")
        half = created(old, 6, b"abc", filename="half.bin")
        upload(old, file("batch.txt", b"batch"))
        for where in (url, f"{old}/uploads/tus/linked.bin", f"{old}/uploads/personal/batch.txt"):
            assert len(digest_of(where)) == 32
    real.rename(moved)
    with running_server(root=moved) as server:
        assert content(url.replace(old, server.url)) == b"abc"
        assert append(half.replace(old, server.url), 3, b"def").status_code == 204
        assert (moved / "tus" / "half.bin").read_bytes() == b"abcdef"


def test_a_category_that_is_a_link_is_served(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "scenic").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "there.txt").write_bytes(b"there")
    with running_server(root=tmp_path / "root") as server:
        where = f"{server.url}/uploads/scenic/there.txt"
        assert requests.get(where, timeout=DEADLINE).content == b"there"
        assert len(digest_of(where)) == 32


@pytest.mark.thorough
def test_interrupted_join_of_parts_is_finished_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, slow, begun = Reading.blocks, [True], threading.Event()

    def slowly(reading: Reading, path: Path) -> Iterator[memoryview]:
        for block in blocks(reading, path):
            begun.set()
            time.sleep(1.0 if slow else 0)
            yield block

    monkeypatch.setattr(Reading, "blocks", slowly)
    data = os.urandom(48 << 20)
    with running_server(root=tmp_path, durability="none") as server:
        parts = [part(server.url, data), part(server.url, b"end")]
        headers = {**TUS, "Upload-Concat": "final;" + " ".join(parts)}

        answers = []

        def join() -> None:
            with contextlib.suppress(requests.RequestException):
                answers.append(requests.post(f"{server.url}/api/upload/files/", headers=headers, timeout=DEADLINE))

        joining = threading.Thread(target=join)
        joining.start()
        assert begun.wait(DEADLINE)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 2 * SLACK
        joining.join(DEADLINE)
        assert not joining.is_alive()
        assert [answer.status_code for answer in answers if answer.ok] == [], "no success before the end of the join"
        kept = {path.name for path in (tmp_path / ".uploader" / "tus").iterdir()}
        assert kept == {file_id(tmp_path, url) for url in parts}
    slow.clear()
    with running_server(root=tmp_path, durability="none") as server:
        eventually(lambda: (tmp_path / "tus").is_dir() and any((tmp_path / "tus").iterdir()), "the file")
        (joined,) = (tmp_path / "tus").iterdir()
        with contextlib.closing(sqlite3.connect(tmp_path / ".uploader" / "server.sqlite3")) as database:
            (final,) = database.execute("SELECT id FROM tus_uploads WHERE file_id = ?", (joined.name,)).fetchone()
        assert offset_of(f"{server.url}/api/upload/files/{final}") == len(data) + 3
        assert joined.read_bytes() == data + b"end"


def test_session_saved_before_its_last_file_is_settled_at_the_start(tmp_path: Path) -> None:
    """A crash between the two writes leaves a row that is older than the files."""
    with running_server(root=tmp_path) as server:
        session = new_session(server.url, 2)
        upload(server.url, file("1.txt", b"1"), file("2.txt", b"2"), session=session)
    with sqlite3.connect(tmp_path / ".uploader" / "server.sqlite3") as database:
        database.execute("UPDATE sessions SET status = 'pending', progress = 0")
    database.close()
    with running_server(root=tmp_path) as server:
        after = progress(server.url, session).json()
    assert (after["overallStatus"], after["completedFiles"]) == ("completed", 2)


def test_sums_of_a_session_are_those_of_its_files_after_a_restart(tmp_path: Path) -> None:
    """A file that is sent twice counts once, and one that moves to another session counts in both."""
    sums = "SELECT count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed'),"
    sums += " sum(size) FILTER (WHERE status = 'completed') FROM files WHERE session = ?"
    with running_server(packs=True, root=tmp_path) as server:
        session, moved = new_session(server.url, 9), new_session(server.url, 2)
        once = created(server.url, 5, b"moved", filename="m", sessionId=moved, uploadKey="k")
        upload(server.url, file("a", b"one"), file("b", b"two"), session=session)
        for _ in range(2):
            send_pack(server.url, session, {"c": b"three", "d/" + "x" * 300: b"refused"})
        created(server.url, 4, b"four", filename="e", sessionId=session)
        again = create(server.url, 5, b"moved", filename="m", sessionId=session, uploadKey="k")
        assert (again.status_code, again.headers["location"]) == (200, once)
        before = [progress(server.url, one).json() for one in (session, moved)]
        assert [(one["completedFiles"], one["failedFiles"], one["receivedBytes"]) for one in before] == [
            (5, 1, 20),
            (1, 0, 5),
        ]
    database = sqlite3.connect(tmp_path / ".uploader" / "server.sqlite3")
    with contextlib.closing(database), database:
        saved = database.execute("SELECT completed, failed, stored_bytes FROM sessions WHERE id = ?", (session,))
        assert saved.fetchone() == database.execute(sums, (session,)).fetchone() == (5, 1, 20)
        database.execute("UPDATE files SET status = 'failed', size = 99")  # the start does not read these rows
    with running_server(packs=True, root=tmp_path) as server:
        after = [progress(server.url, one).json() for one in (session, moved)]
    for key in ("overallStatus", "completedFiles", "failedFiles", "receivedBytes", "totalFiles"):
        assert [one[key] for one in after] == [one[key] for one in before]


def test_a_root_on_two_file_systems_is_refused(tmp_path: Path) -> None:
    other = Path("/dev/shm") if tmp_path.stat().st_dev != Path("/dev/shm").stat().st_dev else Path("/tmp")
    if other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system")
    (tmp_path / "personal").symlink_to(other)
    with pytest.raises(StartupError, match="personal is on another file system"):
        Store(tmp_path)


def test_sweep_continues_after_an_error(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with running_server(upload_ttl=3.0) as server:
        first, second = created(server.url, 3, b"a"), created(server.url, 3, b"a")
        broken, there = (data_of(server.root, url) for url in (first, second))
        broken.unlink()
        broken.mkdir()  # it can't be removed as a file
        eventually(lambda: not there.exists() and "Removing an upload failed" in caplog.text)
        later = data_of(server.root, created(server.url, 3, b"a"))
        eventually(lambda: not later.exists(), "the next sweep")


def test_digests_of_removed_files_are_deleted() -> None:
    with running_server(session_ttl=3.0) as server:
        upload(server.url, *(file(f"{n}.txt", b"n") for n in range(3)))
        database = inside(server).store.database

        def known() -> int:
            return database.wait(lambda db: int(db.execute("SELECT count(*) FROM digests").fetchone()[0]))

        assert known() == 3
        (server.root / "personal" / "1.txt").unlink()
        eventually(lambda: known() == 2, "the sweep")


def test_no_request_reads_all_rows_of_a_table() -> None:
    """Each statement that the server runs for these requests finds its rows by an index."""
    statements: list[str] = []
    with running_server(packs=True) as server:
        url, database = server.url, inside(server).store.database
        database.wait(lambda db: db.set_trace_callback(statements.append))
        session = new_session(url, 9)
        stored = created(url, 3, b"tus", filename="deleted", uploadKey="one", sessionId=session)
        assert create(url, 3, uploadKey="one", sessionId=session).headers["upload-offset"] == "3"
        half = created(url, 3, b"a", filename="half")
        concatenate(url, part(url, b"ab"), part(url, b"cd"), filename="joined")
        send_pack(url, session, {"pack": b"pack", "other": b"other"}, key="pack")
        assert recalled(url, "pack").status_code == 200
        upload(url, file("batch", b"batch"), session=session)
        wanted = [{"relativePath": "pack", "size": 4}]
        found = requests.post(
            f"{url}/api/upload/lookup", json={"category": "personal", "files": wanted}, timeout=DEADLINE
        )
        assert found.json()["files"][0]["exists"]
        token = {"Authorization": f"Bearer {issue_token(server.config.jwt_secret)}"}
        assert terminate(stored, token).status_code == 204
        assert terminate(half).status_code == 204
        assert requests.post(f"{url}/api/upload/session/{session}/finish", timeout=DEADLINE).status_code == 200
        assert len(progress(url, session).json()["files"]) == 4
        database.wait(lambda db: db.set_trace_callback(None))

        def scans(db: sqlite3.Connection) -> set[tuple[str, str]]:
            plans = {each: db.execute(f"EXPLAIN QUERY PLAN {each}").fetchall() for each in run}
            return {
                (statement, row["detail"])
                for statement, rows in plans.items()
                for row in rows
                if row["detail"].startswith("SCAN") and "VIRTUAL TABLE" not in row["detail"]
            }

        run = {each for each in statements if each.startswith(("SELECT", "UPDATE", "DELETE", "INSERT"))}
        assert any("FROM files WHERE path =" in each for each in run)
        assert database.wait(scans) == set()


def test_ended_session_lists_its_files_from_the_database() -> None:
    with running_server(packs=True) as server:
        session = new_session(server.url, 9)
        created(server.url, 3, b"tus", filename="by tus", sessionId=session)
        send_pack(server.url, session, {"by pack": b"pack"})
        upload(server.url, file("by batch", b"batch"), session=session)
        before = progress(server.url, session).json()
        assert requests.post(f"{server.url}/api/upload/session/{session}/finish", timeout=DEADLINE).status_code == 200
        after = progress(server.url, session).json()
        assert (before["overallStatus"], after["overallStatus"]) == ("uploading", "completed")
        assert after["completedFiles"] == after["totalFiles"] - 6 == 3
        names = [sorted(file["originalName"] for file in answer["files"]) for answer in (before, after)]
        assert names == [["by batch", "by pack", "by tus"]] * 2
        assert inside(server).backend.sessions.known[session].files == {}


def test_thread_that_outlives_its_server_gives_no_file_a_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    data = store.incoming()
    data.write_bytes(b"abc")
    store.close()
    with store.categories.descend("personal") as directory, pytest.raises(OSError, match="The server is stopping"):
        store.link(data, "a", directory)
    assert not (tmp_path / "personal" / "a").exists()
