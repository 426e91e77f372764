"""Files at URLs as sources, through fsspec (docs/cli.md, section "Files at URLs")."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import random
import re
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from command import uploader
from fsspec.implementations.memory import MemoryFileSystem
from proxy import Holding, Proxy

from uploader_cli import Phase, Settings, UsageError, upload
from uploader_cli.core.events import FileFailed, FileSkipped, SkipReason
from uploader_cli.core.plan import LocalFile
from uploader_cli.errors import FileError
from uploader_cli.selection.selecting import select
from uploader_cli.sources.content import read_range
from uploader_cli.sources.files import reader, status
from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

BIG = random.Random(3).randbytes(5 << 20)


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    """A file system of URLs `memory://…`, empty at the end."""
    system = MemoryFileSystem()
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def stored(server: EmbeddedServer) -> dict[str, bytes]:
    top = server.root / "personal"
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_directory_at_a_url(server: EmbeddedServer, memory: MemoryFileSystem) -> None:
    memory.pipe({"/tree/a.bin": BIG, "/tree/below/b.txt": b"b", "/tree/c.tmp": b"c"})
    result = upload("memory://tree", server=server.url, exclude=["*.tmp"], verify=True)
    assert result.ok
    assert stored(server) == {"tree/a.bin": BIG, "tree/below/b.txt": b"b"}
    assert sorted(receipt.path for receipt in result.receipts) == ["memory://tree/a.bin", "memory://tree/below/b.txt"]
    assert all(receipt.verified for receipt in result.receipts)


ODD = [
    *(
        "a.bin",
        "/dbl.bin",
        "sub/a.bin",
        "sub//z.bin",
        "deep/x//y//z.bin",
        "./x.bin",
        "../y.bin",
        "sub/../u.bin",
        "sub/.",
    ),
    *(" lead", "trail ", "a\nb", "é", "%41", "a?b", "a#b", "a*b", "[x]", "{x}", "a::b", "back\\slash", "~"),
]
"""Names that object stores and archives allow."""


def in_memory(_top: Path) -> tuple[str, set[str]]:
    system = MemoryFileSystem()
    system.pipe({f"/tree/{name}": name.encode() for name in ODD})
    return "memory://tree", {f"memory:/{name}" for name in system.store}


def on_disk(top: Path) -> tuple[str, set[str]]:
    """Names that a local file system makes of them."""
    for name in ODD:
        path = top / "tree" / name.strip("/")
        if not {".", ".."} & set(name.split("/")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
    paths = [path for path in (top / "tree").rglob("*") if path.is_file()]
    return f"file://{top}/tree", {f"file://{path}" for path in paths}


def in_a_zip(top: Path) -> tuple[str, set[str]]:
    with zipfile.ZipFile(top / "odd.zip", "w") as archive:
        for name in (*ODD, "a.bin/below", "//tri.bin"):
            archive.writestr(name, name.encode())
    container = f"::file://{top}/odd.zip"
    return f"zip://{container}", {f"zip://{name}{container}" for name in archive.namelist()}


def in_a_tar(top: Path) -> tuple[str, set[str]]:
    with tarfile.open(top / "odd.tar", "w") as archive:
        for name in ODD:
            member = tarfile.TarInfo(name)
            member.size = len(name.encode())
            archive.addfile(member, io.BytesIO(name.encode()))
    container = f"::file://{top}/odd.tar"
    return f"tar://{container}", {f"tar://{name}{container}" for name in ODD}


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("source", [in_memory, on_disk, in_a_zip, in_a_tar])
def test_every_odd_name_of_a_source_ends_in_an_event(source: Any, server: EmbeddedServer, tmp_path: Path) -> None:
    """It is sent, or it fails with a reason; none is left out."""
    url, names = source(tmp_path)
    result = upload(url, server=server.url)
    assert len(result.receipts) == len(names)
    if source in (in_memory, on_disk):  # an archive's own names differ: "/a" is listed as "a"
        assert {receipt.path for receipt in result.receipts} == names
    failed = [receipt for receipt in result.receipts if receipt.status is not Phase.COMPLETED]
    assert all(receipt.message for receipt in failed)
    assert len(stored(server)) == len(names) - len(failed)


def test_keys_of_s3_are_listed_page_by_page(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key to which no path leads is listed with the reason; the mark of a directory is no file."""
    keys = ["0", "1//x", "below/", "below/2", "whole/"]
    memory.pipe({"/tree/0": b"0"})
    asked: list[int] = []

    def call_s3(_system: object, method: str, **how: str) -> dict[str, object]:
        assert (method, how["Bucket"], how["Prefix"]) == ("list_objects_v2", "tree", "")
        asked.append(at := int(how.get("ContinuationToken", 0)))
        page = [{"Key": key, "Size": len(key) * (key != "below/"), "ETag": "e"} for key in keys[at : at + 2]]
        return {"Contents": page, "IsTruncated": at + 2 < len(keys), "NextContinuationToken": str(at + 2)}

    monkeypatch.setattr(MemoryFileSystem, "call_s3", call_s3, raising=False)
    found = reader("memory://tree").listing("memory://tree")
    first, *_ = next(found)
    assert (first, asked) == ("memory://tree/0", [0])
    others = [(place, isinstance(status, OSError)) for place, _, status in found]
    assert others == [("memory://tree/1//x", True), ("memory://tree/below/2", False), ("memory://tree/whole/", True)]
    assert asked == [0, 2, 4]


def test_same_upload_continues_by_ranges(server: EmbeddedServer, memory: MemoryFileSystem) -> None:
    """The second run reads from the offset of the server on."""
    memory.pipe({"/a.bin": BIG})
    server.faults.next_answers("PATCH", "*", [None, None, Answer(400)])
    options: dict[str, Any] = {"server": server.url, "chunk_size": "1M", "retries": 0}
    assert not upload("memory://a.bin", **options).ok
    started: list[int] = []
    result = upload("memory://a.bin", **options, on_event=lambda one: started.append(getattr(one, "offset", 0)))
    assert result.ok
    assert max(started) == 2 << 20
    assert stored(server) == {"a.bin": BIG}


def test_file_that_changes_fails(server: EmbeddedServer, memory: MemoryFileSystem) -> None:
    """It changes before the server gets the second chunk."""
    memory.pipe({"/a.bin": BIG})
    changed = threading.Event()

    def change(_progress: object) -> None:
        memory.pipe({"/a.bin": BIG})  # same size, later
        changed.set()

    with Proxy(server.url) as relay:
        relay.onlooker = Holding(lambda _request: relay.count("PATCH ") > 1 and not changed.is_set())
        result = upload("memory://a.bin", server=relay.url, chunk_size="1M", on_progress=change)
    assert [receipt.code for receipt in result.receipts] == ["changed"]
    assert stored(server) == {}


def test_change_between_two_reads_is_noticed(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a file system that remembers details, as that of S3."""
    info, known = MemoryFileSystem.info, dict[str, Any]()
    monkeypatch.setattr(MemoryFileSystem, "info", lambda self, path, **how: known.setdefault(path, info(self, path)))
    monkeypatch.setattr(MemoryFileSystem, "invalidate_cache", lambda *_: known.clear())
    memory.pipe({"/a.bin": BIG})
    there = status("memory://a.bin")
    blocks = read_range(LocalFile(0, "memory://a.bin", "a.bin", len(BIG), there.st_mtime_ns), 0, len(BIG), lambda: None)
    next(blocks)
    memory.pipe({"/a.bin": BIG})  # same size, later
    with pytest.raises(FileError, match="changed while it was being read"):
        list(blocks)


@pytest.mark.parametrize("follow", [False, True])
def test_links_at_a_url_are_followed_to_files_only(
    memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, follow: bool
) -> None:
    """They are skipped by default. A file that is named again is sent once."""
    memory.pipe({"/tree/a": b"a", "/tree/to-a": b"a", "/tree/to-b": b"", "/tree/to-gone": b"", "/b/file": b"b"})
    ls, info = MemoryFileSystem.ls, MemoryFileSystem.info

    def listed(*args: Any, **how: Any) -> list[dict[str, Any]]:
        found = ls(*args, **{**how, "detail": True})
        return [{**details, "islink": "/to-" in details["name"]} for details in found]

    def looked_up(self: MemoryFileSystem, path: str, **how: Any) -> dict[str, Any]:
        if path.endswith("gone"):
            raise FileNotFoundError(errno.ENOENT, "No such file", path)
        return info(self, path.replace("tree/to-b", "b"), **how)

    monkeypatch.setattr(MemoryFileSystem, "ls", listed)
    monkeypatch.setattr(MemoryFileSystem, "info", looked_up)
    settings = Settings(server="http://localhost", follow_links=follow)
    found = [
        step.reason if isinstance(step, FileSkipped) else step.message if isinstance(step, FileFailed) else step.path
        for step in select(settings, ["memory://tree", "memory://tree/a"])
    ]
    directory = "a link to a directory, which is not followed at a URL"
    links = ["memory://tree/to-a", directory, "No such file"] if follow else [SkipReason.SYMLINK] * 3
    assert found == ["memory://tree/a", *links, SkipReason.DUPLICATE]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"created": None}, "neither an ETag nor a modification time"),
        ({"created": "no time"}, "ValueError: "),
        ({"size": None}, "its source gives no size"),
    ],
)
def test_source_without_size_or_version_fails(
    change: dict[str, object],
    words: str,
    server: EmbeddedServer,
    memory: MemoryFileSystem,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory.pipe({"/tree/a.bin": b"a"})
    ls = MemoryFileSystem.ls

    def changed(self: MemoryFileSystem, path: str, detail: bool = True, **how: Any) -> Any:
        found = ls(self, path, detail=detail, **how)
        return [{**one, **change} for one in found] if detail else found

    monkeypatch.setattr(MemoryFileSystem, "ls", changed)
    (receipt,) = upload("memory://tree", server=server.url).receipts
    assert receipt.code == "unreadable"
    assert words in receipt.message


def test_directory_that_can_not_be_listed_is_a_failure(
    server: EmbeddedServer, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe({"/tree/a.bin": b"a", "/tree/below/closed/b.bin": b"b", "/tree/below/c.bin": b"c"})
    ls = MemoryFileSystem.ls

    def refuse(self: MemoryFileSystem, path: str, detail: bool = True, **how: Any) -> Any:
        if path.endswith("closed"):
            raise PermissionError("access denied")
        return ls(self, path, detail=detail, **how)

    monkeypatch.setattr(MemoryFileSystem, "ls", refuse)
    result = upload("memory://tree", server=server.url, include=["*.bin"])
    assert [(one.path, one.code) for one in result.receipts if one.code] == [
        ("memory://tree/below/closed", "unreadable")
    ]
    assert stored(server) == {"tree/a.bin": b"a", "tree/below/c.bin": b"c"}


def test_milliseconds_of_a_listing_are_no_change(
    server: EmbeddedServer, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers of S3 give them in listings, and whole seconds with a file."""
    memory.pipe({"/tree/a.bin": b"a"})
    found = {"name": "/tree/a.bin", "type": "file", "size": 1, "ETag": "tag"}
    info = MemoryFileSystem.info

    def of_file(self: MemoryFileSystem, path: str, **how: Any) -> Any:
        return {**found, "LastModified": "2026-01-01T00:00:00Z"} if path.endswith("bin") else info(self, path, **how)

    monkeypatch.setattr(MemoryFileSystem, "info", of_file)
    listed = {**found, "LastModified": "2026-01-01T00:00:00.123Z"}
    monkeypatch.setattr(MemoryFileSystem, "ls", lambda *_arguments, **_how: [listed])
    assert upload("memory://tree", server=server.url).ok


def test_files_of_a_zip_archive_and_a_list_of_urls(server: EmbeddedServer, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("in/a.txt", b"a" * 1000)
    (tmp_path / "b.txt").write_bytes(b"b")
    done = uploader("upload", f"zip://::file://{tmp_path}/some.zip", "-s", server.url, home=tmp_path)
    assert done.code == 0, done.err
    lines = [{"path": f"file://{tmp_path}/b.txt"}, {"path": f"zip://in/a.txt::file://{tmp_path}/some.zip", "name": "c"}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = uploader("upload", "--from-file", "list.jsonl", "-s", server.url, home=tmp_path)
    assert done.code == 0, done.err
    assert stored(server) == {"some.zip/in/a.txt": b"a" * 1000, "b.txt": b"b", "c": b"a" * 1000}


def test_missing_fsspec_is_named(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    monkeypatch.setattr("uploader_cli.extras.find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="s3://bucket/a needs fsspec, which is not installed") as raised:
        upload("s3://bucket/a", server=server.url)
    assert raised.value.hint.startswith("pip install 'fsspec>=")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://nothing", "memory://nothing: no such file or directory"),
        ("nothing://a", "Protocol not known"),
        ("sftp://user:secret@host/a", "credentials don't belong in the URL of a file"),
        ("zip://a.txt::http://bob:secret@host/x.zip", "credentials don't belong in the URL of a file"),
    ],
)
def test_url_that_can_not_be_read_is_a_usage_error(url: str, words: str, server: EmbeddedServer) -> None:
    with pytest.raises(UsageError, match=words):
        upload(url, server=server.url)


class Source(BaseHTTPRequestHandler):
    """A server of HTTP with one file of 5,000 bytes, and other answers to ranges."""

    body, how = b"s" * 5000, "right"
    seen: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self._start(200, [("Content-Length", "5000")])

    def do_GET(self) -> None:
        self.seen.append(self.path)
        if self.how in ("none", "no word"):
            self._start(200, [("Content-Length", "5000")])
            return
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        shift = 7 if self.how == "other range" else 0
        self._start(206, [("Content-Range", f"bytes {first + shift}-{last + shift}/5000")])
        with contextlib.suppress(OSError):  # the client has enough
            self.wfile.write(self.body[first : last + 1][: 9 if self.how == "short" else None])
            for _ in range(2000 if self.how == "endless" else 0):
                self.wfile.write(bytes(1 << 20))

    def _start(self, code: int, headers: list[tuple[str, str]]) -> None:
        self.send_response(code)
        if self.how != "no word":
            headers = [*headers, ("Accept-Ranges", "none" if self.how == "none" else "bytes")]
        for header in (*headers, ("ETag", '"e"'), ("Connection", "close")):
            self.send_header(*header)
        self.end_headers()

    def log_message(self, *_text: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    """Serve the file; yield its URL without a query."""
    Source.how = "right"
    Source.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Source) as served:
        threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}/in/video.mp4"
        served.shutdown()


def test_query_of_a_url_is_in_no_name_and_shown_nowhere(web: str, server: EmbeddedServer, tmp_path: Path) -> None:
    secret = "X-Amz-Signature=s3cr3t-signature"
    reports = [word for name in ("r.json", "r.csv") for word in ("--report", name)]
    words = (
        *reports,
        "--links",
        "l.txt",
        "--failed-to",
        "f.csv",
        "--log-file",
        "log",
        "--log-level",
        "debug",
        "--json",
    )
    done = uploader("upload", f"{web}?{secret}", "-s", server.url, "--json", *words, home=tmp_path)
    assert done.code == 0, done.err
    assert stored(server) == {"video.mp4": Source.body}
    assert all(path.endswith(secret) for path in Source.seen)
    (started,) = done.of("file.started")
    assert re.fullmatch(re.escape(web) + r"\?\*{3}[0-9a-f]{12}", started["path"])
    again = uploader("upload", f"{web}?{secret}", f"{web}?absent", "-s", server.url, "-v", home=tmp_path)
    (tmp_path / "list").write_text(f"{web}?{secret}\nhttp://127.0.0.1:1/a?{secret}\n")
    listed = uploader("upload", "--from-file", "list", "-s", server.url, "--retries", "0", home=tmp_path)
    (tmp_path / "list").unlink()
    shown = uploader("runs", "--json", home=tmp_path)
    texts = [text for one in (done, again, listed, shown) for text in (one.out, one.err)]
    texts += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in texts if "s3cr3t" in text]


def test_run_whose_urls_are_secret_is_not_offered_to_resume(web: str, server: EmbeddedServer, tmp_path: Path) -> None:
    """`resume` could not read them again; the same command continues the run."""
    command = ("upload", f"{web}?X-Amz-Signature=s3cr3t", "-s", server.url, "--retries", "0")
    server.faults.next_answers("POST", "*", [503] * 9)
    done = uploader(*command, home=tmp_path)
    assert (done.code, "uploader resume" in done.err) == (3, False), done.err
    assert "the same command again" in done.err
    assert "uploader resume" not in uploader("resume", "--list", home=tmp_path).err


@pytest.mark.parametrize(
    ("how", "words"),
    [("endless", "sends more than what"), ("other range", "sends another range"), ("short", "sent 9 bytes of a range")],
)
def test_source_that_sends_another_range_than_the_one_asked_for_fails(
    how: str, words: str, web: str, server: EmbeddedServer
) -> None:
    Source.how = how
    result = upload(web, server=server.url, retries=0)
    assert not result.ok
    assert words in (result.receipts[0].message or "")
    assert stored(server) == {}


@pytest.mark.parametrize("accept_ranges", ["none", "no word"])
def test_archive_on_a_server_without_ranges_is_a_usage_error(
    accept_ranges: str, web: str, server: EmbeddedServer
) -> None:
    Source.how = accept_ranges
    with pytest.raises(UsageError, match="the server does not answer requests for ranges") as raised:
        upload(f"zip://a.txt::{web}", server=server.url)
    assert "download the archive" in raised.value.hint
