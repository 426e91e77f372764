"""Uploads through proxies that remove a base path, or block requests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from client.transfer.scheduled_uploads import Upload, digests, make, on_disk
from proxy import Onlooker, Proxy, Request, answer
from serving import running_server

import uploader_cli
from uploader_cli.core import events as ev
from uploader_cli.core.events import WarningCode
from uploader_cli.errors import ProxyUnauthorized

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


class BelowPath(Onlooker):
    """Removes the path `prefix` from requests, as nginx does with `proxy_pass URL/`; others get a 404."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def head(self, request: Request) -> bytes | None:
        if not request.target.startswith(f"{self._prefix}/"):
            return answer(404)
        request.head = request.head.replace(self._prefix.encode(), b"", 1)
        return None


class Firewall(Onlooker):
    """Answers PATCH, and what stands for it, with `status`."""

    def __init__(self, status: int) -> None:
        self._status = status

    def head(self, request: Request) -> bytes | None:
        blocked = request.method == "PATCH" or "x-http-method-override" in request.headers
        return answer(self._status) if blocked else None


@pytest.mark.parametrize("protocol", ["batch", "tus"])
@pytest.mark.parametrize("prefix", ["/uploads", "/api", "/api/upload", "/files"])
def test_base_path_that_equals_the_start_of_a_server_path(tmp_path: Path, prefix: str, protocol: str) -> None:
    (tmp_path / "stored").mkdir()
    paths = make(tmp_path, "small.mp4") + make(tmp_path, "large.mp4", size=3 * MIB)
    with running_server(root=tmp_path / "stored") as server, Proxy(server.url, BelowPath(prefix)) as proxy:
        how = {"protocol": protocol, "verify": True, "chunk_size": MIB}
        upload = Upload(proxy.url + prefix, paths, **how)
        assert upload.go() is None
        assert [event.verified for event in upload.all(ev.FileCompleted)] == [True, True]
        assert upload.all(ev.RunWarning) == []
        again = Upload(proxy.url + prefix, paths, **how, skip_existing=True)
        assert again.go() is None
        assert len(again.all(ev.FileSkipped)) == 2
    assert on_disk(tmp_path / "stored") == digests(paths)


@pytest.mark.parametrize("status", [403, 405, 501])
def test_blocked_patch_is_not_retried_before_batch_mode(tmp_path: Path, status: int) -> None:
    (tmp_path / "stored").mkdir()
    paths = make(tmp_path, "a.mp4", size=3 * MIB)
    with running_server(root=tmp_path / "stored") as server, Proxy(server.url, Firewall(status)) as proxy:
        upload = Upload(proxy.url, paths, protocol="auto", chunk_size=MIB)
        assert upload.go() is None
        assert proxy.count("PATCH ") == 1
    assert [event.delay for event in upload.all(ev.FileRetry)] == [0.0]
    assert [event.code for event in upload.all(ev.RunWarning)] == [WarningCode.PATCH_BLOCKED]
    assert on_disk(tmp_path / "stored") == digests(paths)


@pytest.mark.thorough
def test_files_of_a_blocked_patch_share_a_batch_session(tmp_path: Path) -> None:
    (tmp_path / "stored").mkdir()
    paths = make(tmp_path, *(f"{number}.mp4" for number in range(8)), size=2 * MIB)
    with running_server(root=tmp_path / "stored") as server, Proxy(server.url, Firewall(403)) as proxy:
        upload = Upload(proxy.url, paths, protocol="auto", chunk_size=MIB, jobs=2)
        assert upload.go() is None
        assert len(upload.all(ev.SessionCreated)) == 2, "one for tus, one for batch mode"
    assert on_disk(tmp_path / "stored") == digests(paths)


def test_stream_whose_patch_is_blocked_is_not_sent_in_batch_mode(tmp_path: Path) -> None:
    """A batch needs the length, and can't begin with what was read already."""
    reader, writer = os.pipe()
    os.write(writer, bytes(3000))
    os.close(writer)
    options: dict[str, Any] = {"name": "stream.mp4", "chunk_size": 1024, "state_dir": str(tmp_path / "state")}
    with running_server() as server, Proxy(server.url, Firewall(403)) as proxy, open(reader, "rb") as stream:
        result = uploader_cli.upload(stream, server=proxy.url, **options)
        assert proxy.count("POST /api/upload/batch") == 0
    assert (result.exit_code, "blocks PATCH" in result.receipts[0].message) == (4, True)


class Moody(Firewall):
    """Blocks the first PATCH, and every POST that stands for one."""

    def head(self, request: Request) -> bytes | None:
        return None if self.proxy.count("PATCH ") > 1 and request.method == "PATCH" else super().head(request)


@pytest.mark.thorough
def test_one_refused_patch_does_not_end_tus(tmp_path: Path) -> None:
    """The method was not the cause: later files are sent with PATCH."""
    (tmp_path / "stored").mkdir()
    paths = make(tmp_path, "a.mp4", "b.mp4", "c.mp4", size=2 * MIB)
    with running_server(root=tmp_path / "stored") as server, Proxy(server.url, Moody(403)) as proxy:
        upload = Upload(proxy.url, paths, protocol="auto", chunk_size=MIB, jobs=1)
        assert upload.go() is None
        assert proxy.count("PATCH ") > 3
        assert proxy.count("POST /api/upload/batch") == 1
    assert on_disk(tmp_path / "stored") == digests(paths)


class Checkpoint(Onlooker):
    """A forward proxy that asks for a password once it has passed a PATCH."""

    def head(self, request: Request) -> bytes | None:
        return answer(407) if self.proxy.count("PATCH ") > 1 else None


def test_407_during_a_run_ends_it_at_once_with_its_hint(tmp_path: Path) -> None:
    """It is not treated as an outage."""
    paths = make(tmp_path, "a.mp4", "b.mp4", size=3 * MIB)
    with running_server() as server, Proxy(server.url, Checkpoint()) as proxy:
        how = {"chunk_size": MIB, "proxy": proxy.url, "wait_for_server": 60.0, "jobs": 2}
        upload = Upload(server.url, paths, protocol="tus", **how)
        error, asked = upload.go(), proxy.count("")
    assert isinstance(error, ProxyUnauthorized)
    assert error.hint == "put name and password into --proxy"
    assert asked < 20
    assert {event.retryable for event in upload.all(ev.FileFailed)} == {True}
