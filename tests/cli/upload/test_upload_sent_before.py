"""Files that an earlier run has sent: skipped where the server's lookup confirms them, sent again elsewhere."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from command import Done, uploader
from rewriting import rewrite
from serving import running_server
from tus_services import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server(packs=True) as running:
        yield running


def ends(done: Done) -> dict[str, str]:
    """Return the last event of each file, by name: its reason where it was skipped, else its type."""
    return {
        event["path"].rpartition("/")[2]: event.get("reason", event["type"]) for event in done.events if "path" in event
    }


@pytest.mark.thorough
@pytest.mark.parametrize("by", [(), ("--no-pack",), ("--protocol", "batch")])
def test_files_of_earlier_runs_are_skipped_unless_resent(
    by: tuple[str, ...], server: EmbeddedServer, make_files: Files, tmp_path: Path, dest: str
) -> None:
    """Every output has where they are, also where a name was taken."""
    files = make_files(**{"a.mp4": b"one", "b.mp4": b"two"})
    outputs = ("--links", "links.txt", "--report", "r.json", "--json")
    command = ("upload", "files", "-s", server.url, *by, "--dest", dest, *outputs)
    first = {event["path"]: event["location"] for event in uploader(*command, home=tmp_path).of("file.completed")}
    assert set(first) == {"files/a.mp4", "files/b.mp4"}
    calls = server.faults.count("POST", "*")
    again = uploader(*command, home=tmp_path)
    assert (ends(again), again.code) == (dict.fromkeys(("a.mp4", "b.mp4"), "present"), 0)
    assert server.faults.count("POST", "*") == calls + 1
    assert {event["path"]: event["location"] for event in again.of("file.skipped")} == first
    assert {row["path"]: row["location"] for row in json.loads((tmp_path / "r.json").read_text())["files"]} == first
    assert len((tmp_path / "links.txt").read_text().splitlines()) == 2

    rewrite(files / "a.mp4", b"six")
    resent = uploader(*command, "--resend", home=tmp_path)
    assert ends(resent) == dict.fromkeys(("a.mp4", "b.mp4"), "file.completed")
    where = {event["path"]: event["location"] for event in resent.of("file.completed")}
    assert where["files/a.mp4"] == first["files/a.mp4"].replace("a.mp4", "a%20%282%29.mp4")
    last = uploader(*command, home=tmp_path)
    assert {event["path"]: event["location"] for event in last.of("file.skipped")} == where


@pytest.mark.thorough
def test_file_is_sent_again_unless_all_is_as_it_was(
    subtests: pytest.Subtests, server: EmbeddedServer, make_files: Files, tmp_path: Path, dest: str
) -> None:
    """Its size, its time, its place, and what the server has there."""
    file = make_files(**{"a.mp4": b"one"}) / "a.mp4"
    stored = server.root / "personal" / dest / "files" / "a.mp4"

    def run(*how: str, path: str = "files", url: str = server.url) -> Any:
        return ends(uploader("upload", path, "-s", url, "--dest", dest, *how, "--json", home=tmp_path))["a.mp4"]

    def unanswered() -> Any:
        server.faults.next_answers("POST", "/api/upload/lookup", [500])
        server.faults.next_answers("HEAD", "/uploads/*", [500])
        return run("--retries", "0")

    def elsewhere() -> Any:
        with running_server(packs=True) as other:
            return run(url=other.url)

    def changed(act: Callable[[], object]) -> Callable[[], Any]:
        return lambda: (act(), run())[1]

    cases: dict[str, Callable[[], Any]] = {
        "another time": changed(lambda: os.utime(file, (1, 1))),
        "another size": changed(lambda: rewrite(file, b"longer")),
        "deleted on the server": changed(stored.unlink),
        "another size on the server": changed(lambda: stored.write_bytes(b"cut")),
        "no answer": unanswered,
        "--no-resume": lambda: run("--no-resume"),
        "another category": lambda: run("--category", "scenic"),
        "another directory": lambda: run("--dest", f"{dest}/other"),
        "another name": lambda: run(path="files/a.mp4"),
        "another server": elsewhere,
    }
    for name, case in cases.items():
        with subtests.test(name):
            for kept in server.root.rglob("a*.mp4"):
                kept.unlink()
            assert run("--resend") == "file.completed"
            assert case() == "file.completed"
            assert run() == ("present" if name != "another name" else "file.completed")


@pytest.mark.parametrize("how", [(), ("--verify",), ("--skip-existing",), ("--no-pack",), ("--no-pack", "--verify")])
def test_file_that_changed_with_its_time_kept_is_sent_again(
    how: tuple[str, ...], server: EmbeddedServer, make_files: Files, tmp_path: Path, dest: str
) -> None:
    """Its ctime shows that: it is read, also one that was not in a pack. One that is as it was is present."""
    files = make_files(**{"a.mp4": b"one", "b.mp4": b"two"})
    command = ("upload", "files", "-s", server.url, "--dest", dest, "--json", *how)
    assert uploader(*command, home=tmp_path).code == 0
    rewrite(files / "a.mp4", b"six")
    (files / "b.mp4").chmod(0o600)
    done = uploader(*command, home=tmp_path)
    assert (ends(done), done.code) == ({"a.mp4": "file.completed", "b.mp4": "present"}, 0)
    again = uploader(*command, home=tmp_path)
    assert (ends(again), again.code) == ({"a.mp4": "present", "b.mp4": "present"}, 0)


@pytest.mark.parametrize("how", [(), ("--digest",)])
def test_file_of_a_tus_server_that_changed_with_its_time_kept_is_sent_again(
    how: tuple[str, ...], make_files: Files, tmp_path: Path
) -> None:
    """It is compared with its receipt's digest, or else with what the server gives out."""
    files = make_files(**{"a.mp4": b"one", "b.mp4": b"two", "c.mp4": b"three"})
    with Service() as service:
        service.methods += " GET"
        service.readable = not how
        command = ("upload", "files", "--tus-endpoint", service.url, "--skip-existing", "--json", *how)
        assert uploader(*command, home=tmp_path).code == 0
        rewrite(files / "a.mp4", b"six")
        (files / "b.mp4").chmod(0o600)
        done = uploader(*command, home=tmp_path)
        present = {"b.mp4": "present", "c.mp4": "present"}
        assert (ends(done), done.code) == ({"a.mp4": "file.completed", **present}, 0)
        service.readable = False
        again = uploader(*command, home=tmp_path)
        assert (ends(again), again.code) == ({"a.mp4": "present", **present}, 0)


def test_digest_of_a_receipt_tells_that_a_file_changed_where_the_server_tells_nothing(
    make_files: Files, tmp_path: Path
) -> None:
    files = make_files(**{"a.mp4": b"one", "b.mp4": b"two"})
    with Service() as service:
        service.forgets = True  # it knows no upload that is complete
        command = ("upload", "files", "--tus-endpoint", service.url, "--digest", "--json")
        assert uploader(*command, home=tmp_path).code == 0
        rewrite(files / "a.mp4", b"six")
        (files / "b.mp4").chmod(0o600)
        done = uploader(*command, "--skip-existing", "--trust-receipts", home=tmp_path)
    assert (ends(done), done.code) == ({"a.mp4": "file.completed", "b.mp4": "receipt"}, 0)


def test_resumed_run_sends_a_stored_file_that_changed_with_its_time_kept(
    server: EmbeddedServer, make_files: Files, tmp_path: Path, dest: str
) -> None:
    files = make_files(**{"0.mp4": b"two", "a.mp4": b"one"})
    server.faults.next_answers("POST", "/api/upload/files/", [400])
    command = ("upload", "files", "-s", server.url, "--dest", dest, "--no-pack", "-j", "1", "--json")
    assert ends(uploader(*command, home=tmp_path)) == {"0.mp4": "file.failed", "a.mp4": "file.completed"}
    rewrite(files / "a.mp4", b"six")
    done = uploader("resume", "--json", home=tmp_path)
    assert (ends(done), done.code) == ({"0.mp4": "file.completed", "a.mp4": "file.completed"}, 0)
    stored = server.root / "personal" / dest / "files"
    assert {path.read_bytes() for path in stored.iterdir()} == {b"one", b"six", b"two"}


@pytest.mark.parametrize("how", [(), ("--no-pack",)], ids=["pack", "tus"])
@pytest.mark.parametrize(
    "compares",
    [
        ("--verify",),
        ("--verify", "--skip-existing"),
        pytest.param(("--then", "delete"), marks=pytest.mark.feature("then")),
    ],
    ids=["verify", "skip", "then"],
)
def test_other_file_in_the_place_of_a_stored_one_fails_where_files_are_compared(
    how: tuple[str, ...],
    compares: tuple[str, ...],
    server: EmbeddedServer,
    make_files: Files,
    tmp_path: Path,
    dest: str,
) -> None:
    """However it was sent. The next run sends it, under another name."""
    files = make_files(**{"a.mp4": b"one"})
    command, stored = ("upload", "files", "-s", server.url, "--dest", dest, "--json", *how), server.root / "personal"
    assert uploader(*command, home=tmp_path).code == 0
    rewrite(stored / dest / "files/a.mp4", b"eno")
    done = uploader(*command, *compares, home=tmp_path)
    assert ([event["code"] for event in done.of("file.failed")], done.code) == (["integrity"], 7)
    assert (files / "a.mp4").read_bytes() == b"one"
    assert uploader(*command, *compares, home=tmp_path).code == 0, done.err
    assert (stored / dest / "files/a (2).mp4").read_bytes() == b"one"


@pytest.mark.parametrize(
    ("first", "again"),
    [([], []), ([], ["--no-pack"]), pytest.param(["--digest"], ["--no-pack"], marks=pytest.mark.thorough)],
)
def test_verify_compares_skipped_files(
    server: EmbeddedServer, make_files: Files, tmp_path: Path, dest: str, first: list[str], again: list[str]
) -> None:
    """Only `--verify` reads them, unless a receipt has a digest; one that differs is sent by the next run."""
    make_files(**{"a.mp4": b"one", "b.mp4": b"two"})
    command: tuple[str, ...] = ("upload", "files", "-s", server.url, "--dest", dest, "--json")
    assert uploader(*command, "--no-pack", *first, home=tmp_path).code == 0
    command = (*command, *again)
    (server.root / "personal" / dest / "files" / "a.mp4").write_bytes(b"eno")
    if first:
        assert ends(uploader(*command, home=tmp_path)) == {"a.mp4": "file.completed", "b.mp4": "present"}
        return
    assert ends(uploader(*command, home=tmp_path)) == {"a.mp4": "present", "b.mp4": "present"}
    compared = uploader(*command, "--verify", home=tmp_path)
    assert (ends(compared), compared.code) == ({"a.mp4": "file.failed", "b.mp4": "present"}, 7)
    assert ends(uploader(*command, home=tmp_path)) == {"a.mp4": "file.completed", "b.mp4": "present"}


@pytest.mark.thorough
def test_server_without_lookup_gets_the_file_again_with_a_hint(make_files: Files, tmp_path: Path) -> None:
    """One warning names `--skip-existing`; there is none with it, or for who wants to send all."""
    make_files(**{"a.mp4": b"one", "b.mp4": b"two"})
    with running_server(flavour="reference", processing_seconds=0.01) as reference, Service() as service:
        for target in (("-s", reference.url), ("--tus-endpoint", service.url)):
            command = ("upload", "files", *target, "--json")
            assert uploader(*command, home=tmp_path).of("warning") == []
            again = uploader(*command, home=tmp_path)
            assert ends(again) == dict.fromkeys(("a.mp4", "b.mp4"), "file.completed")
            (warning,) = again.of("warning")
            assert warning["code"] == "sent_again"
            assert "--skip-existing" in warning["text"]
            for how in ("--resend", "--skip-existing"):
                assert "sent_again" not in {one["code"] for one in uploader(*command, how, home=tmp_path).of("warning")}


def test_resend_and_skip_existing_exclude_each_other_as_flags(tmp_path: Path) -> None:
    done = uploader("upload", ".", "-s", "localhost:9", "--resend", "--skip-existing", home=tmp_path)
    assert (done.code, "--resend and --skip-existing exclude each other" in done.err) == (2, True)
    flag = uploader("upload", "gone", "-s", "localhost:9", "--resend", home=tmp_path, UPLOADER_SKIP_EXISTING="1")
    assert "exclude" not in flag.err
