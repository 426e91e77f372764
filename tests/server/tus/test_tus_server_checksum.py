"""tus 1.0, checksum: a body is stored if it is complete and matches, or not at all."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest
from server.batches import eventually
from server.tus.tus_client import (
    append,
    checksum,
    content,
    create,
    created,
    data_of,
    error,
    head,
    offset_of,
    patching,
)
from serving import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server() as server:
        yield server


@pytest.mark.parametrize("algorithm", ["crc32c", "sha1", "sha256", "md5"])
def test_chunks_with_checksums_become_a_file(server: EmbeddedServer, algorithm: str) -> None:
    data = os.urandom(3_000_000)
    upload = created(server.url, len(data))
    for offset in range(0, len(data), 1_300_000):
        chunk = data[offset : offset + 1_300_000]
        assert append(upload, offset, chunk, checksum(chunk, algorithm)).status_code == 204
    assert content(upload) == data


@pytest.mark.parametrize("size", [1, 60_000, 2_500_000])
def test_checksum_mismatch_keeps_offset_and_data(server: EmbeddedServer, size: int) -> None:
    data = os.urandom(1000 + size)
    upload = created(server.url, len(data), data[:1000])
    flipped = bytes([data[1000] ^ 1]) + data[1001:]
    assert error(append(upload, 1000, flipped, checksum(data[1000:]))) == (460, "CHECKSUM_MISMATCH")
    assert offset_of(upload) == 1000
    assert data_of(server.root, upload).read_bytes() == data[:1000]
    assert append(upload, 1000, data[1000:], checksum(data[1000:])).status_code == 204
    assert content(upload) == data


def test_a_cut_body_with_a_checksum_is_not_kept(server: EmbeddedServer) -> None:
    upload = created(server.url, 3_000_000, b"ab")
    data = os.urandom(2_999_998)
    with patching(upload, 2, len(data), checksum(data)) as request:
        request.send(data[:2_500_000])
        eventually(lambda: data_of(server.root, upload).stat().st_size > 1 << 20, "a block")
    assert offset_of(upload) == 2
    assert data_of(server.root, upload).read_bytes() == b"ab"


def test_head_during_a_checked_chunk_returns_the_old_offset(server: EmbeddedServer) -> None:
    upload = created(server.url, 3_000_000, b"ab")
    with patching(upload, 2, 2_999_998, checksum(b"")) as request:
        request.send(os.urandom(2_500_000))
        eventually(lambda: data_of(server.root, upload).stat().st_size > 1 << 20, "a block")
        assert offset_of(upload) == 2
        assert request.status() == 423
    assert data_of(server.root, upload).read_bytes() == b"ab"


def test_crc32c_is_four_bytes_big_endian(subtests: pytest.Subtests, server: EmbeddedServer) -> None:
    """The check value of CRC-32C (RFC 3720), and the same in the other order of bytes."""
    for value, status in [(b"\xe3\x06\x92\x83", 201), (b"\x83\x92\x06\xe3", 460)]:
        with subtests.test(value=value, status=status):
            sent = {"Upload-Checksum": f"crc32c {base64.b64encode(value).decode()}"}
            assert create(server.url, 9, b"123456789", headers=sent).status_code == status


def test_a_creation_can_carry_a_checksum(server: EmbeddedServer) -> None:
    assert create(server.url, 3, b"abc", headers=checksum(b"abc", "sha1")).headers["upload-offset"] == "3"
    refused = create(server.url, 3, b"abX", headers=checksum(b"abc", "sha1"))
    assert error(refused) == (460, "CHECKSUM_MISMATCH")
    upload = urljoin(server.url, refused.headers["location"])  # it is there, and empty
    assert offset_of(upload) == 0
    assert append(upload, 0, b"abc").status_code == 204
    assert content(upload) == b"abc"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("crc99 AAAA", "UNKNOWN_CHECKSUM"),
        ("", "UNKNOWN_CHECKSUM"),
        ("sha1", "INVALID_HEADER"),
        ("sha1 ****", "INVALID_HEADER"),
        ("sha1 YWJj", "INVALID_HEADER"),
    ],
)
def test_a_checksum_that_cannot_be_read_is_refused(server: EmbeddedServer, text: str, code: str) -> None:
    upload = created(server.url, 3)
    assert error(append(upload, 0, b"abc", {"Upload-Checksum": text})) == (400, code)
    assert error(create(server.url, 3, b"abc", headers={"Upload-Checksum": text})) == (400, code)
    assert offset_of(upload) == 0


def test_an_answer_after_a_checked_body_keeps_the_connection(server: EmbeddedServer) -> None:
    """A mismatch is known only when the body is complete."""
    upload = created(server.url, 3)
    assert append(upload, 0, b"abX", checksum(b"abc")).headers.get("connection") != "close"
    assert head(upload).status_code == 200
