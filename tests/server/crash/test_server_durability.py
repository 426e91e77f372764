"""`--durability fsync` (docs/extensions.md): nothing is confirmed before it is on the disk."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest
import requests
from server.batches import DEADLINE, file, new_session, upload
from server.crash.syscalls import CALLS, PowerCut, strace_works
from server.packs.packing import post_pack, send_pack
from server.tus.tus_client import (
    append,
    checksum,
    concatenate,
    content,
    create,
    created,
    error,
    offset_of,
    part,
    patching,
    terminate,
)
from serving import REPOSITORY, inside, running_server

from uploader_server.config import ServerConfig
from uploader_server.storage import disk

if TYPE_CHECKING:
    from pathlib import Path

    from server.packs.packing import Files

    from uploader_server.serving import EmbeddedServer

PARTIAL = {"Upload-Concat": "partial"}
linux = pytest.mark.skipif(sys.platform != "linux", reason="names of descriptors in /proc")


def send_everything(url: str) -> None:
    """Upload by every protocol; one request is answered before the next one is sent."""
    session = new_session(url, 100)
    resumed = created(url, 9, sessionId=session, filename="resumed.bin", relativePath="tus/deep/resumed.bin")
    assert append(resumed, 0, b"abc").status_code == 204
    assert append(resumed, 3, b"def", checksum(b"def")).status_code == 204
    assert offset_of(resumed) == 6
    assert append(resumed, 6, b"ghi").status_code == 204
    created(url, 3, b"abc", sessionId=session, filename="small.bin", relativePath="tus/deep/small.bin")
    created(url, 9, b"abc", filename="begun.bin")
    joined = concatenate(url, part(url, b"ab"), part(url, b"cd"), filename="joined.bin")
    places = [{"finalKey": "k", "finalLength": "6", "partOffset": str(start)} for start in (0, 3)]
    first, second = (
        urljoin(url, create(url, 3, b"a", headers=PARTIAL, **place).headers["location"]) for place in places
    )
    assert append(second, 1, b"ef").status_code == append(first, 1, b"bc", checksum(b"bc")).status_code == 204
    assert concatenate(url, first, second, uploadKey="k", filename="in place.bin").status_code == 201
    assert terminate(urljoin(url, joined.headers["location"])).status_code == 204
    upload(url, file("one.txt", b"1"), session=session, paths=("batch/one.txt",))
    upload(url, file("one.txt", b"1"), session=session, paths=("batch/one.txt",))
    upload(url, *(file(f"{n}.txt", b"n") for n in range(6)), session=session)
    send_pack(url, session, {f"pack/{n}/{n}.txt": b"n" for n in range(20)})
    send_pack(url, session, {"pack/0/0.txt": b"n", "pack/0/1.txt": b"", "new.txt": b"new"})
    assert requests.post(f"{url}/api/upload/session/{session}/finish", timeout=DEADLINE).status_code == 200


def losses(root: Path, durability: str) -> list[tuple[str, list[str]]]:
    """Return what a power loss would destroy after each success of `send_everything`."""
    trace = root.with_suffix(".trace")
    traced = ["strace", "-f", "-y", "-s", "64", "-o", str(trace), "-e", f"trace={CALLS}"]
    options = ["--port", "0", "--root", str(root), "--durability", durability]
    server = subprocess.Popen(
        [*traced, sys.executable, "-m", "uploader_server", *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "server_stub")},
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        send_everything(server.stdout.readline().split(" ")[4])
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.communicate(timeout=DEADLINE)
    cut = PowerCut(root)
    cut.read(trace.read_text(encoding="utf-8", errors="replace"))
    return cut.lost


@pytest.mark.thorough
@pytest.mark.skipif(not strace_works(), reason="needs a strace that may trace")
def test_power_loss_keeps_everything_that_was_confirmed(tmp_path: Path) -> None:
    kept = losses(tmp_path / "fsync", "fsync")
    assert len(kept) == 23
    assert [(answer, lost) for answer, lost in kept if lost] == []
    assert any("personal/new.txt" in lost for _, lost in losses(tmp_path / "none", "none"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Links and flushes, in the order in which they end."""
    seen: list[tuple[str, str]] = []
    link, fsync = os.link, os.fsync

    def linking(source: Any, target: Any, **how: Any) -> None:
        link(source, target, **how)
        seen.append(("link", os.fspath(target)))

    def flushing(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        fsync(fd)
        seen.append(("flush", path))

    monkeypatch.setattr(os, "link", linking)
    monkeypatch.setattr(os, "fsync", flushing)
    monkeypatch.setattr(disk, "flush_data", flushing)
    monkeypatch.setattr(disk, "find_syncfs", lambda: None)
    return seen


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_pack_is_flushed_before_its_links_and_its_directories_after_them(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    """Also where the system can't flush a whole file system."""
    with running_server(packs=True, root=tmp_path) as server:
        session = new_session(server.url, 6)
        calls.clear()
        send_pack(server.url, session, {f"{n // 3}/{n}.txt": b"n" for n in range(6)})
    links = [at for at, (what, _) in enumerate(calls) if what == "link"]
    assert len(links) == 6
    before, after = calls[: links[0]], calls[links[-1] + 1 :]
    assert sum("/incoming/" in path for what, path in before if what == "flush") == 6
    assert {path for _, path in after} >= {f"{tmp_path}/personal/{n}" for n in (0, 1)} | {f"{tmp_path}/personal"}


def failing(monkeypatch: pytest.MonkeyPatch, server: EmbeddedServer, failures: int) -> None:
    """Have the next flushes fail, as on a disk that is broken."""
    flush, left = disk.flush_data, [failures]

    def once(fd: int) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, "broken")
        flush(fd)

    monkeypatch.setattr(disk, "flush_data", once)
    monkeypatch.setattr(inside(server).store.disk, "syncfs", once)


@pytest.mark.parametrize("place", [{}, {"finalKey": "k", "finalLength": "9000000", "partOffset": "0"}])
def test_offset_excludes_bytes_that_could_not_be_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: dict[str, str]
) -> None:
    data = os.urandom(9_000_000)
    with running_server(root=tmp_path) as server:
        answer = create(server.url, len(data), data[:1000], headers=PARTIAL if place else None, **place)
        url = urljoin(server.url, answer.headers["location"])
        failing(monkeypatch, server, 1)
        assert error(append(url, 1000, data[1000:])) == (500, "UPLOAD_FAILED")
        assert offset_of(url) == 1000
        assert append(url, 1000, data[1000:], checksum(data[1000:])).status_code == 204
        if place:
            url = urljoin(server.url, concatenate(server.url, url, uploadKey="k").headers["location"])
        assert content(url) == data


@pytest.mark.parametrize(
    "place",
    [{}, pytest.param({"finalKey": "k", "finalLength": "30000000", "partOffset": "0"}, marks=pytest.mark.thorough)],
)
def test_a_head_that_ends_a_writer_waits_for_its_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: dict[str, str]
) -> None:
    data = os.urandom(30_000_000)
    flush, flushing = disk.flush_data, threading.Event()

    def slowly(fd: int) -> None:
        flushing.set()
        time.sleep(0.5)
        flush(fd)

    with running_server(root=tmp_path) as server:
        answer = create(server.url, len(data), headers=PARTIAL if place else None, **place)
        url = urljoin(server.url, answer.headers["location"])
        monkeypatch.setattr(disk, "flush_data", slowly)
        with patching(url, 0, len(data)) as request:
            request.send(data[:25_000_000])
            assert flushing.wait(DEADLINE)
            told = offset_of(url)
            assert request.status() == 423
        monkeypatch.setattr(disk, "flush_data", flush)
        assert 3_000_000 < told <= 25_000_000
        assert append(url, told, data[told:]).status_code == 204
        if place:
            url = urljoin(server.url, concatenate(server.url, url, uploadKey="k").headers["location"])
        assert content(url) == data


def test_a_pack_that_could_not_be_flushed_stores_nothing_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_server(packs=True, root=tmp_path) as server:
        session = new_session(server.url, 20)
        failing(monkeypatch, server, 1)
        files: Files = {f"{n}.txt": b"n" for n in range(20)}
        assert post_pack(server.url, session, files, key="key").status_code == 500
        assert list((tmp_path / "personal").iterdir()) == []
        assert [entry["status"] for entry in send_pack(server.url, session, files, key="key")] == ["stored"] * 20


def test_a_batch_that_could_not_be_flushed_stores_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server(root=tmp_path) as server:
        session = new_session(server.url, 6)
        failing(monkeypatch, server, 1)
        files = [file(f"{n}.txt", b"n") for n in range(6)]
        with pytest.raises(AssertionError, match="UPLOAD_FAILED"):
            upload(server.url, *files, session=session)
        assert list((tmp_path / "personal").iterdir()) == []
        assert len(upload(server.url, *files, session=session)) == 6


def flushes(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the paths that are flushed from now on."""
    flushed, fsync = set[str](), os.fsync

    def record(fd: int) -> None:
        flushed.add(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", record)
    return flushed


@linux
def test_directory_that_is_created_again_is_flushed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = flushes(monkeypatch)
    deep = tmp_path / "personal" / "deep"
    with running_server(root=tmp_path, durability="fsync") as server:
        session = new_session(server.url, 2)
        upload(server.url, file("a.txt", b"1"), session=session, paths=("deep/a.txt",))
        shutil.rmtree(deep)
        flushed.clear()
        upload(server.url, file("b.txt", b"2"), session=session, paths=("deep/b.txt",))
    assert {str(deep), str(deep.parent)} <= flushed


@linux
def test_equal_file_that_was_stored_before_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request that has stored it may not have flushed it yet."""
    flushed = flushes(monkeypatch)
    with running_server(root=tmp_path, durability="fsync") as server:
        for _ in range(2):
            flushed.clear()
            upload(server.url, file("a.txt", b"1"), session=new_session(server.url))
    assert str(tmp_path / "personal" / "a.txt") in flushed


def test_flush_is_the_default_for_a_permanent_root(tmp_path: Path) -> None:
    assert ServerConfig(root=tmp_path).durable
    assert not ServerConfig().durable
    assert not ServerConfig(root=tmp_path, durability="none").durable
    assert ServerConfig(durability="fsync").durable
