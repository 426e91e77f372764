"""The server's database: one thread for all transactions; a failed one is rolled back and affects no other."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from server.batches import DEADLINE, file, new_session, progress, upload
from server.tus.tus_client import (
    ENDPOINT,
    append,
    content,
    create,
    created,
    head,
    metadata,
    offset_of,
)
from serving import inside, running_server, server_process

from uploader_server.app import create_app
from uploader_server.auth import issue_token
from uploader_server.config import ServerConfig
from uploader_server.options import StartupError
from uploader_server.storage.database import VERSION, Database
from uploader_server.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator


def database_of(root: Path) -> Path:
    return root / ".uploader" / "server.sqlite3"


def edit(root: Path, *statements: str) -> None:
    """Change the database from outside, also while a server uses it."""
    with closing(sqlite3.connect(database_of(root), timeout=DEADLINE)) as database, database:
        for statement in statements:
            database.execute(statement)


REFUSE_BAD = (
    "CREATE TRIGGER refuse BEFORE INSERT ON files WHEN NEW.original_name LIKE 'bad%'"
    " BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    (tmp_path / ".uploader").mkdir()
    with closing(Database(database_of(tmp_path))) as database:
        database.wait(lambda db: db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
        yield database


def numbers(database: Database) -> list[int]:
    return database.wait(lambda db: [n for (n,) in db.execute("SELECT n FROM t ORDER BY n")])


def insert(number: int, *then: str) -> Any:
    """An action that inserts a number, and then runs more statements."""

    def action(db: sqlite3.Connection) -> int:
        db.execute("INSERT INTO t VALUES (?)", (number,))
        for statement in then:
            db.execute(statement)
        return number

    return action


@pytest.mark.parametrize("broken", ["no SQL", "INSERT INTO t VALUES (1)", "ROLLBACK"])
def test_a_failed_transaction_is_rolled_back_and_the_next_one_is_kept(
    database: Database, tmp_path: Path, broken: str
) -> None:
    database.wait(insert(1))
    with pytest.raises(sqlite3.Error):
        database.wait(insert(2, broken))
    database.wait(insert(3))
    with closing(sqlite3.connect(database_of(tmp_path))) as other:
        assert other.execute("SELECT n FROM t ORDER BY n").fetchall() == [(1,), (3,)]


def test_queued_writes_share_a_commit_and_fail_separately(database: Database) -> None:
    statements: list[str] = []
    free = threading.Event()
    blocker = database.submit(lambda db: free.wait(DEADLINE), writes=False)
    database.submit(lambda db: db.set_trace_callback(statements.append), writes=False)
    waiting = [database.submit(insert(n), writes=True) for n in range(5)]
    free.set()
    assert [one.result(DEADLINE) for one in waiting] == [0, 1, 2, 3, 4]
    assert blocker.result(DEADLINE)
    assert sum(statement == "COMMIT" for statement in statements) == 1

    free.clear()
    database.submit(lambda db: free.wait(DEADLINE), writes=False)
    waiting = [database.submit(insert(n, *then), writes=True) for n, then in ((5, ()), (6, ("no SQL",)), (7, ()))]
    free.set()
    assert isinstance(waiting[1].exception(DEADLINE), sqlite3.OperationalError)
    assert [waiting[0].result(DEADLINE), waiting[2].result(DEADLINE)] == [5, 7]
    assert numbers(database) == [0, 1, 2, 3, 4, 5, 7]


def test_no_cursor_leaves_the_thread_of_the_database(database: Database, tmp_path: Path) -> None:
    """Freed by another thread, a cursor resets a statement that is running: "bad parameter or other API misuse"."""
    assert database.wait(lambda db: db.execute("INSERT INTO t VALUES (7)")) is None
    store = Store(tmp_path / "root")
    freed: list[str] = []

    class Watched(sqlite3.Cursor):
        def __del__(self) -> None:
            freed.append(threading.current_thread().name)

    def change(db: sqlite3.Connection) -> sqlite3.Cursor:
        return db.cursor(Watched).execute("SELECT 1")

    asyncio.run(store.save(change, change))
    store.close()
    assert freed == ["uploader-database"] * 2


def test_close_finishes_queued_writes(tmp_path: Path) -> None:
    (tmp_path / ".uploader").mkdir()
    database = Database(database_of(tmp_path))
    database.submit(lambda db: db.execute("CREATE TABLE t (n INTEGER)"), writes=True)
    last = database.submit(insert(1), writes=True)
    database.close()
    assert last.result(0) == 1
    with pytest.raises(sqlite3.ProgrammingError):
        database.wait(insert(2))


def test_an_upload_that_can_not_be_recorded_fails_and_later_ones_survive_a_restart(tmp_path: Path) -> None:
    """No client gets a success before the database has the record."""
    with running_server(packs=True, root=tmp_path) as server:
        edit(tmp_path, REFUSE_BAD)
        old, session = server.url, new_session(server.url, 3)
        refused = create(old, 3, b"bad", sessionId=session, filename="bad.txt", uploadKey="bad")
        assert (refused.status_code, refused.json()["error"]) == (500, "UPLOAD_FAILED")
        good = created(old, 4, b"good", sessionId=session, filename="good.txt")
        (batch,) = upload(old, file("batch.txt", b"batch"), session=session)
        edit(tmp_path, "DROP TRIGGER refuse")
    with running_server(packs=True, root=tmp_path) as server:
        assert content(good.replace(old, server.url)) == b"good"
        known = progress(server.url, session).json()
        assert {f["originalName"]: f["status"] for f in known["files"]}["batch.txt"] == "completed"
        assert batch["id"] in {f["id"] for f in known["files"]}
        again = create(server.url, 3, sessionId=session, filename="bad.txt", uploadKey="bad")
        assert (again.status_code, again.headers["upload-offset"]) == (200, "3")
        assert (tmp_path / "personal" / "bad.txt").read_bytes() == b"bad"
        known = progress(server.url, session).json()
        assert (known["completedFiles"], known["overallStatus"]) == (3, "completed")


def test_a_failed_record_counts_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    """File row, upload row and session row are one transaction."""
    with running_server(packs=True, root=tmp_path) as server:
        edit(tmp_path, REFUSE_BAD)
        session = new_session(server.url, 1)
        assert create(server.url, 3, b"bad", sessionId=session, filename="bad.txt", uploadKey="b").status_code == 500
        assert progress(server.url, session).json()["completedFiles"] == 0
        edit(tmp_path, "DROP TRIGGER refuse")
        assert create(server.url, 3, sessionId=session, filename="bad.txt", uploadKey="b").status_code == 200
        known = progress(server.url, session).json()
        assert (known["completedFiles"], known["overallStatus"]) == (1, "completed")
        assert [path.name for path in (tmp_path / "personal").iterdir()] == ["bad.txt"]


def test_other_requests_are_answered_while_the_database_is_busy() -> None:
    free = threading.Event()
    with running_server(packs=True) as server:
        session, upload = new_session(server.url), created(server.url, 6, b"abc")
        try:
            inside(server).store.database.submit(lambda db: free.wait(DEADLINE), writes=False)
            creating = threading.Thread(target=create, args=(server.url, 3, b"abc"))
            creating.start()
            assert requests.get(f"{server.url}/health", timeout=DEADLINE).status_code == 200
            assert progress(server.url, session).json()["overallStatus"] == "pending"
            assert offset_of(upload) == 3
            assert creating.is_alive()
        finally:
            free.set()
        creating.join(DEADLINE)
        assert not creating.is_alive()


def test_two_creations_with_one_key_at_once_make_one_upload() -> None:
    free = threading.Event()
    with running_server(packs=True) as server:
        database = inside(server).store.database
        database.submit(lambda db: free.wait(DEADLINE), writes=False)
        answers: list[requests.Response] = []
        threads = [
            threading.Thread(target=lambda: answers.append(create(server.url, 3, uploadKey="one"))) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        free.set()
        for thread in threads:
            thread.join(DEADLINE)
        assert sorted(answer.status_code for answer in answers) == [200, 201]
        assert len({answer.headers["location"] for answer in answers}) == 1


@pytest.mark.parametrize("version", [5, VERSION + 1])
def test_a_database_of_an_unknown_version_is_refused(tmp_path: Path, version: int) -> None:
    Store(tmp_path).close()
    edit(tmp_path, f"PRAGMA user_version = {version}")
    with pytest.raises(StartupError, match=f"has version {version}"):
        Store(tmp_path)


RELEASED = """
CREATE TABLE sessions (
  id TEXT PRIMARY KEY, category TEXT NOT NULL, expected INTEGER NOT NULL, status TEXT NOT NULL,
  progress INTEGER NOT NULL, created TEXT NOT NULL, touched REAL NOT NULL, given_up INTEGER NOT NULL DEFAULT 0,
  owner TEXT NOT NULL DEFAULT '', secret BLOB NOT NULL DEFAULT x'', holder TEXT NOT NULL DEFAULT '',
  expected_bytes INTEGER NOT NULL DEFAULT 0, finished TEXT NOT NULL DEFAULT ''
);
CREATE TABLE files (
  id TEXT PRIMARY KEY, session TEXT NOT NULL, position INTEGER NOT NULL, original_name TEXT NOT NULL,
  relative_path TEXT, size INTEGER NOT NULL, status TEXT NOT NULL, progress INTEGER NOT NULL, speed REAL NOT NULL,
  path TEXT, error TEXT, error_code TEXT, sha256 BLOB, packed INTEGER
);
CREATE TABLE digests (
  path TEXT PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL, sha256 BLOB NOT NULL
);
CREATE TABLE tus_uploads (
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, upload_key TEXT, session TEXT NOT NULL, category TEXT NOT NULL,
  metadata TEXT, concat TEXT, length INTEGER, status TEXT NOT NULL, touched REAL NOT NULL, counted INTEGER,
  path TEXT, sha256 BLOB NOT NULL, data TEXT, file_id TEXT, holder TEXT NOT NULL DEFAULT '', completes INTEGER
);
CREATE UNIQUE INDEX tus_uploads_of_file ON tus_uploads (file_id);
CREATE UNIQUE INDEX tus_upload_keys ON tus_uploads (owner, upload_key);
CREATE TABLE packs (
  owner TEXT NOT NULL, key TEXT NOT NULL, manifest BLOB NOT NULL, session TEXT NOT NULL,
  first TEXT NOT NULL, last TEXT NOT NULL, touched REAL NOT NULL, PRIMARY KEY (owner, key)
);
CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), now REAL NOT NULL);
PRAGMA user_version = 6;
"""
"""The tables as the server of 1.0.0rc1 made them."""


def test_uploads_and_session_of_the_released_version_continue(tmp_path: Path) -> None:
    """Of two uploads with one path, the first one owns the file: the other one's deletion leaves it."""
    session, half, twice, stored, secret = (str(uuid.uuid4()) for _ in range(5))
    (tmp_path / ".uploader" / "tus").mkdir(parents=True)
    (tmp_path / "personal").mkdir()
    (tmp_path / ".uploader" / "tus" / half).write_bytes(b"abc")
    (tmp_path / "personal" / "stored.txt").write_bytes(b"stored")
    now = time.time()
    fields = metadata(filename="half.txt", sessionId=session, uploadKey="k")
    with closing(sqlite3.connect(database_of(tmp_path))) as database, database:
        database.executescript(RELEASED)
        row: tuple[object, ...] = (
            session,
            "personal",
            3,
            "uploading",
            50,
            "2026-11-01T00:00:00.000Z",
            now,
            0,
            "",
            b"",
            "",
            0,
            "",
        )
        database.execute(f"INSERT INTO sessions VALUES ({', '.join('?' * 13)})", row)
        for position, known in enumerate((stored, twice)):
            row = (known, session, position, "stored.txt", None, 6, "completed", 100, 0.0, "personal/stored.txt")
            database.execute(f"INSERT INTO files VALUES ({', '.join('?' * 14)})", (*row, None, None, None, None))
        row = (secret, "", "k", session, "personal", fields, None, 6, "open", now, 3, None, b"", half, half, "", None)
        database.execute(f"INSERT INTO tus_uploads VALUES ({', '.join('?' * 17)})", row)
    with running_server(root=tmp_path) as server:
        known = progress(server.url, session).json()
        assert (known["completedFiles"], known["overallStatus"]) == (2, "uploading")
        again = create(server.url, 6, filename="half.txt", sessionId=session, uploadKey="k")
        assert (again.status_code, again.headers["location"]) == (200, server.url + ENDPOINT + secret)
        assert append(server.url + ENDPOINT + secret, 3, b"def").status_code == 204
        assert content(server.url + ENDPOINT + secret) == b"abcdef"
        assert progress(server.url, session).json()["overallStatus"] == "completed"
        token = {"Authorization": f"Bearer {issue_token(server.config.jwt_secret)}"}
        for public, left in ((twice, True), (stored, False)):
            assert requests.delete(f"{server.url}/api/upload/file/{public}", headers=token, timeout=DEADLINE).ok
            assert (tmp_path / "personal/stored.txt").exists() is left


def test_root_with_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    """Uploads of both kinds arrive, are shown, and are still known after a restart."""
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    with server_process("--root", str(root), "--access-log", "-") as server:
        old, session = server.url, new_session(server.url, 2)
        resumable = created(old, 3, b"abc", sessionId=session, filename="tus.txt", uploadKey="key")
        (sent,) = upload(old, file("batch.txt", b"batch"), session=session)
        assert sent["status"] == "completed"
        assert content(resumable) == b"abc"
        stored = requests.get(f"{old}/uploads/personal/batch.txt", timeout=DEADLINE)
        assert (stored.status_code, stored.content) == (200, b"batch")
        assert "repr-digest" in requests.head(f"{old}/uploads/personal/batch.txt", timeout=DEADLINE).headers
        assert server.stop() == 0
        assert "Traceback" not in server.errors
    with server_process("--root", str(root)) as server:
        assert progress(server.url, session).json()["completedFiles"] == 2
        known = head(resumable.replace(old, server.url))
        assert known.headers["content-location"] == "/uploads/personal/tus.txt"
    assert (root / "personal" / "tus.txt").read_bytes() == b"abc"


@pytest.mark.parametrize("start", [0, 4096])
def test_damaged_database_is_named(start: int, tmp_path: Path) -> None:
    """Its header, or a page that is read after the start of the database."""
    with running_server(root=tmp_path) as server:
        new_session(server.url)
    path = tmp_path / ".uploader" / "server.sqlite3"
    data = path.read_bytes()
    path.write_bytes(data[:start] + b"damaged!" * ((len(data) - start) // 8))
    with pytest.raises(StartupError, match="its database is damaged"):
        create_app(ServerConfig(root=tmp_path))
