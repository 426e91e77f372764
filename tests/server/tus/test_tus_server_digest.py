"""Digests of stored files (docs/extensions.md): known, computed on request, and never trusted for equality."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest
import requests
from server.batches import file, upload
from server.tus.tus_client import DEADLINE, TUS, append, checksum, content, create, created, digest_of, head
from serving import inside, running_server, server_process
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server() as server:
        yield server


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def asked(where: str, wanted: str) -> requests.Response:
    return requests.head(where, headers={**TUS, "Want-Repr-Digest": wanted}, timeout=DEADLINE)


def test_single_sha256_chunk_yields_the_digest_of_the_file(server: EmbeddedServer) -> None:
    answer = create(server.url, 3, b"abc", headers=checksum(b"abc"), filename="known.bin")
    assert answer.headers["repr-digest"].startswith("sha-256=:ungWv48B")
    for where in (answer.headers["location"], answer.headers["content-location"]):
        assert head(urljoin(server.url, where)).headers["repr-digest"] == answer.headers["repr-digest"]


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", None])
def test_other_uploads_have_a_digest_once_it_was_asked_for(
    subtests: pytest.Subtests, server: EmbeddedServer, algorithm: str | None
) -> None:
    data = os.urandom(300_000)
    url = created(server.url, len(data), filename=f"{algorithm}.bin")
    for start, end in ((0, 100_000), (100_000, 300_000)):
        with subtests.test(start=start, end=end):
            chunk = data[start:end]
            answer = append(url, start, chunk, checksum(chunk, algorithm) if algorithm else None)
            assert answer.status_code == 204
    stored = server.url + answer.headers["content-location"]
    assert not any("repr-digest" in one.headers for one in (answer, head(url), head(stored)))
    assert not any("repr-digest" in asked(stored, wanted).headers for wanted in ("sha-512=1", "sha-256=0"))
    assert "repr-digest" in asked(url, "sha-512=3, sha-256=1").headers
    assert digest_of(url) == sha256(data)
    assert all("repr-digest" in one.headers for one in (head(url), head(stored)))


def test_a_digest_that_takes_long_is_pending_and_ready_later(server: EmbeddedServer) -> None:
    digests = inside(server).store.digests
    path = server.root / "tus" / "long.bin"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(30_000_000))
    digests.patience = 0.0
    try:
        pending = asked(f"{server.url}/uploads/tus/long.bin", "sha-256=1")
        assert (pending.status_code, pending.headers["retry-after"]) == (503, "10")
        digests.patience = DEADLINE
        assert digest_of(f"{server.url}/uploads/tus/long.bin") == sha256(bytes(30_000_000))
        digests.patience = 0.0
        assert asked(f"{server.url}/uploads/tus/long.bin", "sha-256=1").status_code == 200
    finally:
        digests.patience = 10.0


def test_digest_computation_blocks_neither_requests_nor_stop(tmp_path: Path) -> None:
    with server_process("--root", str(tmp_path), constants={}) as server:
        (tmp_path / "tus").mkdir()
        (tmp_path / "tus" / "huge.bin").touch()
        os.truncate(tmp_path / "tus" / "huge.bin", 1 << 40)
        where = f"{server.url}/uploads/tus/huge.bin"

        def ask() -> None:
            with contextlib.suppress(requests.RequestException):  # the server stops meanwhile
                asked(where, "sha-256=1")

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        time.sleep(0.2)
        assert content(created(server.url, 3, b"abc", filename="meanwhile.bin")) == b"abc"
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < PATIENCE  # the digest of a tebibyte takes many minutes
        asking.join(DEADLINE)


def test_a_file_of_equal_length_is_compared_by_its_bytes(server: EmbeddedServer) -> None:
    """What the database says of the digest of a changed file may be wrong: its time of change can be set."""
    upload(server.url, file("compared.bin", b"before"))
    path = server.root / "personal" / "compared.bin"
    before = path.stat()
    path.write_bytes(b"change")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    names = [upload(server.url, file("compared.bin", b"before"))[0]["fileName"] for _ in range(2)]
    assert names == ["compared (2).bin"] * 2
    assert path.read_bytes() == b"change"
