"""A full disk: every call that can't be recorded gets 507, and what frees space works."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any

import pytest
import requests
from command import ended, read_until, start
from server.batches import DEADLINE, file, new_session, post_parts, progress, text, upload
from server.packs.packing import post_pack
from server.tus.tus_client import append, create, created, error, head, offset_of, part, terminate
from serving import running_server

from uploader_server.auth import issue_token
from uploader_server.storage import database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

FULL = (507, "DISK_FULL")


class Disk:
    """The disk of a server's database: while it is `full`, no commit succeeds before the reserve is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int = sqlite3.SQLITE_FULL) -> None:
        self.full = self.without_reserve = False
        together = database.run_together

        def refuse(connection: sqlite3.Connection) -> None:
            (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
            if self.full and (self.without_reserve or os.path.exists(os.path.dirname(path) + "/server.reserve")):
                refusal = sqlite3.OperationalError("refused by the test")
                refusal.sqlite_errorcode = code
                raise refusal

        def refusing(connection: sqlite3.Connection, actions: list[Any], *, writes: bool) -> list[Any]:
            return together(connection, [*actions, refuse] if writes else actions, writes=writes)[: len(actions)]

        monkeypatch.setattr(database, "run_together", refusing)


def answers(server: EmbeddedServer, session: str, upload_url: str) -> dict[str, tuple[int, str]]:
    """Make each call that must be recorded; return status and code of the answers."""
    body = [text("sessionId", session), text("category", "personal"), file("b.bin", b"batch")]
    known = f"{server.url}/api/upload/session"
    new = {"category": "personal", "expectedFiles": 1}
    return {
        "session": error(requests.post(known, json=new, timeout=DEADLINE)),
        "creation": error(create(server.url, 9, b"abc", sessionId=session)),
        "empty creation": error(create(server.url, 9, sessionId=session)),
        "whole file": error(create(server.url, 3, b"abc", sessionId=session)),
        "part": error(create(server.url, 3, b"abc", headers={"Upload-Concat": "partial"})),
        "PATCH": error(append(upload_url, 0, b"abc")),
        "batch": error(post_parts(server.url, body)),
        "pack": error(post_pack(server.url, session, {"p.bin": b"pack"})),
        "finish": error(requests.post(f"{known}/{session}/finish", timeout=DEADLINE)),
    }


@pytest.mark.parametrize(
    ("code", "refusal", "expected"),
    [
        (sqlite3.SQLITE_FULL, None, FULL),
        (sqlite3.SQLITE_IOERR_WRITE, errno.EDQUOT, FULL),
        (sqlite3.SQLITE_IOERR_SHMSIZE, errno.ENOSPC, FULL),
        (sqlite3.SQLITE_CANTOPEN, errno.ENOSPC, FULL),
        (sqlite3.SQLITE_IOERR_WRITE, None, (500, "UPLOAD_FAILED")),
        (sqlite3.SQLITE_IOERR_WRITE, errno.EIO, (500, "UPLOAD_FAILED")),
    ],
)
def test_full_disk_of_the_database_is_507_for_every_call(
    monkeypatch: pytest.MonkeyPatch, code: int, refusal: int | None, expected: tuple[int, str]
) -> None:
    """`refusal` is the error of the system for a small file at that time: SQLite says only "disk I/O error"."""
    full = Disk(monkeypatch, code)
    with running_server(packs=True, durability="fsync") as server:
        session, url = new_session(server.url, 9), created(server.url, 9)
        full.full = True
        with monkeypatch.context() as patched:
            if refusal is not None:

                def refused(**_: object) -> None:
                    raise OSError(refusal, os.strerror(refusal))

                patched.setattr(tempfile, "TemporaryFile", refused)
            got = answers(server, session, url)
        assert got == dict.fromkeys(got, expected)
        full.full = False
        assert append(url, offset_of(url), b"abc").status_code == 204


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("step", ["link", "mkdir", "write"])
def test_file_without_space_is_a_507_of_its_request(monkeypatch: pytest.MonkeyPatch, step: str, number: int) -> None:
    """Not a failed file in a 200: the client would use up its retries, or give the file up."""
    full = [True]

    def refuse(real: Callable[..., Any]) -> Callable[..., Any]:
        def refusing(*args: Any, **how: Any) -> Any:
            if full:
                raise OSError(number, os.strerror(number))
            return real(*args, **how)

        return refusing

    with running_server(packs=True) as server:
        session = new_session(server.url, 2)
        body = [text("sessionId", session), text("category", "personal"), text("relativePath", "b/b"), file("b", b"b")]
        if step == "write":
            monkeypatch.setattr(os, "write", refuse(os.write))
            monkeypatch.setattr(os, "pwritev", refuse(os.pwritev))
        else:
            monkeypatch.setattr(os, step, refuse(getattr(os, step)))
        for _ in range(2):
            assert error(post_pack(server.url, session, {"p/p": b"pack"}, key="key")) == FULL
            assert error(post_parts(server.url, body)) == FULL
        assert list((server.root / ".uploader" / "incoming").iterdir()) == []
        full.clear()
        assert post_pack(server.url, session, {"p/p": b"pack"}, key="key").json()["files"][0]["status"] == "stored"
        assert post_parts(server.url, body).json()["files"][0]["status"] == "completed"
        known = progress(server.url, session).json()
        assert (known["overallStatus"], known["completedFiles"], known["failedFiles"]) == ("completed", 2, 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 8 MiB."""
    there = tmp_path / "small"
    there.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", there], check=False, capture_output=True
    ).returncode:
        pytest.skip("mounting needs root")
    yield there
    subprocess.run(["umount", "-l", there], check=True)


def fill(there: Path) -> None:
    """Use all space that is left."""
    with (there / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(1 << 12)):
            pass


def free(there: Path) -> int:
    """Return the bytes that are left."""
    status = os.statvfs(there)
    return status.f_bavail * status.f_frsize


@pytest.mark.parametrize("durability", ["fsync", pytest.param("none", marks=pytest.mark.thorough)])
def test_deletions_free_space_on_a_full_disk(small_disk: Path, durability: str) -> None:
    secret = "s" * 32
    token = {"Authorization": f"Bearer {issue_token(secret)}"}
    config = {"root": small_disk, "durability": durability, "jwt_secret": secret, "packs": True}
    with running_server(**config) as server:
        old, session = server.url, new_session(server.url, 20)
        batch, other = upload(old, *(file(name, bytes(500_000)) for name in ("a", "b")), session=session)
        stored = created(old, 500_000, bytes(500_000), sessionId=session, filename="stored")
        begun = [created(old, 600_000, bytes(500_000)) for _ in range(3)]
        tiny = [one["id"] for one in upload(old, *(file(str(n), str(n).encode()) for n in range(30)))]
        fill(small_disk)
        for _ in range(100):
            last = create(old, 9)
            if last.status_code != 201:
                break
        assert error(last) == FULL
        assert error(post_pack(old, session, {"p": b"pack"})) == FULL
        for url in (f"{old}/api/upload/file/{batch['id']}", stored, begun[0]):
            before = free(small_disk)
            answer = terminate(url, token)
            assert answer.status_code in {200, 204}, answer.text
            assert free(small_disk) >= before + 400_000
            fill(small_disk)
        assert requests.post(f"{old}/api/upload/cancel/{session}", timeout=DEADLINE).status_code == 200
        fill(small_disk)
        for one in tiny:
            assert requests.delete(f"{old}/api/upload/file/{one}", headers=token, timeout=DEADLINE).status_code == 200
            fill(small_disk)
    fill(small_disk)
    with running_server(**config) as server:  # it can be started to delete files
        answer = requests.delete(f"{server.url}/api/upload/file/{other['id']}", headers=token, timeout=DEADLINE)
        assert answer.status_code == 200
        assert terminate(begun[1].replace(old, server.url)).status_code == 204
        assert head(begun[0].replace(old, server.url)).status_code == 410
        session = new_session(server.url)
        assert progress(server.url, session).json()["overallStatus"] == "pending"


def test_deletion_that_can_not_be_recorded_frees_the_space_and_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "s" * 32
    token = {"Authorization": f"Bearer {issue_token(secret)}"}
    full = Disk(monkeypatch)
    with running_server(jwt_secret=secret) as server:
        session = new_session(server.url, 9)
        (stored,) = upload(server.url, file("stored", b"1"), session=session)
        finished = created(server.url, 1, b"1", sessionId=session, filename="finished")
        begun, piece = created(server.url, 3, b"1"), part(server.url, b"1")
        calls = [f"{server.url}/api/upload/file/{stored['id']}", finished, begun, piece]
        full.full = full.without_reserve = True
        assert [error(terminate(url, token)) for url in calls] == [FULL] * 4
        left = [
            path for path in server.root.rglob("*") if path.is_file() and not path.name.startswith(("lock", "server."))
        ]
        assert left == []
        full.full = False
        assert {terminate(url, token).status_code for url in calls} <= {200, 204, 410}
        assert terminate(calls[0], token).status_code == 404


@pytest.mark.thorough
@pytest.mark.parametrize("since", ["session.created", "run.started"])
def test_client_waits_until_a_full_disk_has_space(
    monkeypatch: pytest.MonkeyPatch, make_files: Callable[..., Path], tmp_path: Path, since: str
) -> None:
    """No retry is used up: there is none."""
    full = Disk(monkeypatch)
    with running_server(packs=True, durability="fsync") as server:
        make_files(**{f"{n}.mp4": 6_000_000 for n in range(2)}, **{f"small-{n}.mp4": 10 for n in range(20)})
        options = ("--retries", "0", "--limit-rate", "20M", "--json")
        full.full = since == "run.started"
        process = start("upload", "files", "-s", server.url, *options, home=tmp_path)
        seen = read_until(process, since)
        full.full = True
        seen += read_until(process, "warning", lambda event: event["code"] == "disk_full")
        full.full = False
        done = ended(process, seen)
    assert (done.code, done.finished["completed"], done.of("file.failed")) == (0, 22, [])
