"""kill -9 and a restart on the same root, at each step of an upload; and expiry."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest
import requests
from server.batches import eventually, new_session, progress
from server.tus.tus_client import (
    DEADLINE,
    append,
    checksum,
    concatenate,
    content,
    create,
    created,
    data_of,
    error,
    head,
    offset_of,
    part,
    patching,
)
from server_clock import ServerClock
from serving import inside, running_server, server_process

if TYPE_CHECKING:
    from pathlib import Path


def moved(upload: str, before: str, now: str) -> str:
    """The URL of an upload at the server that came after."""
    return upload.replace(before, now)


PARTIAL = {"Upload-Concat": "partial"}


@pytest.mark.parametrize(
    ("durability", "least"), [("none", 2_000_000), pytest.param("fsync", 1_500_000, marks=pytest.mark.thorough)]
)
def test_killed_server_restarts_with_every_confirmed_byte(tmp_path: Path, durability: str, least: int) -> None:
    data = os.urandom(5_000_000)
    options = ("--root", str(tmp_path), "--durability", durability)
    with server_process(*options) as server:
        old, session = server.url, new_session(server.url, 2)
        told = created(old, len(data), sessionId=session, filename="told.bin", uploadKey="told")
        assert append(told, 0, data[:1_500_000]).headers["upload-offset"] == "1500000"
        checked = created(old, len(data), filename="checked.bin")
        assert append(checked, 0, data[:100_000], checksum(data[:100_000])).status_code == 204
        late = created(old, None, data[:10], filename="late.bin")
        finished = created(old, 3, b"abc", sessionId=session, filename="finished.txt", uploadKey="finished")
        half, whole = part(old, b"ab"), part(old, b"cd")
        with (
            patching(told, 1_500_000, len(data) - 1_500_000) as plain,
            patching(checked, 100_000, len(data) - 100_000, checksum(data[100_000:])) as careful,
        ):
            plain.send(data[1_500_000:4_000_000])
            careful.send(data[100_000:4_000_000])
            eventually(lambda: data_of(tmp_path, told).stat().st_size > 2_000_000)
            eventually(lambda: data_of(tmp_path, checked).stat().st_size > 1_000_000)
            server.kill()
    with server_process(*options) as server:
        urls = [moved(upload, old, server.url) for upload in (told, checked, late, finished, half, whole)]
        told, checked, late, finished, half, whole = urls
        assert least <= offset_of(told) <= 4_000_000  # more than was confirmed, and all of it right, see below
        assert offset_of(checked) == 100_000
        assert head(late).headers["upload-defer-length"] == "1"
        assert (offset_of(finished), content(finished)) == (3, b"abc")
        known = progress(server.url, session).json()
        assert sorted(f["status"] for f in known["files"]) == ["completed", "uploading"]
        assert known["completedFiles"] == 1
        for key, upload in (("told", told), ("finished", finished)):
            again = create(server.url, len(data), uploadKey=key, sessionId=session)
            assert (again.status_code, urljoin(server.url, again.headers["location"])) == (200, upload)
        for upload in (told, checked, late):
            offset = offset_of(upload)
            length = {"Upload-Length": str(len(data))}
            answer = append(upload, offset, data[offset:], {**checksum(data[offset:]), **length})
            assert answer.status_code == 204, answer.text
            assert content(upload) == data
        final = concatenate(server.url, half, whole)
        assert content(urljoin(server.url, final.headers["location"])) == b"abcd"
        assert progress(server.url, session).json()["overallStatus"] == "completed"
        assert not list((tmp_path / ".uploader" / "tus").iterdir())


def edit(root: Path, statement: str, *values: object) -> None:
    """Put the database into the state that a crash between two steps leaves."""
    with sqlite3.connect(root / ".uploader" / "server.sqlite3") as database:
        database.execute(statement, values)
    database.close()


def test_complete_upload_is_finished_at_restart(tmp_path: Path) -> None:
    """The server is killed after the last byte: the next one finishes the file."""
    with running_server(root=tmp_path, durability="none") as server:
        old, session = server.url, new_session(server.url)
        upload = created(old, 6, b"abc", sessionId=session, filename="last byte.txt")
    with data_of(tmp_path, upload).open("ab") as file:
        file.write(b"def")
    with running_server(root=tmp_path, durability="none") as server:
        eventually(lambda: progress(server.url, session).json()["overallStatus"] == "completed")
        assert (tmp_path / "personal" / "last byte.txt").read_bytes() == b"abcdef"
        assert content(moved(upload, old, server.url)) == b"abcdef"


def test_stored_file_without_a_record_is_not_stored_twice(tmp_path: Path) -> None:
    """The file has its name but no row: it is not stored twice."""
    with running_server(root=tmp_path, durability="none") as server:
        old, session = server.url, new_session(server.url)
        upload = created(old, 3, b"ab", sessionId=session, filename="stored.txt")
    with data_of(tmp_path, upload).open("ab") as file:
        file.write(b"c")
    os.link(data_of(tmp_path, upload), tmp_path / "personal" / "stored.txt")
    with running_server(root=tmp_path, durability="none") as server:
        assert head(moved(upload, old, server.url)).headers["content-location"] == "/uploads/personal/stored.txt"
        assert [path.name for path in (tmp_path / "personal").iterdir()] == ["stored.txt"]
        assert progress(server.url, session).json()["completedFiles"] == 1


@pytest.mark.thorough
@pytest.mark.parametrize("durability", ["none", "fsync"])
@pytest.mark.parametrize("careful", [True, False], ids=["checksum", "plain"])
def test_linked_files_that_were_not_recorded_are_never_cut_or_replaced(
    tmp_path: Path, durability: str, careful: bool
) -> None:
    """The database refuses once; another client is told that the same bytes are stored; the server restarts."""
    data = os.urandom(300_000)
    headers = checksum(data[100:]) if careful else {}
    place = {"finalKey": "in place", "finalLength": str(len(data))}
    names = ("plain.bin", "joined.bin", "in place.bin")

    def stored() -> list[tuple[str, bool]]:
        return sorted((path.name, path.read_bytes() == data) for path in (tmp_path / "personal").iterdir())

    with running_server(root=tmp_path, durability=durability) as server:
        old, session = server.url, new_session(server.url, 6)
        plain = created(old, len(data), data[:100], filename=names[0], sessionId=session)
        parts = [part(old, data[:100]), part(old, data[100:])]
        first = part(old, data[:100], partOffset="0", sessionId=session, **place)
        made = create(old, len(data) - 100, headers=PARTIAL, partOffset="100", sessionId=session, **place)
        rest = urljoin(old, made.headers["location"])
        assert append(rest, 0, data[100:], headers).status_code == 204
        refuse = "CREATE TRIGGER refuse BEFORE INSERT ON files BEGIN SELECT RAISE(ABORT, 'by the test'); END"
        database = inside(server).store.database
        database.wait(lambda db: db.execute(refuse))
        finals = [
            ((first, rest), {"uploadKey": "in place", "filename": "in place.bin", "sessionId": session}),
            (parts, {"uploadKey": "joined", "filename": "joined.bin", "sessionId": session}),
        ]
        assert append(plain, 100, data[100:], headers).status_code == 500
        assert [concatenate(old, *joined, **fields).status_code for joined, fields in finals] == [500, 500]
        shown = progress(old, session).json()
        assert (shown["completedFiles"], {file["status"] for file in shown["files"]}) == (0, {"uploading"})
        database.wait(lambda db: db.execute("DROP TRIGGER refuse"))
        for name in names:
            other = created(old, len(data), data, filename=name, sessionId=session)
            assert content(other) == data
        assert stored() == sorted((name, True) for name in names)
    with running_server(root=tmp_path, durability=durability) as server:
        assert stored() == sorted((name, True) for name in names)
        again = [concatenate(server.url, *joined, **fields) for joined, fields in finals]
        uploads = [
            moved(plain, old, server.url),
            *(urljoin(server.url, answer.headers["location"]) for answer in again),
        ]
        for upload in uploads:
            assert content(upload) == data
            assert append(upload, 100, os.urandom(len(data) - 100)).status_code in {403, 409}
            assert append(upload, len(data), b"x").status_code in {403, 413}
        assert stored() == sorted((name, True) for name in names)
        assert progress(server.url, session).json()["overallStatus"] == "completed"
        assert not list((tmp_path / ".uploader" / "tus").iterdir())


def test_linked_file_that_was_moved_is_not_cut_at_restart(tmp_path: Path) -> None:
    """The data file has a second name elsewhere, for example in a backup with hard links."""
    with running_server(root=tmp_path) as server:
        old = server.url
        upload = created(old, 6, b"abcd", filename="kept.bin")
    os.link(data_of(tmp_path, upload), tmp_path / "backup.bin")
    edit(tmp_path, "UPDATE tus_uploads SET counted = 2")
    with running_server(root=tmp_path) as server:
        assert (tmp_path / "backup.bin").read_bytes() == b"abcd"
        upload = moved(upload, old, server.url)
        assert offset_of(upload) == 2
        assert append(upload, 2, b"CDEF").status_code == 204
        assert content(upload) == b"abCDEF"
    assert (tmp_path / "backup.bin").read_bytes() == b"abcd"


def test_interrupted_concatenation_is_repeated(tmp_path: Path) -> None:
    with running_server(root=tmp_path) as server:
        old = server.url
        parts = [part(old, b"ab"), part(old, b"cd")]
        kept = [data_of(tmp_path, url).read_bytes() for url in parts]
        final = urljoin(old, concatenate(old, *parts, filename="joined.txt").headers["location"])
    edit(tmp_path, "UPDATE tus_uploads SET status = 'open', path = NULL WHERE concat LIKE 'final%'")
    edit(tmp_path, "UPDATE tus_uploads SET status = 'finished' WHERE concat = 'partial'")
    edit(tmp_path, "DELETE FROM files")
    (tmp_path / "tus" / "joined.txt").unlink()
    data_of(tmp_path, final).write_bytes(b"a")
    for url, data in zip(parts, kept, strict=True):
        data_of(tmp_path, url).write_bytes(data)
    with running_server(root=tmp_path) as server:
        assert offset_of(moved(final, old, server.url)) == 4
        assert content(moved(final, old, server.url)) == b"abcd"


def test_bytes_without_a_checked_checksum_are_truncated_at_restart(tmp_path: Path) -> None:
    with running_server(root=tmp_path) as server:
        old = server.url
        upload = created(old, 6, b"abc")
    edit(tmp_path, "UPDATE tus_uploads SET counted = 2")
    with running_server(root=tmp_path) as server:
        assert offset_of(moved(upload, old, server.url)) == 2
        assert append(moved(upload, old, server.url), 2, b"cdef").status_code == 204
        assert content(moved(upload, old, server.url)) == b"abcdef"


def test_lost_data_file_resets_the_offset_to_0(tmp_path: Path) -> None:
    """The offset is never beyond the stored bytes."""
    with running_server(root=tmp_path) as server:
        old = server.url
        upload = created(old, 3, b"ab")
    data_of(tmp_path, upload).unlink()
    (tmp_path / ".uploader" / "tus" / "stray").write_bytes(b"of no upload")
    with running_server(root=tmp_path) as server:
        assert offset_of(moved(upload, old, server.url)) == 0
        assert not (tmp_path / ".uploader" / "tus" / "stray").exists()


def test_deleted_upload_stays_gone_after_a_restart(tmp_path: Path) -> None:
    with running_server(root=tmp_path) as server:
        old, session = server.url, new_session(server.url)
        upload = created(old, 3, b"ab", sessionId=session)
        requests.post(f"{old}/api/upload/cancel/{session}", timeout=DEADLINE)
    with running_server(root=tmp_path) as server:
        assert error(append(moved(upload, old, server.url), 2, b"c")) == (410, "CANCELLED")


# expiration


def test_expired_upload_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerClock(monkeypatch)
    with running_server(upload_ttl=3600.0) as server:
        session = new_session(server.url)
        upload = created(server.url, 3, b"ab", sessionId=session)
        finished = created(server.url, 3, b"abc", filename="stays.txt")
        pieces = part(server.url, b"ab")
        clock.wait_for_sweeps()
        referred_to = [*inside(server).backend.tus.known.values()]  # as by an error until the garbage collection
        assert head(upload).status_code == head(pieces).status_code == 200
        clock.ahead += server.config.upload_ttl + 1
        eventually(lambda: not list((server.root / ".uploader" / "tus").iterdir()), "the sweep")
        clock.wait_for_sweeps()  # the first one has noted when they expired
        assert head(upload).status_code == head(pieces).status_code == 410
        assert append(upload, 2, b"c").status_code == 410
        assert progress(server.url, session).json()["files"] == []
        clock.ahead += server.config.upload_ttl + 1
        eventually(lambda: head(finished).status_code == 404, "the upload to be forgotten")
        assert (server.root / "tus" / "stays.txt").read_bytes() == b"abc"
        assert referred_to
        eventually(lambda: head(upload).status_code == 404, "the expired upload to be forgotten")


def test_an_expired_upload_is_gone_before_any_sweep(tmp_path: Path) -> None:
    with running_server(root=tmp_path) as server:
        old = server.url
        upload = created(old, 3, b"ab")
    edit(tmp_path, "UPDATE tus_uploads SET touched = 0")
    os.utime(data_of(tmp_path, upload), (0, 0))
    with running_server(root=tmp_path) as server:
        assert error(append(moved(upload, old, server.url), 2, b"c")) == (410, "UPLOAD_GONE")
        eventually(lambda: not data_of(tmp_path, upload).exists(), "the end of its data")


@pytest.mark.parametrize("how", ["head", "patch"])
def test_requests_extend_the_expiry(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerClock(monkeypatch)
    with running_server() as server:
        upload = created(server.url, 100, b"x")
        for offset in (1, 2, 3):
            clock.ahead += 0.7 * server.config.upload_ttl
            clock.wait_for_sweeps()
            assert (append(upload, offset, b"x") if how == "patch" else head(upload)).ok
        with patching(upload, offset_of(upload), 3) as request:  # a slow body is use, too
            request.send(b"a")
            eventually(lambda: inside(server).backend.tus.known.get(upload.rpartition("/")[2]).writer is not None)
            clock.ahead += server.config.upload_ttl + 1
            clock.wait_for_sweeps()
            request.send(b"bc")
            assert request.status() == 204


# kill -9, again and again


class Sender(threading.Thread):
    """A client that retries without a limit: it creates by key, reads the offset after each failure, and continues."""

    def __init__(self, address: list[str], session: str, name: str, data: bytes, rng: random.Random) -> None:
        super().__init__(daemon=True)
        self.address, self.session, self.filename, self.data = address, session, name, data
        self.rng = rng
        self.told = 0
        self.went_back = False

    def run(self) -> None:
        end = time.monotonic() + DEADLINE
        while self.told < len(self.data) and time.monotonic() < end:
            try:
                self.go_on()
            except requests.RequestException:
                time.sleep(0.02)  # the server is dead, for now

    def go_on(self) -> None:
        url = self.address[0]
        with_data = self.rng.random() < 0.5
        answer = create(
            url,
            len(self.data),
            self.data[:300_000] if with_data and not self.told else None,
            uploadKey=self.filename,
            sessionId=self.session,
            filename=self.filename,
        )
        assert answer.status_code in {200, 201}, answer.text
        upload, offset = urljoin(url, answer.headers["location"]), int(answer.headers["upload-offset"])
        while True:
            self.went_back |= offset < self.told
            self.told = offset
            if offset == len(self.data):
                return
            chunk = self.data[offset : offset + 300_000]
            answer = append(upload, offset, chunk, checksum(chunk) if self.rng.random() < 0.5 else None)
            if answer.status_code != 204:
                return
            offset = int(answer.headers["upload-offset"])


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kills", "seed"), [(4, 1), pytest.param(20, 2, marks=[pytest.mark.acceptance, pytest.mark.timeout(300)])]
)
def test_server_killed_at_random_moments_stores_each_file_once(tmp_path: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    contents = {f"{number}.bin": rng.randbytes(kills * 2_000_000) for number in range(3)}
    with server_process("--root", str(tmp_path)) as server:
        address = [server.url]
        session = new_session(server.url, len(contents))
        senders = [Sender(address, session, name, data, random.Random(name)) for name, data in contents.items()]
        for sender in senders:
            sender.start()
        time.sleep(rng.uniform(0.02, 0.3))
        server.kill()
    for number in range(kills):
        with server_process("--root", str(tmp_path)) as server:
            address[0] = server.url
            if number < kills - 1:
                time.sleep(rng.uniform(0.02, 0.3))
                continue
            for sender in senders:
                sender.join(2 * DEADLINE)
            assert [sender.told for sender in senders] == [len(data) for data in contents.values()]
            assert not any(sender.went_back for sender in senders)
            known = progress(server.url, session).json()
            assert (known["overallStatus"], known["completedFiles"], len(known["files"])) == ("completed", 3, 3)
    assert {path.name: path.read_bytes() for path in (tmp_path / "personal").iterdir()} == contents


def test_small_upload_whose_row_was_not_saved_is_no_lost_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its bytes come before its row: a server that is killed between them has confirmed nothing."""
    with running_server(root=tmp_path, durability="none") as server:
        saves, store = list[Any](), inside(server).store

        async def killed(*_: object, **__: object) -> None:
            saves.extend(path.name for path in (tmp_path / ".uploader" / "tus").iterdir())
            raise sqlite3.OperationalError("killed")

        store.save = killed
        assert create(server.url, 3, b"abc", filename="a").status_code == 500
    (name,) = set(saves)
    (tmp_path / ".uploader" / "tus" / name).unlink(missing_ok=True)
    (tmp_path / ".uploader" / "tus" / name).write_bytes(b"abc")
    with running_server(root=tmp_path):
        assert not (tmp_path / ".uploader" / "tus" / name).exists()
        assert not (tmp_path / ".uploader" / "lost").exists()
    assert not any("lost" in message for message in caplog.messages)


def test_upload_of_a_category_that_is_away_is_not_gone(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    root.mkdir()
    disk.mkdir()
    (root / "tus").symlink_to(disk)
    with running_server(root=root) as server:
        upload = created(server.url, 3, b"abc", filename="a")
        disk.rename(tmp_path / "unmounted")
        assert head(upload).status_code == 500
        (tmp_path / "unmounted").rename(disk)
        assert head(upload).status_code == 200


def test_upload_whose_category_was_replaced_by_an_empty_one_is_back_with_its_file(tmp_path: Path) -> None:
    with running_server(root=tmp_path) as first:
        upload = created(first.url, 3, b"abc", filename="a")
    (tmp_path / "tus").rename(tmp_path / "aside")
    (tmp_path / "tus").mkdir()
    with running_server(root=tmp_path) as server:
        assert head(moved(upload, first.url, server.url)).status_code == 410
    (tmp_path / "tus").rmdir()
    (tmp_path / "aside").rename(tmp_path / "tus")
    with running_server(root=tmp_path) as server:
        there = head(moved(upload, first.url, server.url))
    assert (there.status_code, there.headers.get("upload-offset")) == (200, "3")


def test_creation_with_the_key_of_an_upload_whose_file_is_missing_stores_it_again(tmp_path: Path) -> None:
    with running_server(root=tmp_path) as server:
        created(server.url, 3, b"abc", filename="a", uploadKey="k" * 22)
        (tmp_path / "tus" / "a").unlink()
        again = create(server.url, 3, b"abc", filename="a", uploadKey="k" * 22)
    assert (again.status_code, (tmp_path / "tus" / "a").read_bytes()) == (201, b"abc")
