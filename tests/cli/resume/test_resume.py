"""An interrupted upload resumes: by `uploader resume`, or by the same command."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from command import DISTANT, Done, ended, environment, read_confirmed, read_until, start, uploader
from old_journals import downgrade
from proxy import Proxy
from serving import inside, running_server, runs_of, server_process
from time_limits import PATIENCE, SLACK

from uploader_server.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

ENDPOINT = "/api/upload/files/"
KIB, MIB = 1 << 10, 1 << 20
CHUNK = 16 * KIB
SLOW = ("--chunk-size", "16K", "--limit-rate", "20K")
"""Half a minute for a file of 640 KiB: it is still sent when the test has read how far it is."""
PROMISED = 2.0
"""Seconds to the end after Ctrl-C."""


def interrupted(url: str, home: Path, *arguments: str | Path, by: int = signal.SIGINT, completed: int = 0) -> Done:
    """A slow upload that is stopped when files are `completed` and two chunks of another one are confirmed."""
    process = start("upload", *arguments, "-s", url, *SLOW, "--json", home=home)
    seen = "".join(read_until(process, "file.completed") for _ in range(completed))
    seen += read_confirmed(process, 2 * CHUNK)
    done = ended(process, seen, by)
    assert ("run.finished" in done.out) is (by != signal.SIGKILL)
    return done


def resumed(home: Path, *arguments: str | Path, **extra: str) -> Done:
    """`uploader resume` at full speed, to a good end."""
    done = uploader("resume", *arguments, "--limit-rate", "none", "--json", home=home, **extra)
    assert done.code == 0, done.err
    return done


def run_of(done: Done) -> str:
    """The id of a run, also of one that was killed."""
    return str(json.loads(done.out.partition("\n")[0])["run"])


def listed(home: Path) -> list[dict[str, Any]]:
    done = uploader("resume", "--list", "--json", home=home)
    assert done.code == 0
    return list(json.loads(done.out))


@contextlib.contextmanager
def frozen(process: subprocess.Popen[str]) -> Iterator[None]:
    """A process that stays alive and does nothing."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@pytest.mark.thorough
def test_resume_takes_the_newest_run(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Without an id the one that was interrupted last; with the beginning of an id, that one."""
    files = make_files(**{f"{name}.mp4": os.urandom(500 * KIB) for name in "abc"})
    runs = [run_of(interrupted(server.url, tmp_path, files / f"{name}.mp4")) for name in "abc"]
    assert resumed(tmp_path).events[0]["resumed_from"] == runs[2]
    assert resumed(tmp_path, runs[0][:6]).events[0]["resumed_from"] == runs[0]
    assert resumed(tmp_path).events[0]["resumed_from"] == runs[1]
    for name in "abc":
        assert (server.root / "personal" / f"{name}.mp4").read_bytes() == (files / f"{name}.mp4").read_bytes()


@pytest.mark.thorough
def test_resume_after_a_complete_run_has_nothing_to_do(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """Exit 2: before the first run, after one that went well, and while the only one is another process's."""
    files = make_files(**{"a.mp4": 600 * KIB})
    assert uploader("resume", home=tmp_path).code == 2
    assert uploader("upload", files, "-s", server.url, home=tmp_path).code == 0
    none = uploader("resume", home=tmp_path)
    assert none.code == 2
    assert "no interrupted run" in none.err
    process = start("upload", files, "-s", server.url, *SLOW, "--json", home=tmp_path)
    seen = read_confirmed(process, CHUNK)
    with frozen(process):
        assert uploader("resume", home=tmp_path).code == 2
        named = uploader("resume", run_of(Done(0, seen, "")), home=tmp_path)
        assert named.code == 2
        assert "another process" in named.err
    assert ended(process, seen, signal.SIGTERM).code == 143
    assert uploader("resume", "x", home=tmp_path).code == 2  # an id is hexadecimal: no run can begin so


@pytest.mark.thorough
def test_run_stays_open_while_any_file_failed(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """After a failure that may pass, one that is permanent, and one that kept others from starting."""
    files = make_files(**{"a.mp4": 10, "b.mp4": 10})
    options = ("-s", server.url, "--retries", "0", "-j", "1")
    server.faults.next_answers("POST", ENDPOINT, [503])
    assert uploader("upload", files, *options, home=tmp_path).code == 3
    done = resumed(tmp_path)
    assert [event["path"] for event in done.of("file.completed")] == [str(files / "a.mp4")]
    server.faults.next_answers("POST", ENDPOINT, [400])
    assert uploader("upload", files, *options, "--fail-fast", home=tmp_path).code == 4
    assert resumed(tmp_path).finished["completed"] == 2
    server.faults.next_answers("POST", ENDPOINT, [400])
    assert uploader("upload", files, *options, home=tmp_path).code == 4
    assert resumed(tmp_path).finished["skipped"] == 1, "what is stored is not resent"
    assert uploader("resume", home=tmp_path).code == 2, "all files are stored"


@pytest.mark.thorough
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_resume_resends_at_most_one_chunk(
    by: signal.Signals, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """Counted at a relay: no byte of a completed file, and at most one chunk of each open file."""
    sizes = {"0.mp4": 10 * KIB, "1.mp4": 20 * KIB, "big.mp4": 500 * KIB, "big too.mp4": 400 * KIB}
    files = make_files(**{name: os.urandom(size) for name, size in sizes.items()})
    with Proxy(server.url) as relay:
        first = interrupted(relay.url, tmp_path, files, "-j", "2", by=by, completed=2)
        assert first.code == {signal.SIGKILL: -signal.SIGKILL}.get(by, 128 + by)
        done = resumed(tmp_path)
        assert relay.carried <= sum(sizes.values()) + 2 * CHUNK
    assert {event["path"] for event in done.of("file.skipped")} == {str(files / "0.mp4"), str(files / "1.mp4")}
    assert {event["reason"] for event in done.of("file.skipped")} == {"present"}
    stored = {path.name: path for path in (server.root / "personal" / "files").iterdir()}
    assert stored.keys() == sizes.keys()
    for name, path in stored.items():
        assert path.read_bytes() == (files / name).read_bytes()


@pytest.mark.thorough
def test_event_stream_has_the_offset_of_a_resume(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """`resumed_from`, offset, progress and the current rate; the view shows the percentage."""
    files = make_files(**{"a.mp4": 640 * KIB})
    first = interrupted(server.url, tmp_path, files)
    done = resumed(tmp_path)
    assert done.events[0]["resumed_from"] == run_of(first)
    assert done.events[0]["run"] != run_of(first)
    (began,) = done.of("file.started")
    assert 2 * CHUNK <= began["offset"] < 640 * KIB
    assert "■ stopped: 0 of 1 file stored, 0 B in " in first.err
    assert f" {began['offset'] / KIB:.1f} KiB of 1 more is on the server\n" in first.err, "no byte more or less"
    assert (began["attempt"], began["size"]) == (1, 640 * KIB)
    assert min(event["confirmed"] for event in done.of("file.progress")) >= began["offset"]
    finished = done.finished
    assert finished["bytes"] == 640 * KIB
    assert finished["rate"] > 0
    assert f"a.mp4: resuming at {100 * began['offset'] // (640 * KIB)} %" in done.err
    assert "resuming run" in done.err


@pytest.mark.thorough
def test_resume_at_a_tus_endpoint_finds_files_of_any_name(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """Their locations are read from the journal and asked for."""
    names = ["a\nb.bin", "%0A.bin", "ü x.bin", "#?.bin", "b\r\n"]
    files = make_files(**dict.fromkeys(["!.bin", *names], 10))
    server.faults.next_answers("POST", ENDPOINT, [400])
    options = ("--tus-endpoint", server.url + ENDPOINT, "-j", "1")
    assert uploader("upload", files, *options, home=tmp_path).code == 4
    done = resumed(tmp_path)
    assert [event["path"] for event in done.of("file.completed")] == [str(files / "!.bin")]
    assert sorted(event["path"] for event in done.of("file.skipped")) == sorted(str(files / name) for name in names)
    assert {event["reason"] for event in done.of("file.skipped")} == {"present"}


@pytest.mark.thorough
def test_run_of_an_older_journal_resumes(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    files = make_files(**{"a.mp4": 640 * KIB})
    first = interrupted(server.url, tmp_path, files)
    downgrade(tmp_path / "state" / "uploader" / "journal.sqlite3")
    for session in inside(server).backend.sessions.known.values():
        session.secret = b""  # clients with such a journal sent none
    done = resumed(tmp_path)
    assert done.events[0]["resumed_from"] == run_of(first)
    assert done.of("file.started")[0]["offset"] >= 2 * CHUNK
    assert [event["text"] for event in done.of("warning")] == []


@pytest.mark.thorough
def test_resume_of_a_file_in_parts_keeps_each_part(tmp_path: Path) -> None:
    """Killed in the middle: each part resumes at its offset, and the stream has the progress of the whole file."""
    big = tmp_path / "big.mp4"
    big.write_bytes(os.urandom(16 * MIB))
    options = ("-j", "2", "--chunk-size", "1M", "--limit-rate", "1M", "--json")
    with running_server(latency_ms=30) as server, Proxy(server.url) as relay:
        process = start("upload", big, "-s", relay.url, *options, home=tmp_path, constants=DISTANT)
        ended(process, read_confirmed(process, 4 * MIB), signal.SIGKILL)
        done = resumed(tmp_path)
        assert relay.carried <= 16 * MIB + 2 * MIB
        posts = [request.headers["upload-concat"] for request in relay.of("POST") if "upload-concat" in request.headers]
        assert [concat.split(";")[0] for concat in posts] == ["partial", "partial", "final"]
        (began,) = done.of("file.started")
        assert 4 * MIB <= began["offset"] < 16 * MIB
        assert done.of("file.completed")[0]["verified"] is True
        assert (server.root / "personal" / "big.mp4").read_bytes() == big.read_bytes()


def test_resume_resends_files_that_the_server_lost(make_files: Files, tmp_path: Path) -> None:
    """The server is started again with an empty root: receipts of the interrupted run are not believed."""
    files = make_files(**{"0.mp4": 10 * KIB, "1.mp4": 20 * KIB, "big.mp4": 500 * KIB})
    roots = [tmp_path / "first root", tmp_path / "second root"]
    with server_process("--root", str(roots[0])) as server:
        assert interrupted(server.url, tmp_path, files, "-j", "1", by=signal.SIGINT).code == 130
    with server_process("--root", str(roots[1]), "--port", str(urlsplit(server.url).port)):
        done = resumed(tmp_path)
    assert done.finished["completed"] == 3
    assert [event["code"] for event in done.of("warning")] == ["file_lost"]
    assert sorted(path.name for path in (roots[1] / "personal" / "files").iterdir()) == ["0.mp4", "1.mp4", "big.mp4"]


@pytest.mark.thorough
def test_resume_moves_parts_of_a_lost_session_to_a_new_one(tmp_path: Path) -> None:
    """The server was stopped, and has forgotten the session, not the bytes."""
    big, root = tmp_path / "big.mp4", tmp_path / "root"
    big.write_bytes(os.urandom(16 * MIB))
    options = ("-j", "2", "--chunk-size", "1M", "--limit-rate", "1M", "--json")
    with server_process("--root", str(root), "--latency", "30") as server:
        url, port = server.url, server.url.rpartition(":")[2]
        process = start("upload", big, "-s", url, *options, home=tmp_path)
        first = ended(process, read_confirmed(process, 4 * MIB), signal.SIGKILL)
        server.stop()
    events = map(json.loads, first.out.splitlines())
    (old,) = {event["session"] for event in events if event["type"] == "session.created"}
    with contextlib.closing(Store(root)) as store:
        store.database.wait(store.session_forgotten(old))
    with server_process("--root", str(root), "--latency", "30", "--port", port):
        done = resumed(tmp_path)
    (began,) = done.of("file.started")
    assert began["session"] != old
    assert 4 * MIB <= began["offset"] < 16 * MIB
    assert [event["status"] for event in done.of("session.finished")] == ["completed"]
    assert (root / "personal" / "big.mp4").read_bytes() == big.read_bytes()


@pytest.mark.thorough
def test_resume_in_batch_mode_skips_finished_files(make_files: Files, tmp_path: Path) -> None:
    """The reference backend: files of the session that was over are skipped; the request that was cut starts again."""
    files = make_files(**{"a.mp4": 10, "b.mp4": 10, "c.mp4": 10, "z.mp4": 2 * MIB})
    with running_server(flavour="reference", processing_seconds=0.01) as server:
        process = start(
            "upload", files, "-s", server.url, "--jobs", "1", "--limit-rate", "100k", "--json", home=tmp_path
        )
        seen = read_until(process, "file.progress", lambda event: event["size"] == 2 * MIB and event["sent"] > 0)
        first = ended(process, seen, signal.SIGINT)
        assert (first.code, first.finished["completed"], first.finished["cancelled"]) == (130, 3, 1)
        done = resumed(tmp_path)
        assert server.faults.count("POST", "/api/upload/batch") == 3
    assert [event["reason"] for event in done.of("file.skipped")] == ["present"] * 3
    assert [(event["path"], event["size"]) for event in done.of("file.completed")] == [(str(files / "z.mp4"), 2 * MIB)]
    assert done.of("file.started")[0]["offset"] == 0


def test_same_command_resumes_the_run(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """From another directory and with other options; with other paths or to another category it is another run."""
    files = make_files(**{"a.mp4": 640 * KIB})
    first = interrupted(server.url, tmp_path, "files", by=signal.SIGKILL)
    other = uploader("upload", files, "-s", server.url, "-c", "scenic", "--json", home=tmp_path)
    assert "resumed_from" not in other.events[0]
    assert other.of("file.started")[0]["offset"] == 0
    done = uploader(
        "upload",
        "../files",
        "-s",
        server.url,
        "-j",
        "2",
        "--json",
        home=make_files("elsewhere", x=1),
        XDG_STATE_HOME=str(tmp_path / "state"),
    )
    assert done.code == 0
    assert done.events[0]["resumed_from"] == run_of(first)
    assert done.of("file.started")[0]["offset"] >= 2 * CHUNK
    again = uploader("upload", files, "-s", server.url, "--json", home=tmp_path)
    assert "resumed_from" not in again.events[0]
    assert again.finished["completed"] == 1


def test_resume_from_another_directory_finds_relative_paths(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    make_files(**{"a.mp4": 640 * KIB})
    interrupted(server.url, tmp_path, "files", by=signal.SIGKILL)
    done = resumed(make_files("elsewhere", x=1), XDG_STATE_HOME=str(tmp_path / "state"))
    assert done.finished["completed"] == 1
    assert done.of("file.started")[0]["offset"] >= 2 * CHUNK


@pytest.mark.thorough
def test_resume_reuses_the_session(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """No new session is created, and the first one ends as completed, with all files."""
    files = make_files(**{"a.mp4": 10, "b.mp4": 640 * KIB, "c.mp4": 640 * KIB})
    first = interrupted(server.url, tmp_path, files)
    done = resumed(tmp_path)
    (session,) = {event["session"] for event in [*first.of("session.created"), *done.of("session.created")]}
    assert server.faults.count("POST", "/api/upload/session") == 1
    assert [event["status"] for event in done.of("session.finished")] == ["completed"]
    status = json.loads(uploader("status", session, "-s", server.url, "--json", home=tmp_path).out)
    assert (status["overallStatus"], status["completedFiles"], status["totalFiles"]) == ("completed", 3, 3)


@pytest.mark.thorough
@pytest.mark.parametrize("forgets", [False, True])
def test_resume_opens_a_session_where_the_old_one_is_lost(forgets: bool, make_files: Files, tmp_path: Path) -> None:
    """The server was killed and started again on the same files, and may have forgotten the session, not the bytes."""
    content = os.urandom(640 * KIB)
    files = make_files(**{"a.mp4": content})
    root = tmp_path / "root"
    with server_process("--root", str(root)) as server:
        first = interrupted(server.url, tmp_path, files, by=signal.SIGKILL)
        url, port = server.url, server.url.rpartition(":")[2]
        events = map(json.loads, first.out.splitlines())
        (old,) = {event["session"] for event in events if event["type"] == "session.created"}
        server.kill()
    if forgets:
        with contextlib.closing(Store(root)) as store:
            store.database.wait(store.session_forgotten(old))
    with server_process("--root", str(root), "--port", port) as server:
        assert server.url == url
        done = resumed(tmp_path)
        assert done.of("file.started")[0]["offset"] >= 2 * CHUNK
        (session,) = {event["session"] for event in done.of("session.created")}
        assert (session != old) is forgets
        status = json.loads(uploader("status", session, "-s", url, "--json", home=tmp_path).out)
        assert (status["overallStatus"], status["completedFiles"]) == ("completed", 1)
    assert (root / "personal" / "files" / "a.mp4").read_bytes() == content


def test_resume_restarts_a_changed_file(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """From its first byte, with a warning that names it; the unfinished upload on the server is deleted."""
    files = make_files(**{"a.mp4": 640 * KIB})
    interrupted(server.url, tmp_path, files)
    content = os.urandom(640 * KIB)
    (files / "a.mp4").write_bytes(content)
    done = resumed(tmp_path)
    assert [(event["code"], str(files / "a.mp4") in event["text"]) for event in done.of("warning")] == [
        ("file_changed", True)
    ]
    assert done.of("file.started")[0]["offset"] == 0
    assert server.faults.count("DELETE", ENDPOINT + "*") == 1
    assert (server.root / "personal" / "files" / "a.mp4").read_bytes() == content


def test_two_runs_do_not_send_the_same_file(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """In the second one it fails as `in_use` (exit 3); tried again later it is there, and its bytes went out once."""
    files = make_files(**{"a.mp4": 640 * KIB})
    with Proxy(server.url) as relay:
        options = ("-s", relay.url, "--chunk-size", "16K", "--limit-rate", "100K", "--json")
        first = start("upload", files, *options, home=tmp_path)
        seen = read_confirmed(first, CHUNK)
        with frozen(first):
            second = uploader("upload", files / "a.mp4", "-s", relay.url, "--json", home=tmp_path)
        assert second.code == 3
        assert [(event["code"], event["retryable"]) for event in second.of("file.failed")] == [("in_use", True)]
        assert ended(first, seen).code == 0
        later = uploader("upload", files / "a.mp4", "-s", relay.url, "--json", home=tmp_path)
        assert later.code == 0
        assert [event["reason"] for event in later.of("file.skipped")] == ["present"]
        assert relay.carried == 640 * KIB


@pytest.mark.thorough
def test_resume_restores_options_and_accepts_overrides(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """Category, chunks and checksum come from the run, not from the environment; `--limit-rate` is new."""
    make_files(**{"a.mp4": 640 * KIB})
    with Proxy(server.url) as relay:
        interrupted(relay.url, tmp_path, "files", "-c", "scenic", "--checksum", "sha1")
        relay.requests.clear()
        others = {"UPLOADER_CATEGORY": "personal", "UPLOADER_CHUNK_SIZE": "1M", "UPLOADER_SERVER": "localhost:1"}
        done = resumed(tmp_path, UPLOADER_EXCLUDE="*.mp4", **others)
        assert {request.headers["upload-checksum"].split()[0] for request in relay.of("PATCH")} == {"sha1"}
        assert max(request.passed for request in relay.of("PATCH")) == CHUNK
    assert (server.root / "scenic" / "files" / "a.mp4").stat().st_size == 640 * KIB
    assert done.finished["completed"] == 1


@pytest.mark.feature("plan")
def test_a_dry_run_of_a_resume_sends_nothing(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """`--dry-run` from the environment counts too: a plan is printed, and the run is unchanged."""
    interrupted(server.url, tmp_path, make_files(**{"a.mp4": 640 * KIB}))
    before = runs_of(server)
    dry = uploader("resume", home=tmp_path, UPLOADER_DRY_RUN="yes")
    assert dry.code == 0
    assert "no file was sent" in dry.out
    assert runs_of(server) == before
    resumed(tmp_path)


def test_resume_list_has_a_row_for_each_run_newest_last(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """A table on stdout, with `--json` an array, newest first; empty at first."""
    empty = uploader("resume", "--list", home=tmp_path)
    assert (empty.code, empty.out) == (0, "")
    assert "no runs are stored" in empty.err
    assert uploader("runs", "--state-dir", tmp_path / "elsewhere", home=tmp_path).code == 0
    assert not (tmp_path / "elsewhere").exists()
    assert listed(tmp_path) == []
    files = make_files(**{"a.mp4": 10, "b.mp4": 640 * KIB})
    one = uploader("upload", files / "a.mp4", "-s", server.url, "--json", home=tmp_path)
    two = interrupted(server.url, tmp_path, files, "-j", "1")
    newer, older = listed(tmp_path)
    assert (newer["id"], newer["state"], newer["completed_files"], newer["open_files"]) == (
        run_of(two),
        "interrupted",
        1,
        1,
    )
    assert (older["id"], older["state"], older["completed_files"], older["completed_bytes"]) == (
        run_of(one),
        "finished",
        1,
        10,
    )
    text = uploader("resume", "--list", home=tmp_path)
    where = server.url.removeprefix("http://")
    rows = [re.split(" {2,}", row.strip()) for row in text.out.splitlines()]
    assert [[row[0], *row[2:]] for row in rows] == [
        [run_of(one)[:8], "1/1", f"{where}/personal", f"{files}/a.mp4", "complete"],
        [run_of(two)[:8], "1/2", f"{where}/personal", str(files), "interrupted"],
    ]
    assert all(re.fullmatch(r"\d+ (s|min)", row[1]) for row in rows)
    assert text.err == f"→ uploader resume {run_of(two)[:8]}\n"


@pytest.mark.thorough
def test_runs_shows_what_failed_and_the_command_to_retry(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """In JSON as well; after a good resume there is nothing to retry."""
    files = make_files(**{f"{number}.mp4": 10 for number in range(7)})
    server.faults.next_answers("POST", ENDPOINT, [503] * 7)
    options = ("-s", server.url, "--retries", "0", "--no-pack", "-j", "1", "--json")  # they fail in order
    failed = uploader("upload", files, *options, home=tmp_path)
    assert failed.code == 3
    stored = uploader("runs", home=tmp_path)
    assert re.search(rf"  0/7  .*  7 failed: {files}/0.mp4: the server .*503", stored.out)
    assert stored.err == f"→ uploader resume {run_of(failed)[:8]}\n"
    (run,) = json.loads(uploader("runs", "--json", home=tmp_path).out)
    assert (run["outcome"]["failed"], run["outcome"]["failures"][0]["code"]) == (7, "server_error")
    assert (run["state"], run["alive"]) == ("interrupted", False)
    resumed(tmp_path)
    done = uploader("runs", home=tmp_path)
    assert (done.out.split()[-1], done.err) == ("complete", "")


def test_runs_shows_why_a_run_ended(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """The command to retry names the state directory where the command did."""
    server.faults.next_answers("POST", "/api/upload/session", [500])
    options = ("-s", server.url, "--retries", "0", "--state-dir", "state")
    assert uploader("upload", make_files(a=1), *options, home=tmp_path).code == 3
    stored = uploader("runs", "--state-dir", "state", home=tmp_path)
    assert "500" in stored.out
    where = re.escape(shlex.quote(f"{tmp_path}/state"))
    assert re.fullmatch(rf"→ uploader resume [0-9a-f]{{8}} --state-dir {where}\n", stored.err)


@pytest.mark.thorough
def test_command_that_reaches_no_server_or_is_refused_leaves_no_run(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """A bad token command, no answer, a usage error that the server's answer shows; nothing says to resume it."""
    make_files(a=1)
    for code, *options in (
        (2, "-s", server.url, "--token-command", "false"),
        (6, "-s", "127.0.0.1:9", "--wait-for-server", "0"),
        (2, "-s", server.url, "--checksum", "sha1", "--log-file", "."),
    ):
        done = uploader("upload", "files", *options, home=tmp_path)
        assert (done.code, "resum" in done.err) == (code, False), done.err
        assert listed(tmp_path) == []
    interrupted(server.url, tmp_path, make_files(b=640 * KIB))
    (run,) = listed(tmp_path)
    assert uploader("upload", "files", "-s", server.url, "--token-command", "false", home=tmp_path).code == 2
    assert [one["earlier"] if "earlier" in one else one["state"] for one in listed(tmp_path)] == [run["state"]]


def two_interrupted(server: EmbeddedServer, make_files: Files, home: Path) -> tuple[Path, list[str]]:
    """Two runs, each with a failed file; their ids, the newest first."""
    files = make_files(**{"a.mp4": 10, "b.mp4": 10})
    ids = []
    for name in ("a.mp4", "b.mp4"):
        server.faults.next_answers("POST", ENDPOINT, [503])
        ids.append(run_of(uploader("upload", files / name, "-s", server.url, "--retries", "0", "--json", home=home)))
    return files, ids[::-1]


@pytest.mark.parametrize("quiet", [False, True])
def test_resume_of_several_runs_names_the_others(
    quiet: bool, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """Without a terminal the newest one is resumed."""
    files, (_, older) = two_interrupted(server, make_files, tmp_path)
    done = resumed(tmp_path, *["--quiet"] * quiet)
    assert [event["path"] for event in done.of("file.completed")] == [str(files / "b.mp4")]
    note = f"note: resuming the newest of 2 interrupted runs; the others: {older} ({files}/a.mp4)\n"
    assert (note in done.err) != quiet
    assert "note:" not in resumed(tmp_path).err


@pytest.mark.parametrize(
    ("answer", "name", "code"),
    [
        *(("2\n", "a.mp4", 0), ("zz\n", "", 2), ("\x04", "", 2), ("\x03", "", 130)),
        *(
            pytest.param(*each, 0, marks=pytest.mark.thorough)
            for each in (("\n", "b.mp4"), ("1\n", "b.mp4"), ("{older}\n", "a.mp4"))
        ),
    ],
)
def test_resume_asks_on_a_terminal(
    answer: str, name: str, code: int, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """By number or id, else the newest; no answer, or one that names no run, is exit code 2. The run begins then.

    The journal is closed in order, also by Ctrl-C at the question.
    """
    _, (_, older) = two_interrupted(server, make_files, tmp_path)
    screen, program = pty.openpty()
    began = time.monotonic()
    streams = {"stdin": program, "stderr": program, "on_terminal": True}
    process = start("resume", "--json", "--progress", "none", home=tmp_path, **streams)
    shown = ""
    while "[1]: " not in shown:
        shown += os.read(screen, 65536).decode()
    asked = time.monotonic()
    time.sleep(1.0 if answer == "\n" else 0.0)
    answered = time.monotonic()
    os.write(screen, answer.format(older=older[:8]).encode())
    out, _ = process.communicate(timeout=PATIENCE)
    os.close(program)
    shown += read_until_closed(screen)
    assert "2 interrupted runs, the newest last:" in shown
    assert "resume which one? number or id [1]: " in shown
    took = time.monotonic() - began - (answered - asked)
    assert process.returncode == code, shown
    assert not list((tmp_path / "state").rglob("*-shm"))
    if name:
        done = Done(0, out, "")
        assert [event["path"].rpartition("/")[2] for event in done.of("file.completed")] == [name]
        assert done.of("run.finished")[0]["seconds"] < took


def read_until_closed(screen: int) -> str:
    """Read what was written on a terminal whose programs have ended."""
    text = b""
    with contextlib.suppress(OSError):
        while piece := os.read(screen, 65536):
            text += piece
    os.close(screen)
    return text.decode()


@pytest.mark.thorough
def test_forgotten_run_can_not_be_resumed_and_keeps_its_receipts(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """It can't be resumed, and the same command starts from the beginning; only its receipts are left."""
    files = make_files(**{"a.mp4": 10, "b.mp4": 640 * KIB})
    first = interrupted(server.url, tmp_path, files, "-j", "1")
    forgotten = uploader("resume", "--forget", run_of(first)[:8], home=tmp_path)
    assert (forgotten.code, forgotten.out) == (0, "")
    assert listed(tmp_path) == []
    assert uploader("resume", home=tmp_path).code == 2
    assert uploader("resume", "--forget", run_of(first), home=tmp_path).code == 2
    done = uploader("upload", files, "-s", server.url, "--skip-existing", "--json", home=tmp_path)
    assert "resumed_from" not in done.events[0]
    assert [event["path"] for event in done.of("file.skipped")] == [str(files / "a.mp4")]
    assert done.of("file.started")[0]["offset"] == 0


@pytest.mark.thorough
def test_no_resume_restarts_every_file(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Every file from its first byte, also finished ones; the unfinished upload on the server is deleted."""
    files = make_files(**{"a.mp4": 10, "b.mp4": 640 * KIB})
    interrupted(server.url, tmp_path, files, "-j", "1")
    done = uploader("upload", files, "-s", server.url, "--no-resume", "--json", home=tmp_path)
    assert done.code == 0
    assert "resumed_from" not in done.events[0]
    assert [event["offset"] for event in done.of("file.started")] == [0, 0]
    assert done.finished["completed"] == 2
    assert server.faults.count("DELETE", ENDPOINT + "*") == 1
    assert uploader("resume", home=tmp_path).code == 2


@pytest.mark.thorough
def test_state_dir_alone_has_the_journal_and_is_named_to_resume(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The journal is only in that directory; the summary names the command that finds it."""
    place = tmp_path / "my state"
    first = interrupted(server.url, tmp_path, make_files(**{"a.mp4": 640 * KIB}), "--state-dir", place)
    said = "".join(first.err.split())  # a path this long is wrapped
    assert "".join(f"to resume: uploader resume --state-dir '{place}'".split()) in said
    assert not list((tmp_path / "state").rglob("*journal*"))
    assert uploader("resume", home=tmp_path).code == 2
    done = resumed(tmp_path, "--state-dir", place)
    assert done.events[0]["resumed_from"] == run_of(first)


@pytest.mark.thorough
def test_no_secret_is_in_the_journal(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Neither the token nor a header is in any file of the state directory, nor is it sent when the run is resumed."""
    files = make_files(**{"a.mp4": 640 * KIB})
    with Proxy(server.url) as relay:
        secrets = {"UPLOADER_TOKEN": "t0ken-5ecret", "UPLOADER_HEADER": "X-Api-Key: header-5ecret"}
        options = ("-s", relay.url, *SLOW, "--token-command", "echo command-5ecret", "--json")
        process = start("upload", files, *options, home=tmp_path, **secrets)
        ended(process, read_confirmed(process, CHUNK), signal.SIGINT)
        assert relay.of("PATCH")[0].headers["x-api-key"] == "header-5ecret"
        assert relay.of("PATCH")[0].headers["authorization"] == "Bearer command-5ecret"
        kept = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
        assert kept
        for path in kept:
            assert b"5ecret" not in path.read_bytes(), path
        assert not [path for path in kept if "journal" in path.name and path.stat().st_mode & 0o077]
        relay.requests.clear()
        resumed(tmp_path)
        assert {request.headers.get("x-api-key") for request in relay.requests} == {None}
        assert {request.headers.get("authorization") for request in relay.requests} == {None}


@pytest.mark.thorough
def test_a_server_that_a_directory_named_gets_no_token_on_resume(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The run remembers who named it; the warning advises what resume can do, and that works."""
    make_files(**{"a.mp4": 640 * KIB})
    (tmp_path / "uploader.toml").write_text(f'server = "{server.url}"\n')
    process = start("upload", "files", *SLOW, "--json", home=tmp_path, UPLOADER_TOKEN="t0ken")
    first = ended(process, read_confirmed(process, CHUNK), signal.SIGINT)
    (tmp_path / "uploader.toml").unlink()
    process = start("resume", "--json", home=tmp_path, UPLOADER_TOKEN="t0ken")
    second = ended(process, read_confirmed(process, 4 * CHUNK), signal.SIGINT)
    for done in (first, second):
        (warning,) = done.of("warning")
        assert warning["code"] == "token_withheld"
        assert "UPLOADER_SERVER" in warning["text"]
    assert resumed(tmp_path, UPLOADER_TOKEN="t0ken", UPLOADER_SERVER=server.url).of("warning") == []


@pytest.mark.thorough
def test_a_damaged_journal_is_set_aside(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """A warning names the new place, and the upload runs."""
    files = make_files(**{"a.mp4": 10})
    assert uploader("upload", files, "-s", server.url, home=tmp_path).code == 0
    (journal,) = (tmp_path / "state").rglob("journal*.sqlite*")
    journal.write_bytes(b"no database at all" * 1000)
    done = uploader("upload", files, "-s", server.url, "--json", home=tmp_path)
    assert (done.code, done.finished["completed"]) == (0, 1)
    (warning,) = done.of("warning")
    assert warning["code"] == "journal"
    (aside,) = [path for path in journal.parent.iterdir() if path.name in warning["text"] and path != journal]
    assert aside.read_bytes().startswith(b"no database")
    assert len(listed(tmp_path)) == 1


@pytest.mark.thorough
def test_interrupted_run_names_the_resume_command(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Four workers in the middle of chunks: the end comes in time, each file is reported, the hint names resume."""
    files = make_files(**{f"{number}.mp4": 2 * MIB for number in range(6)}, **{"0 small.mp4": 10})
    options = ("-s", server.url, "--limit-rate", "500K", "--json")
    process = start("upload", files, *options, home=tmp_path)
    seen = read_until(process, "file.progress", lambda event: event["sent"] > 0)
    began = time.monotonic()
    done = ended(process, seen, signal.SIGINT)
    assert time.monotonic() - began < PROMISED * SLACK
    assert (done.code, done.finished["exit_code"], done.finished["ok"]) == (130, 130, False)
    assert done.finished["completed"] + done.finished["cancelled"] == 7
    assert "to resume: uploader resume" in done.err
    assert "interrupted" in done.err
    assert listed(tmp_path)[0]["state"] == "interrupted"
    assert resumed(tmp_path).finished["failed"] == 0


@pytest.mark.thorough
@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_ends_the_run_while_the_server_reads_nothing(
    signals: int, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The workers wait in the middle of chunks: Ctrl-C ends them in time, twice at once; both runs can be resumed."""
    files = make_files(**{f"{number}.mp4": 8 * MIB for number in range(2)})
    server.faults.add(f"stall:patch#3-4:in,seconds=60,at={3 * MIB}")
    process = start("upload", files, "-s", server.url, "--chunk-size", "4M", "-j", "2", "--json", home=tmp_path)
    seen = read_confirmed(process, 4 * MIB)
    began = time.monotonic()
    done = ended(process, seen, *[signal.SIGINT] * signals)
    assert time.monotonic() - began < PROMISED * SLACK
    server.faults.clear()  # the second worker may not have met its stall
    assert done.code == 130
    assert done.finished["completed"] + resumed(tmp_path).finished["completed"] == 2


@pytest.mark.thorough
def test_resume_after_a_cancelled_session_opens_another(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """`--cancel-on-interrupt` deletes the received bytes: a new session starts from the first byte."""
    files = make_files(**{"a.mp4": 640 * KIB})
    first = interrupted(server.url, tmp_path, files, "--cancel-on-interrupt")
    assert server.faults.count("POST", "/api/upload/cancel/*") == 1
    done = resumed(tmp_path)
    assert done.of("session.created")[0]["session"] != first.of("session.created")[0]["session"]
    assert done.of("file.started")[0]["offset"] == 0
    assert (server.root / "personal" / "files" / "a.mp4").stat().st_size == 640 * KIB


@pytest.mark.thorough
def test_a_closed_terminal_interrupts(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """With a live view on it: the run ends in order, as by SIGTERM, and can be resumed."""
    files = make_files(**{"a.mp4": 2 * MIB})
    began, done = on_a_closed_terminal(["exec"], "upload", files, "-s", server.url, *SLOW, home=tmp_path)
    assert time.monotonic() - began < PROMISED * SLACK
    assert (done.code, done.finished["exit_code"], done.finished["cancelled"]) == (143, 143, 1)
    assert resumed(tmp_path).of("file.started")[0]["offset"] >= 2 * CHUNK


def test_nohup_is_respected(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Started with SIGHUP ignored it continues without output when the terminal is closed."""
    ignoring = ["trap '' HUP;", "exec"]
    files = make_files(**{"a.mp4": 600 * KIB})
    options = ("-s", server.url, "--chunk-size", "16K", "--limit-rate", "400K")
    _, done = on_a_closed_terminal(ignoring, "upload", files, *options, home=tmp_path)
    assert (done.code, done.finished["completed"]) == (0, 1)


def on_a_closed_terminal(shell: list[str], *arguments: str | Path, home: Path) -> tuple[float, Done]:
    """Run the command with a live view on a terminal that is closed after two chunks; return the time of that."""
    with terminal() as (program, close):
        process = subprocess.Popen(
            ["sh", "-c", " ".join([*shell, '"$0" -m uploader_cli "$@"']), sys.executable, *arguments, "--json"],
            stdout=subprocess.PIPE,
            stdin=program,
            stderr=program,
            text=True,
            cwd=home,
            env=environment(home, TERM="xterm"),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(program, termios.TIOCSCTTY, 0),
        )
        os.close(program)
        seen = read_confirmed(process, 2 * CHUNK)
        close.set()
        return time.monotonic(), ended(process, seen)


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, threading.Event]]:
    """The program's end of a terminal (the caller's to close), and what closes the other end; its text is dropped."""
    screen, program = pty.openpty()
    close = threading.Event()

    def show() -> None:
        with contextlib.suppress(OSError):
            while not close.is_set():
                if select.select([screen], [], [], 0.02)[0]:
                    os.read(screen, 65536)
        os.close(screen)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield program, close
    finally:
        close.set()
        thread.join()


def test_run_that_resuming_cannot_help_is_not_offered(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """A wrong URL and a refused file leave runs that only their IDs resume, also where its bytes were sent with it."""
    files = make_files(**{"a.mp4": 10, "b.mp4": 10})
    options = ("--retries", "0", "--no-pack", "--json")
    server.faults.next_answers("POST", ENDPOINT, [503])
    broken = uploader("upload", files / "a.mp4", "-s", server.url, *options, home=tmp_path)
    typo = uploader("upload", files / "b.mp4", "--tus-endpoint", f"{server.url}/typo/", *options, home=tmp_path)
    assert (typo.code, "uploader resume" in typo.err) == (4, False), typo.err
    server.faults.next_answers("POST", ENDPOINT, [415])
    refused = uploader("upload", files / "b.mp4", "-s", server.url, *options, home=tmp_path)
    assert (refused.code, "uploader resume" in refused.err, len(listed(tmp_path))) == (4, False, 3)
    assert uploader("runs", home=tmp_path).err == f"→ uploader resume {run_of(broken)[:8]}\n"
    assert [event["path"] for event in resumed(tmp_path).of("file.completed")] == [str(files / "a.mp4")]
    assert uploader("resume", home=tmp_path).code == 2, "nothing is left that resuming helps"
    done = resumed(tmp_path, run_of(refused))
    assert [event["path"] for event in done.of("file.completed")] == [str(files / "b.mp4")]


def test_run_of_a_file_that_was_refused_in_part_is_offered(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The server has its first bytes, and the journal keeps the upload."""
    files = make_files(**{"a.mp4": 200_000})
    server.faults.add("status:patch#2:400")
    options = ("--chunk-size", "64K", "--no-pack", "--json")
    refused = uploader("upload", files, "-s", server.url, *options, home=tmp_path)
    assert (refused.code, [event["code"] for event in refused.of("file.failed")]) == (4, ["server_refused"])
    assert "uploader resume" in refused.err
    assert [event["offset"] for event in resumed(tmp_path).of("file.started")] == [65_536]
