"""Checksums at a tus endpoint: they find damage, and verify a file only where a setting or the server says so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from command import uploader
from serving import running_server
from tus_services import Announcing

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = os.urandom(10_000)
SIZES = {"a.bin": 10_000, "b.bin": 4096, "c.bin": 1, "d.bin": 0}
OPTIONS = ("-j", "1", "--chunk-size", "4K", "--retries", "1", "--json")


@pytest.mark.parametrize("ignores", [False, True], ids=["compares", "ignores"])
@pytest.mark.parametrize(
    ("more", "known", "verified_by"),
    [
        ((), {}, False),
        pytest.param(("--preset", "tusd", "--checksum", "sha1"), {}, False, marks=pytest.mark.feature("presets")),
        (("--verify",), {}, "bytes"),
        ((), {"UPLOADER_CHECKSUM_COMPARED": "yes"}, True),
    ],
    ids=["nothing", "preset", "reading", "setting that says so"],
)
def test_file_is_verified_by_checksums_only_where_a_setting_says_that_they_are_compared(
    more: tuple[str, ...], known: dict[str, str], verified_by: str | bool, ignores: bool, tmp_path: Path
) -> None:
    """No run sends a wrong one to find that out, and none costs a request more than without checksums."""
    (tmp_path / "files").mkdir()
    for name, size in SIZES.items():
        (tmp_path / "files" / name).write_bytes(CONTENT[:size])
    with Announcing(ignores=ignores) as service:
        service.readable = True
        done = uploader("upload", "files", "--tus-endpoint", service.url, *OPTIONS, *more, home=tmp_path, **known)
        assert (done.code, done.of("warning"), done.of("file.retry")) == (0, [], []), done.err
        assert sorted(bytes(upload.content) for upload in service.uploads.values()) == sorted(
            CONTENT[:size] for size in SIZES.values()
        )
        sent = [headers for method, headers in service.requests if method in ("POST", "PATCH")]
    assert {"upload-checksum" in headers for headers in sent if int(headers["content-length"])} == {True}
    assert service.wrong == []
    found = {event["size"]: event.get("verified_by", event["verified"]) for event in done.of("file.completed")}
    assert found == {size: verified_by if size or verified_by == "bytes" else False for size in SIZES.values()}


@pytest.mark.parametrize("algorithm", ["crc32c", "sha256"])
def test_checksums_that_a_foreign_server_announces_verify_nothing(algorithm: str, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    with Announcing(algorithm) as service:
        options = ("--tus-endpoint", service.url, "--checksum", algorithm)
        done = uploader("upload", "a.bin", *options, *OPTIONS, home=tmp_path)
        assert {"upload-checksum" in headers for method, headers in service.requests if method == "PATCH"} == {True}
    assert [event["verified"] for event in done.of("file.completed")] == [False], done.err


@pytest.mark.parametrize(("wanted", "verified_by"), [("auto", "crc32c"), ("crc32c", "crc32c"), ("sha256", "sha256")])
def test_bundled_server_says_at_its_tus_endpoint_that_it_compares_checksums(
    wanted: str, verified_by: str, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT)
    with running_server() as server:
        options = ("--tus-endpoint", f"{server.url}/api/upload/files/", "--checksum", wanted)
        done = uploader("upload", "a.bin", *options, *OPTIONS, home=tmp_path)
    assert [event.get("verified_by") for event in done.of("file.completed")] == [verified_by], done.err


@pytest.mark.parametrize("at", [0, 4096, 8192], ids=["creation", "chunk", "last chunk"])
def test_chunk_that_the_server_refuses_by_its_checksum_is_sent_again(at: int, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(CONTENT[: 3000 if at == 0 else None])
    with Announcing(damages=[at]) as service:
        done = uploader("upload", "a.bin", "--tus-endpoint", service.url, *OPTIONS, home=tmp_path)
        stored = [bytes(upload.content) for upload in service.uploads.values() if upload.content]
    assert done.code == 0, done.err
    assert (service.wrong, stored) == ([at], [(tmp_path / "a.bin").read_bytes()])
    assert [event["code"] for event in done.of("file.retry")] == ["integrity"]
