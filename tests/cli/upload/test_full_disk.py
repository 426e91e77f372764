"""A full disk, a closed stdout or stderr, and a kill during a write: no partial file is left."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from command import DEADLINE, Done, environment, finish, start, uploader
from feature_samples import of
from forking import CLOSED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

SESSION = "00000000-0000-4000-8000-000000000000"
OUTPUTS = [">/dev/full", "2>/dev/full", ">/dev/full 2>&1", ">&-", "2>&-", ">&- 2>&- <&-"]
COMMANDS = {
    "upload files": 0,
    "upload files --json": 0,
    "validate files": 0,
    "validate files --json": 0,
    f"status {SESSION} --json": 4,
    f"watch {SESSION} --wait 0": 6,
    f"watch {SESSION} --wait 0 --json": 6,
    "resume --list --json": 0,
    "config --json": 0,
    "config": 0,
    "--version": 0,
    "upload --json-schema": 0,
    "upload gone.mp4": 2,
}
OF_FEATURES = {
    "upload files --dry-run": "plan",
    "upload files --dry-run --json": "plan",
    "smoke --only health --json": "smoke",
    "smoke --only health": "smoke",
    "doctor --json": "doctor",
    "report merge first.json --json": "shards",
}
"""Commands with exit code 0, and their features."""


def redirected(command: str, redirection: str, home: Path, url: str) -> Done:
    """Run the command with its outputs as a shell redirects them."""
    with open("/dev/full", "w") as full:
        streams = {
            ">/dev/full": {"stdout": full},
            "2>/dev/full": {"stderr": full},
            ">/dev/full 2>&1": {"stdout": full, "stderr": full},
            ">&-": {"stdout": CLOSED},
            "2>&-": {"stderr": CLOSED},
            "<&-": {"stdin": CLOSED},
            ">&- 2>&- <&-": {"stdin": CLOSED, "stdout": CLOSED, "stderr": CLOSED},
        }[redirection]
        return finish(start(*command.split(), home=home, UPLOADER_SERVER=url, **streams))


@pytest.mark.thorough
@pytest.mark.parametrize("redirection", [">/dev/full 2>&1", ">&- 2>&- <&-"])
def test_upload_started_by_a_shell_continues_without_its_outputs(
    redirection: str, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """A new Python finds its descriptors full or closed when it starts."""
    make_files(**{"a.mp4": 2000})
    line = f'exec "{sys.executable}" -m uploader_cli upload files --json --report r.json {redirection}'
    env = environment(tmp_path, UPLOADER_SERVER=server.url)
    shell = ["sh", "-c", line]
    done = subprocess.run(shell, cwd=tmp_path, env=env, capture_output=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert json.loads((tmp_path / "r.json").read_text())["exit_code"] == 0
    assert (server.root / "personal" / "files" / "a.mp4").is_file()


@pytest.mark.thorough
@pytest.mark.parametrize("redirection", OUTPUTS)
def test_upload_continues_without_its_outputs(
    redirection: str, server: EmbeddedServer, make_files: Files, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """With any view each file is stored, and the exit code is that of the upload."""
    make_files(**{"a.mp4": 2000, "b.mp4": 3000})
    for view in ("--json", "--progress plain", "--progress live"):
        with subtests.test(view=view):
            done = redirected(
                f"upload files --no-resume -c personal {view} --report r.json", redirection, tmp_path, server.url
            )
            assert "Traceback" not in done.out
            assert done.code == 0, done.err
            assert json.loads((tmp_path / "r.json").read_text())["exit_code"] == 0
    assert sorted(path.name for path in (server.root / "personal").rglob("*.mp4")) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(
    ("command", "redirection"),
    [
        *((command, ">/dev/full") for command in COMMANDS),
        *(of(feature, command, ">/dev/full") for command, feature in OF_FEATURES.items()),
        *(("upload files --json", redirection) for redirection in ("2>/dev/full", ">&- 2>&- <&-")),
        *(
            pytest.param(command, redirection, marks=pytest.mark.thorough)
            for command in COMMANDS
            for redirection in ("2>/dev/full", ">&- 2>&- <&-")
            if command != "upload files --json"
        ),
    ],
)
def test_exit_code_is_the_same_with_a_closed_output(
    command: str, redirection: str, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The exit code does not depend on the outputs; lost output on stdout is reported on stderr."""
    make_files(**{"a.mp4": 10})
    if command.startswith("report"):
        assert uploader("upload", "files", "-s", server.url, "--report", "first.json", home=tmp_path).code == 0
    done = redirected(command, redirection, tmp_path, server.url)
    assert "Traceback" not in done.out
    assert "bug" not in done.err
    assert done.code == COMMANDS.get(command, 0), done.err
    if redirection == ">/dev/full" and "json" in command and done.code == 0:
        assert "stdout could not be written (No space left on device)" in done.err


def test_list_from_a_closed_stdin_is_refused(server: EmbeddedServer, tmp_path: Path) -> None:
    """An empty list would mean that nothing is sent, with exit code 0."""
    done = redirected("upload --from-file -", "<&-", tmp_path, server.url)
    assert (done.code, "standard input is closed" in done.err) == (2, True)


def test_failed_report_is_printed_after_the_summary(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    command = ("upload", make_files(**{"a.mp4": 10}), "-s", server.url, "--json")
    done = uploader(*command, "--report", "json:/dev/full", "--report", "r.json", home=tmp_path)
    assert done.code == 2
    assert (done.finished["exit_code"], done.finished["ok"]) == (2, True)
    summary, problem = done.err.index("all confirmed"), done.err.index("error: --report: /dev/full could not")
    assert summary < problem


def limited(size: int) -> Callable[[], None]:
    """Limit each file of the process to `size` bytes, as a full disk does."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.thorough
def test_log_has_whole_lines_only(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """The line that did not fit is removed; a line that an earlier process left half stands alone."""
    make_files(**{f"{number}.mp4": 10 for number in range(120)})
    log = tmp_path / "log"
    log.write_text('{"half": ')
    line = f"-m uploader_cli upload files -s {server.url} --log-file log --progress=none"
    done = subprocess.run(
        [sys.executable, *line.split()],
        cwd=tmp_path,
        env=environment(tmp_path),
        preexec_fn=limited(60_000),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert "warning: the log file is not complete: File too large" in done.stderr
    text = log.read_text()
    assert 50_000 < len(text) <= 60_000
    assert text.endswith("\n")
    half, *lines = text.splitlines()
    assert half == '{"half": '
    assert all(json.loads(one)["event"] for one in lines)


def child(body: str, cwd: Path, **how: Any) -> subprocess.Popen[str]:
    """Run Python code in its own process."""
    script = f"import os, signal\nfrom pathlib import Path\nfrom uploader_cli.report import output_file\n{body}"
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=cwd, env=environment(cwd), stdout=subprocess.PIPE, text=True, **how
    )


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files without a name are Linux's")
def test_process_killed_while_it_writes_a_report_leaves_the_old_one_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "r.json").write_text("old")
    body = (
        "def text():\n"
        "    yield 'x' * 1_000_000\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "output_file.write(Path('out/r.json'), text(), 'tag')\n"
    )
    with child(body, tmp_path) as process:
        process.communicate(timeout=DEADLINE)
    assert process.returncode == -signal.SIGKILL
    assert [(path.name, path.read_text()) for path in (tmp_path / "out").iterdir()] == [("r.json", "old")]
