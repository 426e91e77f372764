"""`uploader demo`: in a real process, and with a server and a run that fail."""

from __future__ import annotations

import hashlib
import os
import pty
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from time_limits import PATIENCE

from uploader_cli.__main__ import main
from uploader_cli.features.demo.command import make_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.settings import Settings


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Callable[[Path, Path], int]], list[Settings]]:
    """Put `upload(samples, server_root) -> exit code` in the place of a server and a run; gives the settings used."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("uploader_cli.extras.find_spec", lambda _: object())

    class Server:
        def __init__(self, config: Any) -> None:
            self.url, self.root = "http://127.0.0.1:1", config.root

        def __enter__(self) -> Server:
            self.root.mkdir()
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def set_up(upload: Callable[[Path, Path], int]) -> list[Settings]:
        seen: list[Settings] = []

        def upload_command(settings: Settings, paths: list[str], *, lasting: bool) -> int:
            assert not lasting
            seen.append(settings)
            samples = Path(paths[0])
            return upload(samples, samples.parent / "server")

        fake = SimpleNamespace(upload_command=upload_command)
        monkeypatch.setitem(sys.modules, "uploader_server.serving", SimpleNamespace(EmbeddedServer=Server))
        monkeypatch.setitem(sys.modules, "uploader_cli.run.commands", fake)
        return seen

    return set_up


def good(samples: Path, server: Path) -> int:
    shutil.copytree(samples, server / "personal" / "samples")
    return 0


@pytest.mark.parametrize("executable", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_the_demo_uploads_and_verifies(tmp_path: Path, executable: bool) -> None:
    """Run a small demo by its path: all is verified, equal files stay, and the next commands have that path."""
    uploader = shutil.copy(Path(sys.executable).with_name("uploader"), tmp_path / "my uploader")
    Path(uploader).chmod(0o700 if executable else 0o600)  # a single file that was downloaded
    python = [] if executable else [sys.executable]
    command = [*python, uploader, "demo", "--files", "4", "--size", "2M", "--keep", str(tmp_path / "kept")]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "Verified: the server has all 4 files" in done.stderr
    called = f"'{uploader}'" if executable else f"{Path(sys.executable).name} '{uploader}'"
    assert f"  {called} serve --root files\n" in done.stderr
    samples = {file.name: digest(file) for file in (tmp_path / "kept" / "samples").iterdir()}
    stored = {file.name: digest(file) for file in (tmp_path / "kept" / "server").rglob("*") if file.is_file()}
    assert len(samples) == 4
    assert "城市夜景.mp4" in samples
    assert samples.items() <= stored.items()
    assert not list(Path(os.environ["XDG_STATE_HOME"]).rglob("*journal*"))  # a demo is not resumed


@pytest.mark.thorough
def test_demo_in_a_terminal_takes_its_time_and_recovers(tmp_path: Path) -> None:
    """About eight seconds with a lost connection; the log of the terminal has the recovery and the verification."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "uploader_cli", "demo", "--progress", "plain"]
    environ = {name: value for name, value in os.environ.items() if name != "CI"}
    began = time.monotonic()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, env=environ) as process:
        os.close(theirs)
        seen = b""
        with suppress(OSError):  # the end of a terminal on Linux
            while piece := os.read(ours, 65536):
                seen += piece
        code = process.wait(PATIENCE)
    os.close(ours)
    text = seen.decode()
    assert code == 0, text
    assert 5 < time.monotonic() - began < PATIENCE
    assert "↻ " in text
    assert ": retry 1" in text
    assert "Verified: the server has all 6 files" in text


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_samples_are_unequal_and_add_up(tmp_path: Path) -> None:
    made = make_files(tmp_path / "samples", 8, 1_000_001)
    sizes = [file.stat().st_size for file in made]
    assert sum(sizes) == 1_000_001
    assert len({file.name for file in made}) == 8
    assert max(sizes) > 2 * min(sizes)
    assert any(" " in file.name for file in made)


def test_the_smallest_samples_are_not_empty(tmp_path: Path) -> None:
    made = make_files(tmp_path / "samples", 7, 7)
    assert [file.stat().st_size for file in made] == [1] * 7


def flip_a_byte(samples: Path, server: Path) -> int:
    good(samples, server)
    victim = next((server / "personal" / "samples").iterdir())
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    return 0


def lose_one(samples: Path, server: Path) -> int:
    good(samples, server)
    next((server / "personal" / "samples").iterdir()).unlink()
    return 0


def mix_up_two(samples: Path, server: Path) -> int:
    good(samples, server)
    one, two, *_ = (server / "personal" / "samples").iterdir()
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    return 0


@pytest.mark.parametrize("upload", [flip_a_byte, lose_one, mix_up_two])
def test_demo_with_a_corrupted_copy_exits_7(stage: Any, capsys: pytest.CaptureFixture[str], upload: Any) -> None:
    stage(upload)
    assert main(["demo", "--size", "60K"]) == 7
    assert "NOT VERIFIED" in capsys.readouterr().err


@pytest.mark.parametrize("code", [3, 130])
def test_demo_with_a_failed_upload_returns_its_exit_code(
    stage: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, code: int
) -> None:
    stage(lambda _samples, _server: code)
    assert main(["demo", "--size", "60K"]) == code
    assert "Verified" not in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_demo_keeps_only_what_was_asked_for(stage: Any, tmp_path: Path) -> None:
    stage(good)
    assert main(["demo", "--size", "60K"]) == 0
    assert list(tmp_path.iterdir()) == []
    assert main(["demo", "--size", "60K", "--keep", str(tmp_path / "kept")]) == 0
    assert sorted(os.listdir(tmp_path / "kept")) == ["samples", "server"]


def test_demo_ignores_the_settings_of_the_user(stage: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("uploader.toml").write_text("nonsense = 1")
    monkeypatch.setenv("UPLOADER_TOKEN", "s3cret")
    monkeypatch.setenv("UPLOADER_SERVER", "files.example")
    seen = stage(good)
    assert main(["demo", "--size", "60K", "--progress", "none"]) == 0
    assert (seen[0].server, seen[0].bearer(), seen[0].progress) == ("http://127.0.0.1:1", None, "none")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--size", "big"], "--size: must be a size"),
        (["--size", "3", "--files", "4"], "--size: 4 files need at least 4 bytes"),
        (["--size", "0"], "hint: give a larger size, or fewer files"),
        (["--files", "0"], "--files"),
        (["--progress", "fancy"], "--progress: must be auto, live, plain or none"),
        (["--keep", "."], "is not empty"),
        (["--keep", "taken/x"], "--keep"),
    ],
)
def test_bad_options_are_refused(
    stage: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    argv: list[str],
    said: str,
) -> None:
    stage(good)
    (tmp_path / "taken").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["demo", *argv]) == 2
    assert said in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["taken"]


def test_demo_without_the_extra_shows_the_pip_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("uploader_cli.extras.find_spec", lambda name: None if name == "granian" else object())
    assert main(["demo"]) == 2
    assert "hint: pip install 'granian" in capsys.readouterr().err


def test_hints_of_those_without_a_server_name_the_demo(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UPLOADER_SERVER", raising=False)
    assert main(["upload", "a"]) == 2
    assert capsys.readouterr().err.endswith(". To try it without a server: uploader demo\n")
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.endswith("No server? `uploader demo` runs an upload against a bundled one.\n")
