"""`uploader check` compares local files with those on a real server."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from command import VALIDATORS, Done, uploader
from scripted_server import Answer, Request, Rule, ScriptedServer
from serving import inside, running_server
from time_limits import PATIENCE, SLACK
from tus_services import Plain

from uploader_server.config import Limits
from uploader_server.http.bodies import TYPES, Bodies, one_of, schemas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

LOOKUP = ("POST", "/api/upload/lookup")


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """Run the bundled server with packs and lookups."""
    with running_server(packs=True) as running:
        yield running


@pytest.mark.thorough
def test_check_lists_different_and_missing_files(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """-v names the same ones, too, and -q only the others."""
    files = make_files(a=3, b=3, **{"deep/c": 3})
    assert uploader("upload", "files", "-s", server.url, home=tmp_path).code == 0
    equal = uploader("check", "files", "-s", server.url, "-q", home=tmp_path)
    assert (equal.code, equal.out, equal.err) == (0, "", "")
    (files / "b").write_bytes(b"changed")
    make_files(new=1)
    done = uploader("check", "files", "-s", server.url, "-v", home=tmp_path)
    *lines, summary = done.out.splitlines()
    assert (done.code, done.err) == (4, "")
    assert lines == [
        "same: files/a",
        "different: files/b (7 bytes, on the server 3)",
        "same: files/deep/c",
        "missing: files/new",
    ]
    assert summary.startswith("2 same, 1 different, 1 missing (14 B in ")
    assert summary.endswith(", by content)")
    quiet = uploader("check", "files", "-s", server.url, "-q", home=tmp_path)
    assert (quiet.code, quiet.out.splitlines()) == (4, [lines[1], lines[3]])


def test_check_compares_the_content(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """The server computes a digest that it does not know; a file under another name is found by its digest."""
    files = make_files(a=b"abc", b=b"bcd", renamed=b"one")
    upload = ("upload", "files", "-s", server.url)
    assert uploader(*upload, home=tmp_path).code == 0
    (files / "renamed").write_bytes(b"two")
    assert uploader(*upload, home=tmp_path).code == 0
    stored = server.root / "personal" / "files"
    assert (stored / "renamed (2)").read_bytes() == b"two"
    before = (stored / "a").stat()
    (stored / "a").write_bytes(b"abX")
    os.utime(stored / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    (stored / "b").write_bytes(b"bcd")  # its digest is not known any more
    done = uploader("check", "files", "-s", server.url, "--digest", "--json", "--state-dir", "none", home=tmp_path)
    *lines, last = lines_of(done)
    assert (done.code, last["type"], last["exit_code"]) == (4, "check.finished", 4)
    results = {line["name"]: (line["result"], line["location"]) for line in lines}
    assert results == {
        "files/a": ("different", "/uploads/personal/files/a"),
        "files/b": ("same", "/uploads/personal/files/b"),
        "files/renamed": ("same", "/uploads/personal/files/renamed%20%282%29"),
    }
    text = uploader("check", "files", "-s", server.url, home=tmp_path)
    assert (text.code, text.out.splitlines()[0]) == (4, "different: files/a (same size, other content)")


@pytest.mark.parametrize("packs", [True, False], ids=["lookup", "no lookup"])
def test_check_of_sizes_says_same_size(make_files: Files, tmp_path: Path, packs: bool) -> None:
    """Also on a server without a lookup, with one call for each file."""
    (make_files(a=b"abc", b=b"bcd", missing=b"") / "link").symlink_to("a")
    with running_server(packs=packs) as server:
        stored = server.root / "personal" / "files"
        stored.mkdir()
        (stored / "a").write_bytes(b"abX")
        (stored / "b").write_bytes(b"b")
        check = ("check", "files", "-s", server.url, "--size-only")
        done = uploader(*check, "-v", home=tmp_path)
        *lines, summary = done.out.splitlines()
        *_, last = found = lines_of(uploader(*check, "--json", home=tmp_path))
    assert done.code == 4
    assert lines == [
        "same size: files/a",
        "different: files/b (3 bytes, on the server 1)",
        "skipped: files/link (symlink)",
        "missing: files/missing",
    ]
    assert [line["result"] for line in found if line["type"] == "check.file"] == ["same_size", "different", "missing"]
    assert last["skipped"] == 1
    assert summary.startswith("1 same size, 1 different, 1 missing, 1 skipped (")
    assert summary.endswith(", by size only)")
    assert uploader(*check, "--digest", home=tmp_path).code == 2


def test_check_asks_again_for_digests_that_take_long(
    server: EmbeddedServer, make_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer has the digest of one more file, and the others are pending; all take longer than `--max-wait`."""
    files = {f"file-{number}": f"content {number}".encode() for number in range(12)}
    shutil.copytree(make_files(**files), server.root / "personal" / "files")
    store = inside(server).store
    store.digests.patience = 0.3
    sha256: Callable[[int], bytes] = store.reading.sha256

    def slowly(descriptor: int) -> bytes:
        time.sleep(0.35)
        return sha256(descriptor)

    monkeypatch.setattr(store.reading, "sha256", slowly)
    quick = {"uploader_cli.transfer.stored_files.DIGEST_PAUSE": 0.05}
    options = ("-s", server.url, "--jobs", "1", "--max-wait", "3")
    done = uploader("check", "files", *options, home=tmp_path, constants=quick)
    assert (done.code, done.out.partition(" (")[0]) == (0, "12 same")
    assert server.faults.count(*LOOKUP) >= 3


@pytest.mark.parametrize("early", [False, True])
def test_check_read_finds_bytes_that_changed_unseen(
    early: bool, server: EmbeddedServer, make_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded digest still counts, as of a file that is written through a mapping.

    An early server refuses to read anew: then the bytes are read back.
    """
    if early:
        monkeypatch.setitem(TYPES, "digests", one_of(["known", "compute"]))
        monkeypatch.setattr("uploader_server.batch.lookup._BODIES", Bodies(schemas(Limits())))
    make_files(a=b"good", b=b"other")
    assert uploader("upload", "files", "-s", server.url, home=tmp_path).code == 0
    store = inside(server).store
    (server.root / "personal/files/a").write_bytes(b"goop")
    identity = store.digests.identify("personal/files/a")
    store.database.wait(store.digests.saved([(identity, hashlib.sha256(b"good").digest())]))
    check = ("check", "files", "-s", server.url, "-v")
    assert uploader(*check, home=tmp_path).code == 0
    done = uploader(*check, "--read", home=tmp_path)
    assert (done.code, done.out.splitlines()[:2]) == (
        4,
        ["different: files/a (same size, other content)", "same: files/b"],
    )
    assert (server.faults.count("GET", "/uploads/*") > 0) is early


@pytest.mark.thorough
def test_check_finds_a_renamed_file_by_its_receipt(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """The server kept the file that had the name; on another machine the sizes differ."""
    make_files(a=b"new content")
    kept = server.root / "personal" / "files" / "a"
    kept.parent.mkdir()
    kept.write_bytes(b"old")
    assert uploader("upload", "files", "-s", server.url, home=tmp_path).code == 0
    check = ("check", "files", "-s", server.url)
    assert uploader(*check, home=tmp_path).code == 0
    elsewhere = uploader(*check, "--size-only", "--state-dir", "none", home=tmp_path)
    assert (elsewhere.code, elsewhere.out.splitlines()[0]) == (4, "different: files/a (11 bytes, on the server 3)")
    assert not (tmp_path / "none").exists()
    assert uploader("upload", "files", "-s", server.url, "--resend", "--if-exists", "fail", home=tmp_path).code == 4
    assert uploader(*check, home=tmp_path).code == 0


def lines_of(done: Done) -> list[dict[str, Any]]:
    """Return the lines of `--json`, each checked against the schema."""
    lines = [json.loads(line) for line in done.out.splitlines()]
    for line in lines:
        VALIDATORS[line["type"]].validate(line)
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    return lines


def test_check_asks_for_many_files_in_one_call(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """A call that fails is retried; lines come in the order of the files."""
    files = make_files(**{f"{number:04}": 0 for number in range(1100)})
    shutil.copytree(files, server.root / "personal" / "files")
    server.faults.next_answers(*LOOKUP, [503])
    done = uploader("check", "files", "-s", server.url, "--json", home=tmp_path)
    assert done.code == 0, done.err
    assert server.faults.count(*LOOKUP) == 3
    names = [json.loads(line).get("name") for line in done.out.splitlines()]
    assert names == [*(f"files/{number:04}" for number in range(1100)), None]


def test_check_takes_the_selection_of_upload(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """A list has names and categories; filters leave files out; --dest is where they are; an unreadable file fails."""
    make_files(a=1, b=2, c=3)
    (tmp_path / "list.csv").write_text("path,name,category\nfiles/a,x/a,scenic\nfiles/b,b,\nfiles/c,c,scenic\n")
    selection = ("--from-file", "list.csv", "--exclude", "c", "-s", server.url, "--dest", "to/here")
    assert uploader("upload", *selection, home=tmp_path).code == 0
    assert (server.root / "scenic" / "to" / "here" / "x" / "a").exists()
    done = uploader("check", *selection, "--json", home=tmp_path)
    assert [line["name"] for line in lines_of(done)[:-1]] == ["to/here/x/a", "to/here/b"]
    assert done.code == 0
    assert uploader("check", *selection[2:], "files", home=tmp_path).code == 4
    (tmp_path / "files" / "b").unlink()
    done = uploader("check", *selection, "--lenient", "--json", home=tmp_path)
    assert done.code == 4
    assert [line["type"] for line in lines_of(done)] == ["check.file", "file.failed", "check.finished"]


@pytest.mark.parametrize("kind", ["reference", "without packs", "tus server", "tus endpoint"])
def test_check_needs_a_server_with_lookups(kind: str, make_files: Files, tmp_path: Path) -> None:
    make_files(a=1)
    with ExitStack() as running:
        if kind.startswith("tus"):
            endpoint = running.enter_context(Plain()).url
            where = {"UPLOADER_TUS_ENDPOINT" if kind == "tus endpoint" else "UPLOADER_SERVER": endpoint}
        else:
            config = {"flavour": "reference"} if kind == "reference" else {"packs": False}
            where = {"UPLOADER_SERVER": running.enter_context(running_server(**config)).url}
        done = uploader("check", "files", home=tmp_path, **where)
    error, hint = done.err.splitlines()
    assert done.code == 2
    assert error.startswith("error: http://127.0.0.1:")
    assert "can't be asked which files it has" in error
    assert hint.startswith("hint: ")
    assert "upload --verify" in hint
    assert kind == "tus endpoint" or "--size-only" in hint


def test_size_only_does_not_advise_itself_to_a_server_without_sizes(make_files: Files, tmp_path: Path) -> None:
    make_files(a=1)
    with running_server(flavour="reference") as server:
        done = uploader("check", "files", "-s", server.url, "--size-only", home=tmp_path)
    assert done.code == 2
    assert "upload --verify" in done.err
    assert "--size-only" not in done.err


def test_check_of_a_server_whose_lookup_computes_no_digests_exits_2(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """It refuses the request, which has a key that it does not know."""
    make_files(a=1)
    server.faults.next_answers(*LOOKUP, [400])
    done = uploader("check", "files", "-s", server.url, home=tmp_path)
    assert done.code == 2
    assert "can't be asked for the contents of its files: the server refused: 400" in done.err
    assert "upload --verify, or sizes, with: --size-only" in done.err
    assert uploader("check", "files", "-s", server.url, "--size-only", home=tmp_path).code == 4


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_check_says_that_the_token_is_withheld(
    more: tuple[str, ...], server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    make_files(a=1)
    (tmp_path / "uploader.toml").write_text(f"server = '{server.url}'")
    done = uploader("check", "files", *more, home=tmp_path, UPLOADER_TOKEN="s3cret")
    warned = lines_of(done)[0]["text"] if more else done.err.splitlines()[0].removeprefix("warning: ")
    assert warned.startswith("the token is not sent: only ")


@pytest.mark.parametrize("fault", ["status:lookup:500", "reset:lookup"])
def test_check_exits_3_where_a_call_keeps_failing(fault: str, make_files: Files, tmp_path: Path) -> None:
    make_files(a=1)
    with running_server(packs=True, faults=(fault,)) as server:
        done = uploader("check", "files", "-s", server.url, "--retries", "1", home=tmp_path)
        assert server.faults.count(*LOOKUP) == 2
    assert (done.code, done.err.count("error: ")) == (3, 1), done.err


def lookup_server(answer: Callable[[Request], Answer]) -> ScriptedServer:
    """Return a server whose lookups of one file each are answered by `answer`."""
    limits = {"maxFiles": 9, "maxFileSize": 1 << 30, "allowedTypes": ["*"], "mixedTypes": True, "relativePaths": True}
    health = {"status": "OK", "limits": limits, "lookup": {"endpoint": LOOKUP[1], "maxFiles": 1}}
    return ScriptedServer(Rule(Answer(200, health), "GET /health"), Rule(answer, " ".join(LOOKUP)))


def test_check_without_a_digest_of_the_server_compares_the_size(make_files: Files, tmp_path: Path) -> None:
    make_files(other=b"abc", same=b"abcde")
    with lookup_server(lambda _request: Answer(200, {"files": [{"exists": True, "size": 5}]})) as server:
        done = uploader("check", "files", "-s", server.url, home=tmp_path)
    assert done.code == 4
    different, failed, summary = done.out.splitlines()
    assert different == "different: files/other (3 bytes, on the server 5)"
    assert failed.startswith("failed: files/same: the server gives no digest of it")
    assert summary.startswith("0 same, 1 different, 1 failed (")


def test_failed_lookup_ends_the_lookups_that_run(make_files: Files, tmp_path: Path) -> None:
    make_files(first=1, second=1)
    is_running = threading.Event()

    def answer(request: Request) -> Answer:
        if b"files/second" in request.body:
            is_running.set()
            request.over.wait(PATIENCE)
        assert is_running.wait(PATIENCE)
        return Answer(400, {"error": "VALIDATION_ERROR"})

    with lookup_server(answer) as server:
        began = time.monotonic()
        done = uploader("check", "files", "-s", server.url, "--size-only", "--jobs", "2", home=tmp_path)
        assert time.monotonic() - began < 2 * SLACK
    assert done.code == 4
    assert "VALIDATION_ERROR" in done.err


def test_check_exits_6_without_a_server(make_files: Files, tmp_path: Path) -> None:
    make_files(a=1)
    assert uploader("check", "files", "-s", "http://127.0.0.1:9", home=tmp_path).code == 6
