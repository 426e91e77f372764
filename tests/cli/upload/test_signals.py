"""SIGINT and SIGTERM at any moment: exit code 130 or 143 without a traceback, or the reported exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from command import DEADLINE, environment, finish, start
from feature_samples import of
from time_limits import PATIENCE, SLACK

from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

ONCE_READ = "head -c 1000000 /dev/zero"
"""Write more than a pipe holds: a token command goes on once the client, which has started it, reads its output."""
both = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


def at_import(module: str, number: int) -> str:
    """Code that has this process send itself a signal when it begins to import a module."""
    return (
        "import os, sys\n"
        "class Now:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}:\n"
        f"            os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Now())\n"
    )


def command(before: str, *arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process that executes `before` first."""
    script = f"{before}\nimport uploader_cli.__main__ as it\nsys.exit(it.run())"
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=home,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@both
@pytest.mark.parametrize(
    "module", ["uploader_cli.errors", "typer", "uploader_cli.cli.upload", "uploader_cli.run.commands", "http.client"]
)
def test_signal_during_an_import(
    module: str, number: int, code: int, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """Of our own modules as of others. `requests` is imported in the run, which stops in order."""
    files = make_files(**{"a.mp4": 10})
    done = command(at_import(module, number), "upload", files, "-s", server.url, "-q", home=tmp_path)
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr
    assert done.returncode == code, done.stderr


@pytest.mark.thorough
@both
def test_signal_that_an_import_turns_into_another_error(number: int, code: int, tmp_path: Path) -> None:
    """A module in C makes a SystemError of it, for example."""
    before = (
        "import os, sys, types\n"
        "def validate(*_):\n"
        "    try:\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "        len('')\n"
        "    except BaseException as error:\n"
        "        raise RuntimeError('unreported exception') from error\n"
        "from uploader_cli.run import rest_commands\n"
        "rest_commands.select = validate\n"
    )
    done = command(before, "validate", tmp_path, "-s", "localhost:9", home=tmp_path)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.thorough
@both
def test_signal_after_the_run_has_finished(
    number: int, code: int, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """`run.finished` has reported exit code 0: the process ends with it."""
    files = make_files(**{"a.mp4": 10})
    late = f"import atexit, os, sys\natexit.register(lambda: os.kill(os.getpid(), {int(number)}))"
    done = command(late, "upload", files, "-s", server.url, "--json", home=tmp_path)
    assert '"exit_code":0' in done.stdout.splitlines()[-1]
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), code


def seen(path: Path) -> bool:
    """Return True once the path exists."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return path.exists()


@both
@pytest.mark.parametrize("name", ["upload", "watch", "status"])
def test_signal_while_the_token_command_runs(
    name: str, number: int, code: int, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    subject = make_files(**{"a.mp4": 10}) if name == "upload" else "00000000-0000-4000-8000-000000000000"
    line = f"{ONCE_READ}; echo $$ > new; mv new asked; exec sleep 600"
    process = start(name, subject, "-s", server.url, "--token-command", line, home=tmp_path, free=True)
    assert seen(tmp_path / "asked")
    process.send_signal(number)
    done = finish(process)
    assert done.code == code, done.err
    child = int((tmp_path / "asked").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@both
def test_signal_while_a_token_is_read_from_a_pipe(
    number: int, code: int, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    files = make_files(**{"a.mp4": 10})
    process = start("upload", files, "-s", server.url, "--token-file", "pipe", home=tmp_path, free=True)
    writer = _opened_by_a_reader(tmp_path / "pipe")
    process.send_signal(number)
    assert finish(process).code == code
    os.close(writer)


@both
@pytest.mark.parametrize("source", ["command", "file"])
def test_signal_while_another_token_is_awaited(
    source: str, number: int, code: int, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The server no longer takes the first one; the wait for the second is in a thread of the upload."""
    os.mkfifo(tmp_path / "pipe")
    files = make_files(**{"a.mp4": 10})
    server.faults.next_answers("POST", "/api/upload/session", [401] * 3)
    line = f"if [ -e first ]; then {ONCE_READ}; touch second; exec sleep 600; fi; touch first; echo token-0001"
    token = ("--token-command", line) if source == "command" else ("--token-file", "pipe")
    process = start("upload", files, "-s", server.url, *token, home=tmp_path, free=True)
    if source == "command":
        assert seen(tmp_path / "second")
    else:
        writer = _opened_by_a_reader(tmp_path / "pipe")
        os.write(writer, b"token-0001\n")
        os.close(writer)
        while not server.faults.count("POST", "/api/upload/session"):
            time.sleep(0.02)
        writer = _opened_by_a_reader(tmp_path / "pipe")
    process.send_signal(number)
    assert finish(process).code == code


@both
@pytest.mark.parametrize(
    ("line", "faults", "left"),
    [
        of("check", ("check", "--size-only"), ["stall:stored-head:before,seconds=600"], True),
        (("upload", "-q"), ["stall:health#2-:before,seconds=600", "reset:session"], True),
        (("upload", "-q"), ["stall:finish:before,seconds=600"], False),
    ],
    ids=["calls of a check", "probe of a lost server", "end of a session"],
)
def test_signal_ends_calls_that_get_no_answer(
    line: tuple[str, str],
    faults: list[str],
    left: bool,
    number: int,
    code: int,
    server: EmbeddedServer,
    make_files: Files,
    tmp_path: Path,
) -> None:
    """Where nothing is left to send, the exit code of an upload says so."""
    stall, *_ = [server.faults.add(fault) for fault in faults]
    if not left:  # only a session that ends by itself is not finished: this one is replaced
        lost = Answer(404, body=b'{"error": "SESSION_NOT_FOUND"}')
        server.faults.next_answers("POST", "/api/upload/files/", [lost])
    process = start(*line, make_files(a=1), "-s", server.url, home=tmp_path, free=True)
    deadline = time.monotonic() + PATIENCE
    while not stall.hits and time.monotonic() < deadline:
        time.sleep(0.02)
    assert stall.hits
    process.send_signal(number)
    began = time.monotonic()
    assert finish(process).code == (code if left else 0)
    assert time.monotonic() - began < SLACK, "the read timeout is 30 s"


def _opened_by_a_reader(pipe: Path) -> int:
    """Return a descriptor that writes to the pipe, once it has a reader."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@both
@pytest.mark.parametrize(("option", "name"), [("--report", "p.json"), ("--links", "p.txt"), ("--log-file", "p.log")])
def test_signal_ends_the_wait_for_the_reader_of_a_pipe(
    option: str, name: str, number: int, code: int, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / name)
    files = make_files(**{"a.mp4": 10})
    process = start("upload", files, "-s", server.url, option, name, "--json", home=tmp_path, free=True)
    place = tmp_path / "state/uploader/journal.sqlite3" if option == "--log-file" else server.root / "personal"
    assert seen(place)  # the log is opened before anything is sent
    while option != "--log-file" and not list(place.rglob("*.mp4")):
        time.sleep(0.01)
    process.send_signal(number)
    done = finish(process)
    assert done.code == code, done.err


def test_report_into_a_pipe_waits_for_a_late_and_slow_reader(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """It is larger than what a pipe holds."""
    os.mkfifo(tmp_path / "p.json")
    files = make_files(**{f"{number:03}.mp4": 1 for number in range(300)})
    process = start("upload", files, "-s", server.url, "--report", "p.json", home=tmp_path, free=True)
    with (tmp_path / "p.json").open() as pipe:
        report = json.loads(pipe.read())
    assert len(report["files"]) == 300
    done = finish(process)
    assert done.code == 0, done.err
