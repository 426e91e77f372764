"""Packs of small files through the installed command, with `kill -9` of either side in the middle."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from command import ended, read_until, start, uploader
from serving import server_process

if TYPE_CHECKING:
    from pathlib import Path

FILES = 300
SLOW = ("--chunk-size", "1M", "--jobs", "2", "--limit-rate", "500K")
"""Packs of 1 MiB, which is four of them; two at a time."""


@pytest.fixture
def many(tmp_path: Path) -> Path:
    source = tmp_path / "many"
    for number in range(FILES):
        path = source / f"{number // 100:02}" / f"{number:04}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number % 30 * 900))
    return source


def stored_once(source: Path, root: Path) -> None:
    """Check that every file is stored with equal bytes, and nothing else."""
    sent = {path.relative_to(source.parent): path.read_bytes() for path in source.rglob("*.bin")}
    kept = root / "personal"
    assert {path.relative_to(kept): path.read_bytes() for path in kept.rglob("*") if path.is_file()} == sent


@pytest.mark.thorough
@pytest.mark.parametrize("after", [1, 100])
def test_killed_client_stores_each_packed_file_once(many: Path, tmp_path: Path, after: int) -> None:
    root = tmp_path / "root"
    with server_process("--root", str(root), packs=True) as server:
        killed = start("upload", many, "-s", server.url, "--json", *SLOW, home=tmp_path)
        for _ in range(after):
            read_until(killed, "file.completed")
        killed.kill()
        killed.communicate()
        again = uploader("upload", many, "-s", server.url, "--json", home=tmp_path)
        assert again.code == 0
        assert again.finished["completed"] + again.finished["skipped"] == FILES
        assert again.finished["skipped"] >= 1, "what was confirmed is not resent"
        assert all("checksum" in event for event in again.of("file.completed")), "all were packed"
        stored_once(many, root)


def test_killed_server_stores_each_packed_file_once(many: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    with server_process("--root", str(root), packs=True) as server:
        port = server.url.rpartition(":")[2]
        client = start("upload", many, "-s", server.url, "--json", *SLOW, "--retries", "9", home=tmp_path)
        seen = read_until(client, "file.completed")
        server.kill()
    with server_process("--root", str(root), "--port", port, packs=True):
        done = ended(client, seen)
        again = uploader("upload", many, "-s", f"http://127.0.0.1:{port}", home=tmp_path)
    assert (done.code, again.code) in ((0, 0), (3, 0))
    stored_once(many, root)
