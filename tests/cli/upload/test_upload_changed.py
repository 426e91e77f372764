"""`upload` of files that change while they are sent, and keep their size and mtime."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from command import ended, read_confirmed, start, uploader
from proxy import TUS, Onlooker, Proxy
from tus_services import Service

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from proxy import Request

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

SIZE = 24 << 20  # more than the buffers of a connection


class AtData(Onlooker):
    """Calls a function at the first byte of a file, once."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act: Callable[[], object] | None = act

    def head(self, request: Request) -> None:
        is_batch = request.headers.get("content-type", "").startswith("multipart/") and request.length > SIZE
        if request.headers.get("content-type") == TUS or is_batch:
            request.mark = 1

    def at_mark(self, request: Request, piece: bytes) -> bytes:
        act, self.act = self.act, None
        if act is not None:
            act()
        return piece


def rewrite(path: Path) -> None:
    """Write other bytes, as `touch -r` and SOURCE_DATE_EPOCH hide it."""
    info = path.stat()
    with path.open("r+b") as file:
        file.write(b"z" * info.st_size)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def replace(path: Path) -> None:
    """Put another file with the same bytes in its place, as a backup or an editor does."""
    info, other = path.stat(), path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(info.st_atime_ns, info.st_mtime_ns))
    other.rename(path)


TUS_WAY = ("--no-pack", "--chunk-size", "1M", "--retries", "3")
WAYS = {"tus": TUS_WAY, "digest": (*TUS_WAY, "--digest", "--report", "r.sha256"), "batch": ("--protocol", "batch")}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_file_that_is_rewritten_while_it_is_sent_fails(
    way: tuple[str, ...], server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    files = make_files(**{"a.bin": SIZE})
    with Proxy(server.url, AtData(lambda: rewrite(files / "a.bin"))) as proxy:
        done = uploader("upload", files, "-s", proxy.url, "--json", *way, home=tmp_path)
    (failed,) = done.of("file.failed")
    assert (done.code, failed["code"], done.of("file.completed")) == (4, "changed", [])
    assert "--digest" not in way or (tmp_path / "r.sha256").read_text() == ""


HARMLESS = {"chmod": lambda path: path.chmod(0o600), "link": lambda path: os.link(path, f"{path}2"), "replace": replace}
HARMLESS["deleted"] = lambda path: path.unlink()


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
@pytest.mark.parametrize("way", [WAYS["tus"], pytest.param(WAYS["batch"], marks=pytest.mark.thorough)])
def test_other_ctime_or_inode_alone_fails_and_repeats_nothing(
    change: Callable[[Path], object], way: tuple[str, ...], server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    files = make_files(**{"a.bin": SIZE})
    with Proxy(server.url, AtData(lambda: change(files / "a.bin"))) as proxy:
        done = uploader("upload", files / "a.bin", "-s", proxy.url, "--json", *way, home=tmp_path)
    (completed,) = done.of("file.completed")
    assert (done.code, completed["attempts"], completed["verified_by"]) == (0, 1, "digest"), done.err
    assert (server.root / "personal/a.bin").stat().st_size == SIZE


@pytest.mark.parametrize("change", [rewrite, HARMLESS["chmod"]], ids=["rewritten", "chmod"])
def test_file_in_doubt_is_sent_once_more_where_no_digest_is_known(
    change: Callable[[Path], object], make_files: Files, tmp_path: Path
) -> None:
    """The server gives out nothing; the digest of what is sent the second time is compared with the file."""
    files = make_files(**{"a.bin": 300_000})
    with Service() as service, Proxy(service.url, AtData(lambda: change(files / "a.bin"))) as proxy:
        endpoint = f"{proxy.url}/files/"
        done = uploader("upload", files, "--tus-endpoint", endpoint, "--chunk-size", "64K", "--json", home=tmp_path)
        (completed,) = done.of("file.completed")
        assert (done.code, completed["attempts"], service.created) == (0, 2, 2), done.err
        assert bytes(list(service.uploads.values())[-1].content) == (files / "a.bin").read_bytes()


def test_resumed_file_that_was_rewritten_meanwhile_fails(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    files = make_files(**{"a.bin": 4 << 20})
    process = start("upload", files, "-s", server.url, "--json", *TUS_WAY, "--limit-rate", "4M", home=tmp_path)
    ended(process, read_confirmed(process, 1 << 20), signal.SIGKILL)
    rewrite(files / "a.bin")
    done = uploader("resume", "--json", home=tmp_path)
    (failed,) = done.of("file.failed")
    assert (done.code, failed["code"]) == (4, "changed")
