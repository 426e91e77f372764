"""What an option names, and can't be used: exit 2 with the option, the path and the reason."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import feature_samples
import pytest
from feature_samples import of

from uploader_cli.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOWHERE = ["-s", "http://127.0.0.1:9"]
"""A server that answers nothing: what is checked after the first request would be exit 6."""
UPLOAD = ["upload", "a.mp4", *NOWHERE]
WRITTEN = {
    "--report": (UPLOAD, ".json"),
    "--failed-to": (UPLOAD, ".txt"),
    "--links": (UPLOAD, ".txt"),
    "--log-file": (UPLOAD, ".log"),
    **feature_samples.WRITTEN,
}
READ = {
    "--ca-bundle": (UPLOAD, ".pem"),
    "--client-cert": (UPLOAD, ".pem"),
    "--token-file": (UPLOAD, ""),
    "--exclude-from": (UPLOAD, ""),
    "--from-file": (["upload", *NOWHERE], ""),
    "--state-dir": (UPLOAD, ""),
}
MAY_BE_DIRECTORY = {"--analysis-to", "--ca-bundle", "--state-dir"}
STATE = [
    ["watch", *NOWHERE],
    ["runs"],
    ["resume"],
    of("plan", [*UPLOAD, "-n", "--skip-existing"]),
    of("check", ["check", "a.mp4", *NOWHERE]),
]


def long_name(there: Path, suffix: str) -> Path:
    return there / f"{'n' * 300}{suffix}"


def long_directory(there: Path, suffix: str) -> Path:
    return there / ("n" * 300) / f"x{suffix}"


def loop(there: Path, suffix: str) -> Path:
    path = there / f"loop{suffix}"
    path.symlink_to(path)
    return path


def below_a_loop(there: Path, suffix: str) -> Path:
    return loop(there, "") / f"x{suffix}"


def below_a_file(there: Path, suffix: str) -> Path:
    return there / "a.mp4" / f"x{suffix}"


def closed(there: Path, suffix: str) -> Path:
    (there / "closed").mkdir(0)
    return there / "closed" / f"x{suffix}"


UNUSABLE = [long_name, long_directory, loop, below_a_loop, below_a_file, *([closed] if os.geteuid() else [])]
REASONS = ("File name too long", "Too many levels of symbolic links", "Not a directory", "Permission denied", "no such")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"x")


@pytest.mark.parametrize("unusable", UNUSABLE)
@pytest.mark.parametrize("option", WRITTEN | READ)
def test_unusable_path_of_an_option_is_exit_2_with_option_path_and_reason(
    option: str, unusable: Callable[[Path, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, suffix = (WRITTEN | READ)[option]
    path = unusable(tmp_path, suffix)
    assert main([*command, option, str(path)]) == 2
    said = capsys.readouterr().err
    assert {"-o": "--report"}.get(option, option) in said
    assert str(path) in said or f"no such directory: {path.parent}" in said
    assert any(reason in said for reason in REASONS) or "File exists" in said


@pytest.mark.parametrize("option", [*sorted((WRITTEN | READ).keys() - MAY_BE_DIRECTORY)])
def test_directory_in_place_of_a_file_is_exit_2(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, suffix = (WRITTEN | READ)[option]
    path = tmp_path / f"d{suffix}"
    path.mkdir()
    assert main([*command, option, str(path)]) == 2
    assert "directory" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="a file whose first byte can't be read")
@pytest.mark.parametrize("option", ["--exclude-from", "--from-file"])
def test_file_that_opens_and_fails_to_read_is_exit_2(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*READ[option][0], option, "/proc/self/mem"]) == 2
    assert f"{option}: /proc/self/mem can't be read: Input/output error" in capsys.readouterr().err


@pytest.mark.parametrize("unusable", UNUSABLE)
@pytest.mark.parametrize("command", STATE)
def test_unusable_state_directory_is_exit_2_in_every_command(
    command: list[str], unusable: Callable[[Path, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = unusable(tmp_path, "")
    assert main([*command, "--state-dir", str(path)]) == 2
    said = capsys.readouterr().err
    assert "--state-dir" in said
    assert str(path) in said


@pytest.mark.parametrize("unusable", UNUSABLE)
def test_unusable_bundle_of_the_environment_is_exit_2(
    unusable: Callable[[Path, str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = unusable(tmp_path, ".pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    assert main(UPLOAD) == 2
    assert f"REQUESTS_CA_BUNDLE: {path}" in capsys.readouterr().err.replace("no such file: ", "")


@pytest.mark.parametrize("unusable", [long_name, long_directory, below_a_loop])
def test_unusable_path_says_why(
    unusable: Callable[[Path, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = unusable(tmp_path, "")
    assert main(["upload", str(path), *NOWHERE]) == 2
    said = capsys.readouterr().err
    assert f"{path} can't be read: " in said
    assert any(reason in said for reason in REASONS)
