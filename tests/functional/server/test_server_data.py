"""What the server keeps, when the disk refuses for a while, the root moves, or somebody else deletes files."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from batches import DEADLINE, eventually, file, new_session, progress, upload
from functional.tus_server.tus_client import (
    TUS,
    append,
    concatenate,
    content,
    created,
    digest_of,
    error,
    head,
    offset_of,
    part,
)
from patience import ROOM
from serving import running_server

from uploader_server.storage.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def refusing(monkeypatch: pytest.MonkeyPatch, number: int) -> list[bool]:
    """Have links refused with an error until the list that is returned is emptied."""
    refused, link = [True], os.link

    def linking(source: Any, target: Any) -> None:
        if refused:
            raise OSError(number, os.strerror(number))
        link(source, target)

    monkeypatch.setattr(os, "link", linking)
    return refused


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EXDEV, errno.ENOSPC])
def test_an_upload_outlives_an_error_of_the_disk_at_its_end(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    with running_server() as server:
        session = new_session(server.url)
        url = created(server.url, 6, b"abc", sessionId=session, filename="kept.bin")
        parts = [part(server.url, b"ab"), part(server.url, b"cd")]
        refused = refusing(monkeypatch, number)
        assert error(append(url, 3, b"def")) == (500, "UPLOAD_FAILED")
        assert error(concatenate(server.url, *parts, uploadKey="joined")) == (500, "UPLOAD_FAILED")
        assert progress(server.url, session).json()["failedFiles"] == 0
        refused.clear()
        assert head(url).headers["content-location"] == "/uploads/personal/kept.bin"
        assert content(url) == b"abcdef"
        joined = concatenate(server.url, *parts, uploadKey="joined")
        assert (joined.status_code, joined.headers["upload-offset"]) == (200, "4")
        assert progress(server.url, session).json()["overallStatus"] == "completed"


def test_a_root_may_be_reached_by_a_link_and_may_move(tmp_path: Path) -> None:
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


def test_a_join_that_takes_long_ends_with_the_server_and_is_done_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks, slow = Reading.blocks, [True]

    def slowly(reading: Reading, path: Path) -> Iterator[memoryview]:
        for block in blocks(reading, path):
            time.sleep(0.5 if slow else 0)
            yield block

    monkeypatch.setattr(Reading, "blocks", slowly)
    data = os.urandom(100 << 20)
    with running_server(root=tmp_path, durability="none") as server:
        parts = [part(server.url, data), part(server.url, b"end")]
        headers = {**TUS, "Upload-Concat": "final;" + " ".join(parts)}
        with pytest.raises(requests.Timeout):
            requests.post(f"{server.url}/api/upload/files/", headers=headers, timeout=1)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 2 * ROOM
        kept = {path.name for path in (tmp_path / ".uploader" / "tus").iterdir()}
        assert kept == {url.rpartition("/")[2] for url in parts}
    slow.clear()
    with running_server(root=tmp_path, durability="none") as server:
        eventually(lambda: (tmp_path / "tus").is_dir() and any((tmp_path / "tus").iterdir()), "the file")
        (joined,) = (tmp_path / "tus").iterdir()
        assert offset_of(f"{server.url}/api/upload/files/{joined.name}") == len(data) + 3
        assert joined.read_bytes() == data + b"end"
