"""`upload --then`: local files that are moved or deleted once the server has the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pytest
from command import ended, finish, read_until, start, uploader
from proxy import Cut, Onlooker, Proxy
from scripted_server import Answer as Reply
from serving import inside, running_server
from time_limits import PATIENCE
from tus_services import Finishing, Plain, Service

from uploader_cli.core.plan import LocalFile
from uploader_cli.features.then.removal import identified, set_aside
from uploader_server.config import Limits
from uploader_server.faults import Answer
from uploader_server.http.bodies import TYPES, Bodies, one_of, schemas
from uploader_server.storage.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command import Process
    from proxy import Request
    from scripted_server import Request as Asked

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

AT_ONCE = 10.0  # seconds within which a server is asked for what workers do at once
HAS_THEN = ("--then", "delete", "--json")


def left(directory: Path) -> dict[str, bytes]:
    """The files below a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


class AtReading(Onlooker):
    """Calls a function while the server gives out the bytes of a stored file, once."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act, self.asked = act, 0

    def at_answer(self, request: Request) -> None:
        if request.method == "GET" and "/uploads/" in request.target:
            self.asked += 1
            if self.asked == 1:
                self.act()


@pytest.mark.parametrize("how", [("--no-pack",), (), ("--protocol", "batch")], ids=["tus", "pack", "batch"])
def test_files_are_deleted_once_their_digests_are_equal(
    how: tuple[str, ...], make_files: Files, tmp_path: Path
) -> None:
    """Event, report and stream say so; directories and symbolic links stay."""
    files = make_files(**{"a.bin": 10, "empty": 0, "sub/b.bin": os.urandom(300_000)})
    (files / "link").symlink_to("a.bin")
    sent = left(files)
    del sent["link"]
    if "batch" in how:
        del sent["empty"]
    with running_server(packs=True) as server:
        done = uploader("upload", "files", "-s", server.url, *HAS_THEN, *how, "--report", "r.json", home=tmp_path)
        assert done.code == 0, done.err
        assert left(server.root / "personal/files") == sent
        assert how or server.faults.count("HEAD", "/uploads/*") == 0  # one lookup for the files of a pack
        assert uploader("upload", "files", "-s", server.url, *HAS_THEN, *how, home=tmp_path).code == 0
    assert sorted(path.name for path in files.rglob("*")) == ["empty"] * ("batch" in how) + ["link", "sub"]
    digests = {f"files/{name}": f"sha256:{hashlib.sha256(data).hexdigest()}" for name, data in sent.items()}
    ends = {event["path"]: event for event in done.of("file.completed")}
    rows = {row["path"]: row for row in json.loads((tmp_path / "r.json").read_text())["files"]}
    for path, digest in digests.items():
        for said in (ends[path], rows[path]):
            assert (said["checksum"], said["verified_by"], said["removed"]) == (digest, "digest", "deleted")


def test_files_are_moved_and_replace_nothing(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """A moved file has its path on the server below the directory, or a number where the name is taken.

    A copy that an interrupted move has left there is no other file.
    """
    files = make_files(**{"a.txt": b"new", "sub/b.txt": b"b"})
    sent = make_files("sent", **{"files/a.txt": b"old", "files/sub/b.txt": b""})
    shutil.copy2(files / "sub/b.txt", sent / "files/sub/b.txt")
    options = ("-s", server.url, "--dest", "x", "--then", f"move:{sent}", "--json")
    done = uploader("upload", "files", *options, home=tmp_path)
    assert done.code == 0, done.err
    assert left(sent) == {"files/a.txt": b"old", "files/a (2).txt": b"new", "files/sub/b.txt": b"b"}
    assert left(tmp_path / "files") == {}
    moved = {event["path"]: (event["removed"], event["moved_to"]) for event in done.of("file.completed")}
    assert moved == {
        "files/a.txt": ("moved", str(sent / "files/a (2).txt")),
        "files/sub/b.txt": ("moved", str(sent / "files/sub/b.txt")),
    }


def rewrite(path: Path) -> None:
    """Change the content, and nothing that a listing shows."""
    info = path.stat()
    path.write_bytes(b"x" * info.st_size)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def replace(path: Path) -> None:
    """Put an equal file in its place."""
    other, info = path.with_name("other"), path.stat()
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(info.st_atime_ns, info.st_mtime_ns))
    other.rename(path)


def link(path: Path) -> None:
    """Put a link to an equal file in its place."""
    path.rename(path.with_name("target"))
    path.symlink_to("target")


@pytest.mark.parametrize(
    "change", [replace, *(pytest.param(each, marks=pytest.mark.thorough) for each in (rewrite, link))]
)
@pytest.mark.parametrize("then", [pytest.param("delete", marks=pytest.mark.thorough), "move:sent"])
def test_file_that_changes_after_it_was_read_is_kept(
    change: Callable[[Path], None], then: str, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The stored file is that of before; the next run compares again, and sends nothing that is equal."""
    files, sent = make_files(**{"a.bin": 10}), make_files("sent", x=0)
    with Proxy(server.url, AtReading(lambda: change(files / "a.bin"))) as proxy:
        done = uploader("upload", files, "-s", proxy.url, "--then", then, "--json", home=tmp_path)
        assert done.code == 3
        (failed,) = done.of("file.failed")
        assert failed["code"] == ("changed" if change is link else "kept")
        assert failed["message"] == "it is stored, and kept here: it has changed since it was read"
        rewritten = (files / "a.bin").read_bytes()
        assert len(rewritten) == 10
        assert left(sent) == {"x": b""}
        again = uploader("upload", files, "-s", proxy.url, "--then", then, "--json", home=tmp_path)
        assert again.code == 0, again.err
        more: dict[Any, dict[str, bytes]] = {
            replace: {},
            link: {"files/target": b"a" * 10},
            rewrite: {"files/a (2).bin": rewritten},
        }
        assert left(server.root / "personal") == {"files/a.bin": b"a" * 10} | more[change]


def test_file_that_was_taken_away_is_removed_and_one_without_a_place_is_kept(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """Another program does both between the upload and the move."""
    files, sent = make_files(**{"a.bin": 10, "b.bin": 10}), tmp_path / "sent"
    sent.mkdir()

    def meddle() -> None:
        (files / "a.bin").unlink()
        sent.rmdir()
        sent.write_text("no directory")

    with Proxy(server.url, AtReading(meddle)) as proxy:
        done = uploader("upload", files, "-s", proxy.url, "--then", "move:sent", "--json", home=tmp_path)
    (completed,), (failed,) = done.of("file.completed"), done.of("file.failed")
    assert (completed["path"], completed["removed"]) == (str(files / "a.bin"), "gone")
    assert "moved_to" not in completed
    assert (failed["path"], failed["code"]) == (str(files / "b.bin"), "kept")
    assert failed["message"] == f"it is stored, and kept here: Not a directory: {sent / 'files'}"
    assert done.code == 4


@pytest.mark.parametrize("moves", [True, False])
def test_hard_links_of_one_file_are_all_removed(
    moves: bool, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The removal of one changes the ctime of the others: they are read again. Links elsewhere stay."""
    files = make_files(**{"a.bin": 300_000})
    for name in ("files/b.bin", "files/c.bin", "elsewhere"):
        (tmp_path / name).hardlink_to(files / "a.bin")
    sent = make_files("sent", x=b"")
    then = ("--then", f"move:{sent}" if moves else "delete")
    done = uploader("upload", files, "-s", server.url, *then, "--no-pack", "--json", home=tmp_path)
    assert done.code == 0, done.err
    data = (tmp_path / "elsewhere").read_bytes()
    assert left(files) == {}
    assert left(server.root / "personal") == {f"files/{name}.bin": data for name in "abc"}
    assert left(sent) == {"x": b""} | ({f"files/{name}.bin": data for name in "abc"} if moves else {})


@pytest.mark.parametrize("packs", [False, True])
def test_file_that_differs_on_the_server_is_kept(packs: bool, make_files: Files, tmp_path: Path) -> None:
    """All checksums of the chunks, or of the pack, were right. The lookup fails: an early server reads no file anew."""
    files = make_files(**{"a.bin": 10, "b.bin": 10})
    digest = {"Repr-Digest": "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:", "Content-Length": "10"}
    with running_server(packs=packs) as server:
        server.faults.next_answers("HEAD", "/uploads/*", [Answer(200, digest)] * 2)
        server.faults.next_answers("GET", "/uploads/*", [Answer(200, body=b"x" * 10)] * 2)
        server.faults.next_answers("POST", "*/lookup", [Answer(400)])
        done = uploader("upload", files, "-s", server.url, *HAS_THEN, home=tmp_path)
    assert done.code == 7
    assert [event["code"] for event in done.of("file.failed")] == ["integrity"] * 2
    assert left(files) == {"a.bin": b"a" * 10, "b.bin": b"b" * 10}


def test_verify_keeps_a_file_that_the_server_gives_out_with_other_bytes(make_files: Files, tmp_path: Path) -> None:
    """Without --verify, the digest in the lookup is enough."""
    files = make_files(**{"a.bin": 10, "b.bin": 10})
    with running_server(packs=True, tus=False) as server:
        server.faults.next_answers("HEAD", "/uploads/*", [Answer(400)] * 2)
        server.faults.next_answers("GET", "/uploads/*", [Answer(200, body=b"x" * 10)] * 2)
        options = (*HAS_THEN, "--verify", "--protocol", "batch")
        done = uploader("upload", files, "-s", server.url, *options, home=tmp_path)
        assert (done.code, left(files)) == (7, {"a.bin": b"a" * 10, "b.bin": b"b" * 10}), done.err


@pytest.mark.parametrize("early", [False, True])
def test_stored_bytes_that_changed_unseen_keep_the_local_file(
    early: bool, make_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded digest still counts, as of a file that is written through a mapping: it is read before a deletion.

    An early server refuses to: then the bytes are read back.
    """
    if early:
        monkeypatch.setitem(TYPES, "digests", one_of(["known", "compute"]))
        monkeypatch.setattr("uploader_server.batch.lookup._BODIES", Bodies(schemas(Limits())))
    files = make_files(**{"a.bin": b"good", "b.bin": b"other"})
    with running_server(packs=True) as server:
        assert uploader("upload", "files", "-s", server.url, home=tmp_path).code == 0
        stored, store = server.root / "personal/files/a.bin", inside(server).store
        stored.write_bytes(b"goop")
        identity = store.digests.identify("personal/files/a.bin")
        store.database.wait(store.digests.saved([(identity, hashlib.sha256(b"good").digest())]))
        done = uploader("upload", "files", "-s", server.url, *HAS_THEN, home=tmp_path)
        assert server.faults.count("GET", "/uploads/*") == (2 if early else 1)  # without it those that differ
    assert done.code == 7
    assert [(event["path"], event["code"]) for event in done.of("file.failed")] == [("files/a.bin", "integrity")]
    assert left(files) == {"a.bin": b"good"}


@pytest.mark.parametrize(
    ("before", "options", "expected"),
    [(False, (), 0), (True, (), 2), (True, ("--resend",), 2)],
    ids=["new", "present", "existing"],
)
def test_server_reads_only_files_that_were_there_before(
    before: bool,
    options: tuple[str, ...],
    expected: int,
    make_files: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The digests of a pack that it has just stored are those of the bytes that arrived."""
    reads, read = list[object](), Reading.sha256
    monkeypatch.setattr(Reading, "sha256", lambda *args: read(*args) if reads.append(args) is None else b"")
    files = make_files(**{"a.bin": b"a", "b.bin": b"b"})
    with running_server(packs=True) as server:
        if before:
            assert uploader("upload", "files", "-s", server.url, home=tmp_path).code == 0
        done = uploader("upload", "files", "-s", server.url, *HAS_THEN, *options, home=tmp_path)
    assert (done.code, len(reads)) == (0, expected), done.err
    assert left(files) == {}


def test_server_that_can_not_be_asked_is_exit_2_unless_unverified(make_files: Files, tmp_path: Path) -> None:
    """The next run, with --then-unverified, sends nothing again."""
    files = make_files(**{"a.bin": 10, "b.bin": 10})
    with Plain() as plain:
        command = ("upload", files, "--tus-endpoint", plain.url, *HAS_THEN)
        refused = uploader(*command, home=tmp_path)
        assert refused.code == 2
        assert {event["code"] for event in refused.of("file.failed")} == {"unverifiable"}
        assert "--then-unverified" in refused.of("file.failed")[0]["message"]
        done = uploader(*command, "--then-unverified", home=tmp_path)
        assert done.code == 0, done.err
        assert [event["removed"] for event in done.of("file.skipped")] == ["deleted"] * 2
        assert left(files) == {}
        assert sum(method == "POST" for method, *_ in plain.requests) == 2


@pytest.mark.parametrize("options", [(), ("--verify",)], ids=" ".join)
@pytest.mark.parametrize("status", [500, 403])
def test_file_that_the_server_does_not_give_out_is_kept_unless_unverified(
    status: int, options: tuple[str, ...], make_files: Files, tmp_path: Path
) -> None:
    """`GET` is asked once; what it says is a warning, and no failure of the token or of the server."""
    files = make_files(**{"a.bin": 10})
    with Finishing() as service:
        service.unreadable = Reply(status)
        command = ("upload", files, "--tus-endpoint", service.url, *HAS_THEN, *options)
        refused = uploader(*command, home=tmp_path)
        assert (refused.code, left(files)) == (2, {"a.bin": b"a" * 10})
        assert [event["code"] for event in refused.of("file.failed")] == ["unverifiable"]
        assert [event["code"] for event in refused.of("warning")] == ["unverifiable"]
        assert [method for method, _ in service.requests].count("GET") == 1
        assert uploader(*command, "--then-unverified", home=tmp_path).code == 0
    assert left(files) == {}


def test_empty_file_that_only_its_creation_confirms_is_kept_also_unverified(
    make_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers 404 to all that follows the creation, also in the next run."""
    monkeypatch.setattr(Finishing, "lock_status", 404)
    files = make_files(**{"a.bin": 0})
    with Finishing() as service:
        service.locked = 100
        for _ in range(2):
            done = uploader(
                "upload", files, "--tus-endpoint", service.url, *HAS_THEN, "--then-unverified", home=tmp_path
            )
            assert (done.code, left(files)) == (2, {"a.bin": b""})
            assert [event["code"] for event in done.of("file.failed")] == ["unverifiable"]


def test_trusted_receipt_of_an_upload_that_is_gone_removes_nothing(make_files: Files, tmp_path: Path) -> None:
    files = make_files(**{"a.bin": 10})
    with Plain() as plain:
        command = ("upload", files, "--tus-endpoint", plain.url)
        assert uploader(*command, home=tmp_path).code == 0
        plain.uploads.clear()
        trusting = ("--skip-existing", "--trust-receipts", "--then-unverified")
        assert uploader(*command, *HAS_THEN, *trusting, home=tmp_path).code == 2
    assert left(files) == {"a.bin": b"a" * 10}


def test_bytes_are_read_back_where_there_is_no_digest(make_files: Files, tmp_path: Path) -> None:
    files = make_files(**{"a.mp4": 10})
    with running_server(flavour="reference", processing_seconds=0.01) as server:
        done = uploader("upload", files, "-s", server.url, *HAS_THEN, home=tmp_path)
        assert done.code == 0, done.err
        assert [(event["verified_by"], event["removed"]) for event in done.of("file.completed")] == [
            ("bytes", "deleted")
        ]
        assert server.faults.count("GET", "/uploads/*") == 1
    assert left(files) == {}


@pytest.mark.parametrize("again", [pytest.param("resume", marks=pytest.mark.thorough), "upload"])
@pytest.mark.parametrize("named", [pytest.param(True, marks=pytest.mark.thorough), False])
@pytest.mark.feature("plan")
def test_run_that_was_killed_compares_and_deletes_the_rest(
    named: bool, again: str, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """Killed when one file is deleted, and the other one stored and not deleted yet: nothing is sent again."""
    make_files(**{"a.bin": 10, "b.bin": 20})
    (tmp_path / "list.csv").write_text("path,name\nfiles/a.bin,x\nfiles/b.bin,y\n")
    paths = ["files/a.bin", "files/b.bin"] if named else ["--from-file", "list.csv"]
    running: SimpleQueue[Process] = SimpleQueue()

    class AtSecond(AtReading):
        def at_answer(self, request: Request) -> None:
            if request.answer.get("content-length") == "20":
                super().at_answer(request)

    with Proxy(server.url, AtSecond(lambda: running.get(timeout=PATIENCE).kill())) as proxy:
        command = ("upload", *paths, "-s", proxy.url, "-j", "1", *HAS_THEN)
        running.put(process := start(*command, home=tmp_path))
        assert finish(process).code == -signal.SIGKILL
        assert left(tmp_path / "files") == {"b.bin": b"b" * 20}
        assert "then deleted" in uploader(*command[:-1], "--dry-run", "-v", home=tmp_path).out
        done = uploader(*(command if again == "upload" else ("resume", "--json")), home=tmp_path)
    assert done.code == 0, done.err
    skipped = {event["path"]: (event["reason"], event["removed"]) for event in done.of("file.skipped")}
    assert skipped == {"files/a.bin": ("receipt", "gone"), "files/b.bin": ("present", "deleted")}
    assert left(tmp_path / "files") == {}
    assert sorted(left(server.root / "personal").values()) == [b"a" * 10, b"b" * 20]


@pytest.mark.parametrize("paths", [("files/a.bin", "gone.bin"), ("--from-file", "list.txt")])
def test_file_that_was_never_sent_must_be_there(paths: tuple[str, ...], make_files: Files, tmp_path: Path) -> None:
    make_files(**{"a.bin": 1})
    (tmp_path / "list.txt").write_text("files/a.bin\ngone.bin\n")
    done = uploader("upload", *paths, "-s", "localhost:9", *HAS_THEN, home=tmp_path)
    assert done.code == 2
    assert "gone.bin: no such file" in done.err


@pytest.mark.feature("plan")
def test_dry_run_lists_what_would_happen(make_files: Files, tmp_path: Path) -> None:
    make_files(**{"a.bin": 1, "sub/b.bin": 1})
    (tmp_path / "sent").mkdir()
    command = ("upload", "files", "-s", "localhost:9", "--dry-run")
    done = uploader(*command, "--then", "move:sent", "--json", home=tmp_path)
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["moved_to"] for line in lines if line["type"] == "plan.file"] == [
        str(tmp_path / "sent/files" / name) for name in ("a.bin", "sub/b.bin")
    ]
    shown = uploader(*command, "--then", "delete", "-v", home=tmp_path).out
    assert "files/a.bin → personal/files/a.bin, then deleted" in shown
    assert "2 files here would be deleted if the server has the same bytes then" in shown
    assert len(left(tmp_path / "files")) == 2


@pytest.mark.thorough
def test_receipt_alone_deletes_nothing(make_files: Files, tmp_path: Path) -> None:
    """A lost file is sent again, and so is another one of the same size and time."""
    files = make_files(**{"a.bin": 10, "b.bin": 10, "c.bin": 10})
    with running_server(packs=True) as server:
        command = ("upload", files, "-s", server.url, "--no-pack", "--json")
        assert uploader(*command, home=tmp_path).code == 0
        (server.root / "personal/files/a.bin").unlink()
        rewrite(files / "b.bin")
        done = uploader(*command, "--then", "delete", home=tmp_path)
        assert done.code == 0
        sent = sorted(event["path"] for event in done.of("file.completed"))
        assert sent == [str(files / "a.bin"), str(files / "b.bin")]
        assert [(event["reason"], event["removed"]) for event in done.of("file.skipped")] == [("present", "deleted")]
        assert left(files) == {}
        stored = {"a.bin": b"a" * 10, "b.bin": b"b" * 10, "b (2).bin": b"x" * 10, "c.bin": b"c" * 10}
        assert left(server.root / "personal/files") == stored


def test_file_that_can_not_be_deleted_is_a_failure(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """A named link is sent, and kept with its target; the reason is in the message."""
    files = make_files(**{"a.bin": 10})
    (files / "link").symlink_to("a.bin")
    done = uploader("upload", files / "link", "-s", server.url, *HAS_THEN, home=tmp_path)
    assert done.code == 4
    (failed,) = done.of("file.failed")
    assert failed["code"] == "kept"
    assert failed["message"] == "it is stored, and kept here: it is a symbolic link"
    assert (files / "link").is_symlink()
    assert left(server.root / "personal") == {"link": b"a" * 10}
    assert [event["status"] for event in done.of("session.finished")] == ["completed"]
    assert "✗ 1 of 1 file confirmed by the server, 1 kept here, 10 B in" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["files", "--then", "delete", "--follow-links"], "--then and --follow-links exclude each other"),
        (["s3://bucket/x", "--then", "delete"], "--then: s3://bucket/x is a URL"),
        (["-", "--name", "x", "--then", "delete"], "--then and - exclude each other"),
        (["files", "--then", "move:nowhere"], "nowhere is no directory"),
        (["files", "--then", "move:files/sub"], "is inside files"),
        (["files", "--then", "move:."], "files is inside"),
        (["files", "--then", "move:"], "must be keep, delete or move:DIR"),
    ],
)
def test_what_can_not_be_carried_out_exits_2(
    make_files: Files, tmp_path: Path, arguments: list[str], words: str
) -> None:
    make_files(**{"sub/a.bin": 1})
    done = uploader("upload", *arguments, "-s", "localhost:9", home=tmp_path)
    assert done.code == 2
    assert words in done.err


def test_list_with_a_file_for_two_places_exits_2_and_removes_nothing(make_files: Files, tmp_path: Path) -> None:
    """The second line names it through a link to its directory."""
    files = make_files(**{"sub/a.bin": 1})
    (tmp_path / "link").symlink_to(files / "sub")
    (tmp_path / "l.csv").write_text(f"path,name\n{files}/sub/a.bin,x/a.bin\n{tmp_path}/link/a.bin,y/a.bin\n")
    done = uploader("upload", "--from-file", "l.csv", "--then", "delete", "-s", "localhost:9", home=tmp_path)
    assert done.code == 2
    assert f"line 3 of {tmp_path}/l.csv: {tmp_path}/link/a.bin is listed for a second place" in done.err
    assert (files / "sub/a.bin").exists()


@pytest.mark.parametrize("line", ['then = "delete"', "then_unverified = true"])
def test_config_of_a_working_directory_removes_nothing(line: str, make_files: Files, tmp_path: Path) -> None:
    make_files(a=1)
    (tmp_path / "uploader.toml").write_text(f"{line}\n")
    done = uploader("upload", "files", "-s", "localhost:9", home=tmp_path)
    assert done.code == 2
    assert "not allowed in the config of a working directory" in done.err


@pytest.mark.feature("folder")
@pytest.mark.thorough
def test_watched_directory_empties_itself(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Also of a new file with the name, size and time of one that was moved, which no receipt stands for."""
    files, sent = make_files("in", **{"a.bin": b"1"}), make_files("sent", x=0)
    (new := tmp_path / "a.bin").write_bytes(b"2")
    shutil.copystat(files / "a.bin", new)
    command = ("upload", "--watch", "in", "-s", server.url, "--settle", "0.3", "--then", "move:sent", "--json")
    process = start(*command, home=tmp_path, UPLOADER_WAIT_FOR_SERVER="")
    seen = read_until(process, "file.completed")
    new.rename(files / "a.bin")
    done = ended(process, seen + read_until(process, "file.completed"), signal.SIGTERM)
    assert done.code == 143
    assert left(files) == {}
    assert left(sent) == {"x": b"", "in/a.bin": b"1", "in/a (2).bin": b"2"}
    assert left(server.root / "personal") == {"in/a.bin": b"1", "in/a (2).bin": b"2"}


ROOTS = {"root": ("root/personal", "below the root of a server"), "category": ("data", "it is the stored file itself")}


@pytest.mark.parametrize(("place", "reason"), ROOTS.values(), ids=ROOTS)
@pytest.mark.parametrize("then", ["delete", "move:to"], ids=["delete", "move"])
def test_stored_copy_is_kept_where_it_is_what_is_sent(
    then: str, place: str, reason: str, make_files: Files, tmp_path: Path
) -> None:
    """The server's root is mounted here, or the directory of a category is, without what marks the root."""
    files = make_files(f"{place}/files", **{"a.bin": 10, "sub/b.bin": 20})
    (tmp_path / "to").mkdir()
    if place == "data":
        (tmp_path / "root").mkdir()
        (tmp_path / "root/personal").symlink_to(tmp_path / "data")
    before = left(files)
    with running_server(root=tmp_path / "root") as server:
        how = ("-s", server.url, "--then", then, "--json")
        for more in ("--skip-existing", "--no-pack", "--protocol=batch"):
            done = uploader("upload", files, *how, more, home=tmp_path)
            failed = done.of("file.failed")
            assert [(event["code"], reason in event["message"]) for event in failed] == [("kept", True)] * 2, done.out
    assert left(files) == before
    assert left(tmp_path / "to") == {}


def test_file_that_an_interrupted_question_has_set_aside_is_put_back(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The client is killed while the server is asked; the next run finds the file in its place."""
    files = make_files(**{"a.bin": 10})
    assert uploader("upload", files, "-s", server.url, home=tmp_path).code == 0
    running: SimpleQueue[Process] = SimpleQueue()

    class AtQuestion(Onlooker):
        def head(self, request: Request) -> None:
            if (files / ".uploader-aside/a.bin").exists():
                running.get(timeout=PATIENCE).kill()

    with Proxy(server.url, AtQuestion()) as proxy:
        process = start("upload", files, "-s", proxy.url, "--skip-existing", *HAS_THEN, home=tmp_path)
        running.put(process)
        assert finish(process).code == -signal.SIGKILL
    assert not (files / "a.bin").exists()
    done = uploader("upload", files, "-s", server.url, "--skip-existing", "--json", home=tmp_path)
    assert (done.code, left(files)) == (0, {"a.bin": b"a" * 10})
    assert [event["path"] for event in done.of("file.skipped")] == [str(files / "a.bin")]
    assert [path.name for path in files.iterdir()] == ["a.bin"]


BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("answer", [BUSY, None], ids=["busy", "lost"])
def test_file_that_is_set_aside_is_put_back_at_once_if_the_server_does_not_answer(
    answer: bytes | None, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """Neither a retry nor the end of an outage is waited for, and the file is kept."""
    files = make_files(**{"a.bin": 10})
    assert uploader("upload", files, "-s", server.url, home=tmp_path).code == 0
    asked = list[str]()

    class Failing(Onlooker):
        def head(self, request: Request) -> bytes | None:
            if not (files / ".uploader-aside/a.bin").exists():
                return None
            asked.append(request.method)
            if answer is None:
                raise Cut
            return answer

    with Proxy(server.url, Failing()) as proxy:
        done = uploader("upload", files, "-s", proxy.url, "--skip-existing", *HAS_THEN, home=tmp_path)
    (failed,) = done.of("file.failed")
    assert (done.code, failed["code"], failed["retryable"], left(files)) == (3, "kept", True, {"a.bin": b"a" * 10})
    assert asked == (["HEAD"] if answer is None else ["HEAD", "GET"])


def test_file_that_another_run_has_set_aside_is_in_use(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """It is no file of another name, and the run does not end as if it were complete."""
    files = make_files(**{"a.bin": 10, "b.bin": 10})
    info = (files / "a.bin").stat()
    with set_aside(identified(LocalFile(0, str(files / "a.bin"), "files/a.bin", info.st_size, info.st_mtime_ns))):
        done = uploader("upload", files, "-s", server.url, "--json", home=tmp_path)
    (failed,) = done.of("file.failed")
    assert (done.code, failed["code"], failed["path"]) == (3, "in_use", str(files / ".uploader-aside/a.bin"))
    assert left(server.root / "personal") == {"files/b.bin": b"b" * 10}
    assert left(files) == {"a.bin": b"a" * 10, "b.bin": b"b" * 10}


class Patient(Service):
    """A tus server that gives out its first two uploads once both are asked for at once, and the third is stored."""

    methods = "OPTIONS POST HEAD PATCH GET"

    def __init__(self) -> None:
        super().__init__()
        self.readable = True
        self.together, self.sent = threading.Barrier(2), threading.Event()

    def _get(self, request: Asked) -> Reply:
        if request.path.endswith("u2"):
            self.sent.set()
        else:
            self.together.wait(AT_ONCE)
            assert self.sent.wait(AT_ONCE)
        return super()._get(request)


@pytest.mark.feature("folder")
def test_restart_compares_stored_files_together_and_behind_new_ones(make_files: Files, tmp_path: Path) -> None:
    """With `--watch`: the first run has sent two files, and the second one finds a third."""
    files = make_files("in", **{"a.bin": b"1", "b.bin": b"2"})
    with Patient() as service:
        command = ("upload", "in", "--tus-endpoint", service.url, "--watch", "--settle", "0.3", "--json")
        process = start(*command, home=tmp_path)
        seen = read_until(process, "file.completed") + read_until(process, "file.completed")
        assert ended(process, seen, signal.SIGTERM).code == 143
        make_files("in", **{"c.bin": b"3"})
        process = start(*command, "--jobs", "3", "--then", "delete", home=tmp_path)
        assert process.stdout is not None
        seen = ""
        while seen.count('"type":"file.skipped"') + seen.count('"type":"file.completed"') < 3:
            seen += next(process.stdout)
        done = ended(process, seen, signal.SIGTERM)
    assert done.code == 143
    assert left(files) == {}
    (end,) = done.of("run.finished")
    assert (end["completed"], end["skipped"], end["failed"]) == (1, 2, 0)
