"""`upload --watch`: files that appear in a directory, until the run is stopped."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import feature_samples
import pytest
from command import Done, ended, finish, read_until, start, uploader
from rewriting import rewrite
from serving import closed_port, running_server, server_process

from uploader_server.faults import Answer

if TYPE_CHECKING:
    from pathlib import Path

    from command import Process

    from uploader_server.serving import EmbeddedServer

SETTLE = 0.3
"""Seconds: short for the tests."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    return made


def sending(server: EmbeddedServer, folder: Path, *options: str, **how: Any) -> Process:
    """Start a run; a limit of the wait for the server comes from the options alone."""
    how = {"home": folder.parent, "UPLOADER_WAIT_FOR_SERVER": ""} | how
    return start("upload", "--watch", folder, "-s", server.url, "--settle", str(SETTLE), "--json", *options, **how)


def completed(process: Process, *names: str) -> str:
    """Read the stream until these files are completed; return what was read."""
    seen, left = "", set(names)
    while left:
        seen += read_until(process, "file.completed")
        left.discard(os.path.basename(json.loads(seen.splitlines()[-1])["path"]))
    return seen


def stored(server: EmbeddedServer) -> dict[str, bytes]:
    """The stored files below the category."""
    top = server.root / "personal"
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def stopped(process: Process, seen: str, number: int = signal.SIGTERM) -> Done:
    done = ended(process, seen, number)
    assert done.code == 128 + number
    return done


@pytest.mark.thorough
def test_files_are_sent_as_they_appear_until_sigterm(server: EmbeddedServer, folder: Path) -> None:
    """One stream, one run; each session is finished when its files are stored."""
    (folder / "first.bin").write_bytes(b"1")
    process = sending(server, folder)
    seen = completed(process, "first.bin")
    (folder / "sub").mkdir()
    (folder / "sub/second.bin").write_bytes(b"22")
    (folder / "x.part").write_bytes(b"3")
    os.rename(folder / "x.part", folder / "third.bin")
    (folder / "y.part").write_bytes(b"4")
    seen += completed(process, "second.bin", "third.bin")
    while seen.count('"session.finished"') < seen.count('"session.created"'):
        seen += read_until(process, "session.finished")
    done = stopped(process, seen)
    assert stored(server) == {"in/first.bin": b"1", "in/sub/second.bin": b"22", "in/third.bin": b"3"}
    assert done.finished["completed"] == 3
    assert done.finished["cancelled"] == 0
    assert {event["status"] for event in done.of("session.finished")} == {"completed"}
    assert "uploader resume" in done.err


@pytest.mark.thorough
def test_file_is_not_sent_while_it_is_written(server: EmbeddedServer, folder: Path) -> None:
    (folder / "first.bin").write_bytes(b"1")
    process = sending(server, folder)
    seen = completed(process, "first.bin")  # from now on it is told which files are open
    written = 0
    with (folder / "slow.bin").open("wb", buffering=0) as file:
        end = time.monotonic() + 5 * SETTLE
        while time.monotonic() < end:
            written += file.write(b"x" * 10)
            time.sleep(SETTLE / 5)
    done = stopped(process, seen + completed(process, "slow.bin"))
    _, only = done.of("file.completed")
    assert only["size"] == written


@pytest.mark.thorough
def test_changed_file_is_sent_again(server: EmbeddedServer, folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"1")
    process = sending(server, folder)
    seen = completed(process, "a.bin")
    (folder / "a.bin").write_bytes(b"22")
    done = stopped(process, seen + completed(process, "a.bin"))
    assert sorted(stored(server).values()) == [b"1", b"22"]
    assert [event["text"] for event in done.of("warning")] == []


@pytest.mark.parametrize("again", ["resume", "upload"])
def test_nothing_is_sent_twice_after_kill_9(server: EmbeddedServer, folder: Path, again: str) -> None:
    """A file whose ctime alone is another one is read: `c` has other bytes, `d` has not."""
    for name in "acd":
        (folder / f"{name}.bin").write_bytes(b"1")
    process = sending(server, folder)
    completed(process, "a.bin", "c.bin", "d.bin")
    process.kill()
    finish(process)
    (folder / "b.bin").write_bytes(b"2")
    rewrite(folder / "c.bin", b"3")
    (folder / "d.bin").chmod(0o600)
    process = start("resume", "--json", home=folder.parent) if again == "resume" else sending(server, folder)
    done = stopped(process, completed(process, "b.bin", "c.bin"))
    assert {os.path.basename(event["path"]) for event in done.of("file.started")} == {"b.bin", "c.bin"}
    assert sorted(stored(server)) == ["in/a.bin", "in/b.bin", "in/c (2).bin", "in/c.bin", "in/d.bin"]


def test_large_file_resumes_after_kill_9(server: EmbeddedServer, folder: Path) -> None:
    (folder / "big.bin").write_bytes(bytes(4 << 20))
    options = ["--chunk-size", "256K", "--limit-rate", "400K"]
    process = sending(server, folder, *options)
    read_until(process, "file.progress", lambda event: event["confirmed"] >= 1 << 20)
    process.kill()
    finish(process)
    process = sending(server, folder, *options[:2])
    done = stopped(process, completed(process, "big.bin"))
    assert done.of("file.started")[0]["offset"] >= 1 << 20


def test_name_that_is_not_utf8_is_sent(server: EmbeddedServer, folder: Path) -> None:
    with open(os.path.join(os.fsencode(folder), b"\xff.bin"), "wb") as file:
        file.write(b"1")
    process = sending(server, folder)
    done = stopped(process, read_until(process, "file.completed"))
    assert "path_b64" in done.of("file.completed")[0]


@pytest.mark.thorough
def test_unreachable_server_is_waited_out_from_the_start(folder: Path) -> None:
    with running_server() as server:
        port = server.url.rpartition(":")[2]
    (folder / "a.bin").write_bytes(b"1")
    process = sending(server, folder)
    seen = read_until(process, "warning")
    assert json.loads(seen.splitlines()[-1])["text"] == "server unreachable: waiting for it"
    with server_process("--root", str(folder.parent / "root"), "--port", port):
        stopped(process, seen + completed(process, "a.bin"))


def test_wait_for_server_limits_the_wait_of_an_unending_run(folder: Path) -> None:
    with running_server() as server:
        pass
    with closed_port(server.url):
        done = finish(sending(server, folder, "--wait-for-server", "1"))
    assert done.code == 6
    assert done.finished["exit_code"] == 6


GONE = Answer(404, {"content-type": "application/json"}, b'{"error": "SESSION_NOT_FOUND"}')


@pytest.mark.parametrize(
    ("answers", "options"),
    [
        ({"files/": [500]}, ()),
        ({"session": [500]}, ()),
        ({"session": [500]}, ("--protocol", "batch")),
        ({"files/": [GONE], "session": [None, 500]}, ()),
    ],
    ids=["upload", "session", "batch", "renewed session"],
)
def test_failed_file_is_sent_again_later(
    answers: dict[str, list[Any]], options: tuple[str, ...], server: EmbeddedServer, folder: Path
) -> None:
    """Also one for which no session was created."""
    for call, scripted in answers.items():
        server.faults.next_answers("POST", f"/api/upload/{call}", scripted)
    (folder / "a.bin").write_bytes(b"1")
    constants = {"uploader_cli.features.folder.arrivals.FIRST_RETRY": SETTLE}
    options = ("--retries", "0", "--report", "report.json", *options)
    process = sending(server, folder, *options, constants=constants)
    done = stopped(process, read_until(process, "file.failed") + completed(process, "a.bin"))
    assert (done.finished["failed"], done.finished["completed"]) == (1, 1)
    (row,) = json.loads((folder.parent / "report.json").read_text())["files"]
    assert row["outcome"] == "completed"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from-file", "list.txt"], "--watch and --from-file exclude each other"),
        (["in/a.bin"], "--watch: in/a.bin is not a directory"),
        (["s3://bucket/x"], "--watch: s3://bucket/x is a URL"),
        (["-", "--name", "x"], "--watch and - exclude each other"),
        feature_samples.of("plan", ["in", "--dry-run"], "--watch and --dry-run exclude each other: a plan is of"),
        (["in", "--fail-fast"], "--watch and --fail-fast exclude each other"),
        feature_samples.of(
            "analysis", ["in", "--analyze", "content"], "--watch and --analyze exclude each other: files are analysed"
        ),
        (["nowhere"], "nowhere: no such file or directory"),
        ([], "no path given"),
    ],
)
def test_paths_and_options_that_have_an_end_exit_2(folder: Path, arguments: list[str], words: str) -> None:
    (folder / "a.bin").write_bytes(b"1")
    (folder.parent / "list.txt").write_text("in/a.bin\n")
    done = uploader("upload", "--watch", *arguments, "-s", "localhost:9", home=folder.parent)
    assert done.code == 2
    assert words in done.err


def test_config_of_a_working_directory_does_not_switch_watch_on(server: EmbeddedServer, folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"1")
    (folder.parent / "uploader.toml").write_text("watch = true\n")
    done = uploader("upload", folder, "-s", server.url, home=folder.parent)
    assert done.code == 2
    assert "--watch, UPLOADER_WATCH" in done.err


def test_plain_lines_say_that_the_run_waits(server: EmbeddedServer, folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"1")
    how = {"home": folder.parent}
    process = start("upload", "--watch", folder, "-s", server.url, "--settle", str(SETTLE), **how)
    assert process.stderr is not None
    lines = list[str]()
    while not lines or lines[-1] != "waiting for new files\n":
        lines.append(process.stderr.readline())
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert done.code == 143
    assert any("a.bin (1 B" in line for line in lines)


@pytest.mark.parametrize(("names", "code"), [((), 0), (("new.bin",), 3)], ids=["idle", "incomplete file"])
def test_deadline_is_exit_3_only_with_something_left(
    server: EmbeddedServer, folder: Path, names: tuple[str, ...], code: int
) -> None:
    for name in names:
        (folder / name).write_bytes(b"1")
    options = ("-s", server.url, "--settle", "60", "--deadline", "1")
    done = uploader("upload", "--watch", folder, *options, home=folder.parent)
    assert done.code == code, done.err
    assert ("not all files were sent" in done.err, "uploader resume" in done.err) == (code == 3, code == 3)
