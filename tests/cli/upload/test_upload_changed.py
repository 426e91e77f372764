"""`upload` of files that change while they are sent, and keep their size and mtime."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command import ended, read_confirmed, start, uploader
from proxy import TUS, Onlooker, Proxy
from scripted_server import Answer
from tus_services import Plain, Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy import Request
    from scripted_server import Request as Asked

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


def rewrite(path: Path, start: int = 0, length: int | None = None) -> None:
    """Write other bytes, as `touch -r` and SOURCE_DATE_EPOCH hide it."""
    info = path.stat()
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"z" * (info.st_size if length is None else length))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def replace(path: Path) -> None:
    """Put another file with the same bytes in its place, as a backup or an editor does."""
    info, other = path.stat(), path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(info.st_atime_ns, info.st_mtime_ns))
    other.rename(path)


TUS_WAY = ("--no-pack", "--chunk-size", "1M", "--retries", "3")
WAYS = {"tus": TUS_WAY, "digest": (*TUS_WAY, "--digest", "--report", "r.json"), "batch": ("--protocol", "batch")}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_file_that_is_rewritten_while_it_is_sent_fails(
    way: tuple[str, ...], server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    files = make_files(**{"a.bin": SIZE})
    with Proxy(server.url, AtData(lambda: rewrite(files / "a.bin"))) as proxy:
        done = uploader("upload", files, "-s", proxy.url, "--json", *way, home=tmp_path)
    (failed,) = done.of("file.failed")
    assert (done.code, failed["code"], done.of("file.completed")) == (4, "changed", [])
    assert "--digest" not in way or "checksum" not in json.loads((tmp_path / "r.json").read_text())["files"][0]


RESENT = {"tus": (("--no-pack", "--chunk-size", "24M"), SIZE - 1000), "batch": (("--protocol", "batch"), 0)}


@pytest.mark.parametrize(("way", "start"), RESENT.values(), ids=RESENT)
def test_file_that_is_rewritten_before_its_bytes_are_sent_again_has_the_digest_of_these(
    way: tuple[str, ...], start: int, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The server refuses the first request with bytes of the file."""
    files = make_files(**{"a.bin": SIZE})
    server.faults.add("status:batch#1:503,when=body")
    with Proxy(server.url, AtData(lambda: rewrite(files / "a.bin", start, 1000))) as proxy:
        done = uploader("upload", files, "-s", proxy.url, "--json", "--digest", *way, home=tmp_path)
    (completed,) = done.of("file.completed")
    stored = (server.root / "personal/files/a.bin").read_bytes()
    assert (done.code, completed["attempts"]) == (0, 2), done.err
    assert completed["checksum"] == f"sha256:{hashlib.sha256(stored).hexdigest()}"


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


class Busy(Plain):
    """A server that gives out its files, but is busy at the first `times`."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.readable, self.busy = True, times

    def _get(self, request: Asked) -> Answer:
        self.busy -= 1
        return Answer(503, headers={"Retry-After": 0}) if self.busy >= 0 else super()._get(request)


@pytest.mark.parametrize(("times", "code"), [(2, 0), (9, 3)])
def test_file_in_doubt_is_read_back_once_a_busy_server_lets_it(
    times: int, code: int, make_files: Files, tmp_path: Path
) -> None:
    """It is not sent once more; if the server stays busy, it fails, and the next run asks again."""
    files = make_files(**{"a.bin": 300_000})
    with Busy(times) as service, Proxy(service.url, AtData(lambda: (files / "a.bin").chmod(0o600))) as proxy:
        line = ("upload", files, "--tus-endpoint", f"{proxy.url}/files/", "--chunk-size", "64K", "--retries", "2")
        done = uploader(*line, "--json", home=tmp_path)
        assert (done.code, service.created) == (code, 1), done.err
        if code:
            (failed,) = done.of("file.failed")
            assert (failed["code"], failed["retryable"]) == ("server_error", True)
            service.busy = 0
            done = uploader(*line, "--json", home=tmp_path)
            assert (done.code, service.created) == (0, 1), done.err
        (completed,) = done.of("file.completed")
        assert completed["verified_by"] == "bytes"


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


def behind_a_link(path: Path, secret: Path) -> None:
    """Put a link in the place of a file or directory; what is behind it has the same names, sizes and times."""
    for old in [path, *path.rglob("*")] if path.is_dir() else [path]:
        new, info = secret / old.relative_to(path.parent), old.stat()
        if old.is_dir():
            new.mkdir(parents=True)
        else:
            new.parent.mkdir(exist_ok=True)
            new.write_bytes(b"S" * info.st_size)
            os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns))
    path.rename(path.with_name("moved"))
    path.symlink_to(secret / path.name)


SELECTED = {
    "walk": (["files"], "z"),
    "directory": (["files"], "later"),
    "top": (["files"], ""),
    "links": (["files", "--follow-links"], "z"),
    "links to directories": (["files", "--follow-links"], "later"),
    "named": (["files/first", "files/z"], "z"),
    "listed": (["--from-file", "list"], "z"),
    "named link": (["files/first", "link"], "../link"),
}


@pytest.mark.parametrize("pack", [("--no-pack",), ()], ids=["tus", "pack"])
@pytest.mark.parametrize(("arguments", "place"), SELECTED.values(), ids=SELECTED)
def test_link_in_the_place_of_a_selected_file_is_not_followed(
    arguments: list[str], place: str, pack: tuple[str, ...], server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """It is made while the first file is sent: no file behind it leaves the machine."""
    files = make_files(**{"first": 2 << 20, "later/z": 10, "z": 10})
    (tmp_path / "list").write_text("files/first\nfiles/z\n")
    (tmp_path / "link").symlink_to("files/z")
    with Proxy(
        server.url, AtData(lambda: behind_a_link(Path(os.path.normpath(files / place)), tmp_path / "secret"))
    ) as proxy:
        how = ("-s", proxy.url, "--json", "-j", "1", "--chunk-size", "1M", "--limit-rate", "2M", *pack)
        done = uploader("upload", *arguments, *how, home=tmp_path)
    assert [
        path for path in (server.root / "personal").rglob("*") if path.is_file() and b"S" in path.read_bytes()
    ] == []
    failed = {event["code"] for event in done.of("file.failed")}
    is_open = place in ("", "later")  # the directory that was selected: its files can be read
    assert (done.code, failed) == ((0, set()) if is_open else (4, {"changed"}))
