"""`.uploaderignore`: what it leaves out, in the directory that was named and below."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from uploader_cli.core.events import FailureCode, FileFailed
from uploader_cli.core.plan import LocalFile
from uploader_cli.selection.filters import Filters
from uploader_cli.selection.walk import walk

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(**files: str) -> None:
    """Empty files `d/a__b.mp4` as `d__a`: names in words, `__` for a slash, `_` for a dot."""
    for word, text in files.items():
        path = Path("d", word.replace("__", "/").replace("_", "."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def rules(directory: str, *lines: str) -> None:
    Path(directory).mkdir(parents=True, exist_ok=True)
    Path(directory, ".uploaderignore").write_text("\n".join(lines) + "\n")


def sent(*paths: str, include: str = "", exclude: str = "") -> str:
    steps = walk(paths or ["d"], Filters(include.split(), exclude.split()))
    return " ".join(step.path for step in steps if isinstance(step, LocalFile))


def test_ignored_files_and_the_ignore_file_are_not_sent(here: Path) -> None:
    make(a_mp4="", b_tmp="", x__c_tmp="", x__d_mp4="")
    rules("d", "# scratch files", "", "*.tmp")
    assert sent() == "d/a.mp4 d/x/d.mp4"


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (["x/"], "d/a.mp4"),
        (["/a.mp4"], "d/x/a.mp4"),
        (["*.mp4", "!a.mp4"], "d/a.mp4 d/x/a.mp4"),
        (["x/", "!x/a.mp4"], "d/a.mp4"),  # as in git: what is in a directory left out does not come back
        (["x/*", "!x/a.mp4"], "d/a.mp4 d/x/a.mp4"),
        (["**"], ""),
        ([], "d/a.mp4 d/x/a.mp4"),
    ],
)
def test_patterns_follow_gitignore(here: Path, lines: list[str], left: str) -> None:
    make(a_mp4="", x__a_mp4="")
    rules("d", *lines)
    assert sent() == left


def test_nested_ignore_file_overrides_its_parents(here: Path) -> None:
    make(a_tmp="", x__a_tmp="", x__y__a_tmp="", x__y__b_mp4="", y__b_mp4="")
    rules("d", "*.tmp")
    rules("d/x", "!a.tmp", "/y/b.mp4")
    rules("d/x/y", "a.tmp")
    assert sent() == "d/x/a.tmp d/y/b.mp4"


def test_ignore_file_above_the_argument_is_not_read(here: Path) -> None:
    make(x__a_mp4="")
    rules("d", "*.mp4")
    assert sent("d/x") == "d/x/a.mp4"


def test_named_file_is_sent_although_ignored(here: Path) -> None:
    make(a_mp4="", b_mp4="")
    rules("d", "*.mp4")
    assert sent("d/a.mp4") == "d/a.mp4"


def test_ignore_file_applies_to_included_files(here: Path) -> None:
    make(a_mp4="", b_mp4="", c_avi="")
    rules("d", "b.mp4")
    assert sent(include="*.mp4") == "d/a.mp4"
    assert sent(exclude="a.mp4") == "d/c.avi"


def test_a_name_that_is_no_utf8_can_be_left_out(here: Path) -> None:
    make(a_mp4="")
    Path(os.fsdecode(b"d/b\xff.mp4")).touch()
    Path("d/.uploaderignore").write_bytes(b"b\xff.mp4\n")
    assert sent() == "d/a.mp4"


@pytest.mark.parametrize(
    ("text", "words"),
    [("*.tmp\n[z-a]\n", "line 2 is not a gitignore pattern"), ("!\n", "line 1 is not a gitignore pattern")],
)
def test_invalid_ignore_file_fails_and_its_directory_is_skipped(here: Path, text: str, words: str) -> None:
    """Its patterns are unknown, so nothing is sent."""
    make(a_mp4="", x__b_mp4="", y__c_mp4="")
    Path("d/x/.uploaderignore").write_text(text)
    assert sent() == "d/a.mp4 d/y/c.mp4"
    (bad,) = [step for step in walk(["d"], Filters()) if isinstance(step, FileFailed)]
    assert (bad.path, bad.code) == ("d/x/.uploaderignore", FailureCode.UNREADABLE)
    assert bad.message.startswith(words)
    assert bad.message.endswith("; its directory is not uploaded")


@contextlib.contextmanager
def as_anyone() -> Iterator[None]:
    """Without the rights of root, who may read everything."""
    root = os.geteuid() == 0
    if root:
        for directory in (Path(), Path("d")):
            directory.chmod(0o777)
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_unreadable_ignore_file_fails(here: Path) -> None:
    make(a_mp4="")
    rules("d", "*.tmp")
    Path("d/.uploaderignore").chmod(0)
    with as_anyone():
        (bad,) = [step for step in walk(["d"], Filters()) if step]
    assert isinstance(bad, FileFailed)
    assert bad.message == "can't be read: Permission denied; its directory is not uploaded"


@pytest.mark.parametrize("mode", [0, 0o600])
def test_unreadable_directory_is_reported_by_its_own_name(here: Path, mode: int) -> None:
    """It has no such file, and whether it has one can't be known."""
    make(a_mp4="", x__b_mp4="")
    Path("d/x").chmod(mode)
    with as_anyone():
        (bad,) = [step for step in walk(["d"], Filters()) if isinstance(step, FileFailed)]
    Path("d/x").chmod(0o700)
    assert (bad.path, bad.code, bad.message) == ("d/x", FailureCode.UNREADABLE, "Permission denied")


def test_ignore_file_that_is_not_regular_is_not_opened(here: Path) -> None:
    """A pipe of that name must not be opened: it would be waited for."""
    make(a_mp4="")
    os.mkfifo("d/.uploaderignore")
    assert sent() == "d/a.mp4"
