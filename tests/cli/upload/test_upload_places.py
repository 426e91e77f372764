"""Uploads where the home directory, the working directory or the locale is unusual: they work, with a warning."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

import pytest
from command import Done, environment, uploader
from feature_samples import of
from forking import DEVNULL
from serving import running_server
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

NAMELESS = """
import pwd, sys
def unknown(_uid): raise KeyError
pwd.getpwuid = unknown
from uploader_cli.__main__ import run
sys.exit(run())
"""
READ_ONLY = {"HOME": "/proc/sys", "XDG_STATE_HOME": "", "XDG_CONFIG_HOME": ""}
"""Not writable, not even for root."""


def without_a_home(home: Path, *arguments: str | Path, stdin: IO[str] | None = None) -> Done:
    """Run `uploader` as a user without a name, for whom `HOME` is not set."""
    env = {key: value for key, value in environment(home).items() if key != "HOME" and not key.startswith("XDG_")}
    command = [sys.executable, "-c", NAMELESS, *arguments]
    done = subprocess.run(
        command, env=env, stdin=stdin, capture_output=True, text=True, check=False, timeout=PATIENCE, cwd=home
    )
    return Done(done.returncode, done.stdout, done.stderr)


def with_read_only_home(home: Path, *arguments: str | Path, stdin: IO[str] | None = None) -> Done:
    """Run `uploader` with a home directory in which nothing can be created."""
    return uploader(*arguments, home=home, stdin=DEVNULL if stdin is None else stdin, **READ_ONLY)


Run = Callable[..., Done]


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with running_server() as server:
        yield server


@pytest.mark.parametrize(
    ("run", "why"),
    [
        pytest.param(without_a_home, "this user has no home directory", marks=pytest.mark.thorough),
        (with_read_only_home, "/proc/sys/.local/state/uploader can't be written"),
    ],
)
@pytest.mark.feature("plan")
def test_upload_without_a_writable_home_warns_that_resume_is_lost(
    run: Run,
    why: str,
    server: EmbeddedServer,
    make_files: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    subtests: pytest.Subtests,
) -> None:
    """The journal is in memory: no temporary directory is needed. A list on standard input takes one for its time."""
    files, temporary = make_files(**{"a.mp4": 500}), tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    done = run(tmp_path, "upload", files, "-s", server.url, "--json")
    assert done.code == 0, done.err
    (warning,) = done.of("warning")
    assert warning["code"] == "journal"
    assert warning["text"].startswith(f"{why}: an interrupted run can't be resumed")
    listed = tmp_path / "list"
    listed.write_text(f"{files / 'a.mp4'}\n")
    for extra in (("--dry-run",), ()):
        with subtests.test(extra=extra):
            with listed.open() as stdin:
                done = run(tmp_path, "upload", "--from-file", "-", "-s", server.url, *extra, stdin=stdin)
            assert done.code == 0, done.err
    assert list(temporary.iterdir()) == []


def test_state_dir_that_can_not_be_written_is_still_an_error(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    files = make_files(**{"a.mp4": 500})
    done = uploader("upload", files, "-s", server.url, "--state-dir", "/dev/null/x", home=tmp_path)
    assert done.code == 2
    assert "/dev/null/x" in done.err


@pytest.mark.parametrize("line", ["resume", "resume --list", "config", "config path"])
def test_commands_that_need_a_home_name_the_fix(line: str, tmp_path: Path) -> None:
    done = without_a_home(tmp_path, *line.split())
    assert done.code == 2
    assert done.err.startswith("error: this user has no home directory\nhint: set HOME")


def in_deleted_directory(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `uploader` in a working directory that is deleted before the start."""
    gone = home / "gone"
    gone.mkdir()
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    command = ["sh", "-c", script, "sh", gone, sys.executable, "-m", "uploader_cli", *arguments]
    return subprocess.run(
        command, env=environment(home), capture_output=True, text=True, check=False, timeout=PATIENCE, cwd=home
    )


@pytest.mark.thorough
def test_upload_from_a_deleted_working_directory(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Full paths work; relative ones, reports too, get a message."""
    files = make_files(**{"a.mp4": 500})
    assert in_deleted_directory(tmp_path, "upload", files, "-s", server.url).returncode == 0
    for path in (".", "a.mp4"):
        with subtests.test(path=path):
            done = in_deleted_directory(tmp_path, "upload", path, "-s", server.url)
            assert done.returncode == 2
            assert done.stderr == (
                "error: the working directory was deleted\nhint: change to another, or give full paths\n"
            )
    done = in_deleted_directory(tmp_path, "upload", files, "-s", server.url, "--report", "r.json")
    assert done.returncode == 2
    assert "the deleted working directory" in done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize(
    "line", [of("demo", "serve --port 0"), of("demo", "demo --size 6K"), "upload --from-file list -s localhost:1"]
)
def test_commands_in_a_deleted_working_directory_end_without_a_bug(line: str, tmp_path: Path) -> None:
    done = in_deleted_directory(tmp_path, *line.split())
    assert done.returncode == 2
    assert "deleted" in done.stderr
    assert "bug" not in done.stderr


@pytest.mark.parametrize("fresh", [{"PYTHONIOENCODING": "ascii"}, {}], ids=["encoding", "locale"])
def test_output_without_utf8_has_signs_of_ascii(
    fresh: dict[str, str], server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    files = make_files(**{"a.mp4": 5, "größe.mp4": 5})
    variables = {"LC_ALL": "C", "PYTHONUTF8": "", **fresh}
    done = uploader("upload", files, "-s", server.url, home=tmp_path, fresh=bool(fresh), **variables)
    assert "uploader: 2 files, 10 B -> " in done.err
    assert "\nok 2 files, 10 B in " in done.err
    assert "gr\\xf6\\xdfe.mp4" in done.err
    assert done.err.isascii()


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes")
def test_upload_with_an_ascii_locale_keeps_names(server: EmbeddedServer, tmp_path: Path) -> None:
    name = "größe 数.bin"
    file = tmp_path / name
    file.write_bytes(b"12345")
    ascii_only = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command: list[str | bytes] = [
        sys.executable,
        "-m",
        "uploader_cli",
        "upload",
        os.fsencode(file),
        "-s",
        server.url,
        "--json",
    ]
    done = subprocess.run(
        command, env=environment(tmp_path, **ascii_only), capture_output=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert (server.root / "personal" / name).read_bytes() == b"12345"
    assert name in done.stdout.decode()
