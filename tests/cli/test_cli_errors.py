"""Errors of commands: one message, one hint, the right exit code, no traceback."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import stat
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from feature_samples import of

from uploader_cli import errors
from uploader_cli.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.conftest import Runs


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("what"), 2),
        (errors.AnswerError("what", status=503), 3),
        (errors.AnswerError("what", status=400), 4),
        (errors.Unauthorized("what", status=401), 5),
        (errors.ConnectFailed("what"), 6),
        (errors.NotAnUploadServer("what"), 6),
    ],
)
def test_an_error_is_one_line_and_a_code(
    runs: Runs,
    capsys: pytest.CaptureFixture[str],
    error: errors.UploaderError,
    code: int,
) -> None:
    runs.error = error
    assert main(["upload", "a"]) == code
    assert capsys.readouterr() == ("", "error: what\n")


def test_errors_are_folded_at_spaces_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    command = [sys.executable, "-m", "uploader_cli", "upload", "a.mp4", "--state-dir", "state", "--max-wait", "long"]
    assert subprocess.run(command, stderr=theirs, cwd=tmp_path, check=False).returncode == 2
    os.close(theirs)
    lines = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    assert len(lines) > 2
    assert all(len(line) <= 40 for line in lines)
    assert [line for line in lines if not line.startswith(("error: ", "hint: ", "  "))] == []


def test_the_hint_comes_after_the_error(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs.error = errors.UsageError("it is broken", hint="fix it")
    assert main(["upload", "a"]) == 2
    assert capsys.readouterr().err == "error: it is broken\nhint: fix it\n"


def test_control_characters_of_a_name_are_escaped_in_errors(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs.error = errors.UsageError("\x1b[2Jevil\r: no such file")
    assert main(["upload", "a"]) == 2
    stderr = capsys.readouterr().err
    assert "evil" in stderr
    assert not set(stderr) & {"\x1b", "\r"}


HELP = "uploader --help lists the commands, and uploader COMMAND --help its options"
NO_PATH = "give files or directories: uploader {0} PATH…, or a list: --from-file FILE (see: uploader {0} --help)"


def test_no_secret_is_in_a_message(
    runs: Runs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPLOADER_TOKEN", "s3cret-of-a-message")
    runs.error = errors.ConnectFailed("no way through http://me:hunter2@proxy with s3cret-of-a-message")
    assert main(["upload", "a"]) == 6
    assert capsys.readouterr().err == "error: no way through http://***@proxy with ***\n"


@pytest.mark.parametrize(
    ("line", "error", "hint"),
    [
        ("nonsense", "no such command: 'nonsense'", "see: uploader --help"),
        ("uplod a", "no such command: 'uplod'", "did you mean upload?"),
        ("help", "no such command: 'help'", HELP),
        ("-V", "-V: no such option", "uploader --version prints the version"),
        ("upload -r a", "-r: no such option", "omit it: directories are sent with all they contain"),
        ("upload -Z", "-Z: no such option", "see: uploader upload --help"),
        ("upload a --token x", "--token: no such option", "did you mean --token-file?"),
        ("upload a --verfy", "--verfy: no such option", "did you mean --verify?"),
        ("upload a --overwrite", "--overwrite: no such option", "see: uploader upload --help"),
        ("upload a --no-jobs", "--no-jobs: no such option", "did you mean --jobs?"),
        (
            "watch a --no-cancel-on-interrupt",
            "--no-cancel-on-interrupt: no such option",
            "it is an option of upload, resume (see: uploader watch --help)",
        ),
        ("resume --name x", "--name: no such option", "it is an option of upload (see: uploader resume --help)"),
        ("--name x upload", "--name: no such option", "it is an option of upload (after the command)"),
        ("upload a -s", "-s needs a value", "see: uploader upload --help"),
        ("upload a --json=1", "--json takes no value", "see: uploader upload --help"),
        ("status", "SESSION is missing", "see: uploader status --help"),
        ("upload a --trust-receipts", "--trust-receipts needs --skip-existing", "add --skip-existing, or omit it"),
        ("upload", "no path given", NO_PATH.format("upload")),
        of("check", "check", "no path given", NO_PATH.format("check")),
        ("delete a b", "unexpected argument: b", "see: uploader delete --help"),
        of("demo", "demo --files x", "--files: 'x' is not a whole number", "see: uploader demo --help"),
        of("demo", "demo --files 0", "--files: 0 is not from 1 to 1000", "see: uploader demo --help"),
        of("smoke", "smoke --budget 0", "--budget: 0 is less than 1", "see: uploader smoke --help"),
    ],
)
def test_usage_error_is_an_error_and_a_hint(
    runs: Runs, line: str, error: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    assert capsys.readouterr() == ("", f"error: {error}\nhint: {hint}\n")


def test_ctrl_c_ends_with_130(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs.error = KeyboardInterrupt()
    assert main(["upload", "a"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_bug_exits_1_and_writes_a_report_without_secrets(
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("UPLOADER_TOKEN", "s3cret-of-the-environment")
    monkeypatch.setattr(
        sys, "argv", ["uploader", "upload", "private/file.mp4", "--header=X-Key: s3cret", "-sfiles.example"]
    )
    runs.error = RuntimeError("bad header: Bearer s3cret-of-the-environment, Authorization: Basic s3cret")
    assert main(["upload", "a"]) == 1
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert stderr.startswith("error: internal error (RuntimeError)")
    assert "Traceback" not in stderr
    found = re.search(rf"{re.escape(str(tmp_path))}/\S+\.txt", stderr)
    assert found
    file = Path(found[0])
    text = file.read_text()
    assert "Traceback" in text
    assert "options: upload --header -s\n" in text
    assert "s3cret" not in text
    assert "private" not in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_bug_is_printed_where_no_report_can_be_written(
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    runs.error = RuntimeError("x")
    assert main(["upload", "a"]) == 1
    assert "no bug report could be written: No such file or directory" in capsys.readouterr().err


def without_a_reader(argv: Sequence[str], body: str) -> tuple[int, str]:
    """Run `main` in a process whose stdout is a closed pipe, with `body` in place of `upload_command`."""
    script = (
        "import sys, types\n"
        f"def upload_command(settings, paths):\n    {body}\n"
        "sys.modules['uploader_cli.run.commands'] = types.SimpleNamespace(upload_command=upload_command)\n"
        "from uploader_cli.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, *argv]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        stderr = process.stderr.read()
    return process.returncode, stderr


@pytest.mark.parametrize("body", ["raise BrokenPipeError", "print('x' * 100_000, flush=True)", "print('x'); return 0"])
def test_closed_stdout_pipe_exits_1_without_a_message(body: str) -> None:
    code, stderr = without_a_reader(["upload", "a", "-s", "localhost"], body)
    assert (code, stderr) == (1, "")
