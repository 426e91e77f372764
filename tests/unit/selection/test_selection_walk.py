"""Walking real directories. What was selected is written in one line: `a.mp4 sub/b.mp4 link!symlink gone!vanished`."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from uploader_cli.core.events import FailureCode, FileFailed, FileSkipped
from uploader_cli.core.plan import LocalFile
from uploader_cli.selection import walk as walking
from uploader_cli.selection.filters import Filters
from uploader_cli.selection.walk import Selected, missing, walk
from uploader_cli.sources.directories import directories
from uploader_cli.sources.unchanged import open_unchanged


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory called `here`."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def make(*paths: str) -> None:
    """Files that contain their own path."""
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path))


def found(*paths: str, include: str = "", exclude: str = "", follow: bool = False) -> list[Selected]:
    steps = walk(paths, Filters(include.split(), exclude.split()), follow_links=follow)
    return [step for step in steps if step is not None]


def line(found: Iterable[Selected | None]) -> str:
    """The paths; what was left out with its reason. Numbers must count from 0."""
    items = [item for item in found if item is not None]
    assert [item.file for item in items] == list(range(len(items)))
    return " ".join(item.path + mark(item) for item in items)


def mark(item: Selected) -> str:
    match item:
        case FileSkipped():
            return f"!{item.reason}"
        case FileFailed():
            return f"!{item.code}"
    return ""


def relatives(items: list[Selected]) -> str:
    return " ".join(item.relative_path for item in items if isinstance(item, LocalFile))


# --- what is found ---------------------------------------------------------------------------------------------------


def test_depth_first_with_names_sorted_and_hidden_files(here: Path) -> None:
    make("d/b.mp4", "d/a/z.mp4", "d/a/.hidden/x.mp4", "d/c.mp4", "d/.dot", "d/B.mp4", "d/a.mp4")
    assert line(found("d")) == "d/.dot d/B.mp4 d/a/.hidden/x.mp4 d/a/z.mp4 d/a.mp4 d/b.mp4 d/c.mp4"
    assert line(found("d")) == line(found("d"))


def test_directory_is_read_in_sections_of_its_sorted_names(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("d/e", "d/b", "d/a", "d/d", "d/c")
    monkeypatch.setattr(walking, "AT_ONCE", 2)
    assert line(found("d")) == "d/a d/b d/c d/d d/e"


def test_arguments_keep_their_order(here: Path) -> None:
    make("z.mp4", "d/x.mp4", "a.mp4")
    assert line(found("z.mp4", "d", "a.mp4")) == "z.mp4 d/x.mp4 a.mp4"


def test_empty_directories_hold_nothing(here: Path) -> None:
    Path("d/e/f").mkdir(parents=True)
    assert found("d") == []
    assert found() == []


def test_a_file_has_its_size_and_time_and_knows_whether_it_was_named(here: Path) -> None:
    make("a.mp4", "d/b.mp4")
    os.utime("a.mp4", ns=(0, 1_500_000_000_123_456_789))
    named, walked = found("a.mp4", "d")
    assert isinstance(named, LocalFile)
    assert isinstance(walked, LocalFile)
    assert (named.size, named.mtime_ns, named.named) == (5, 1_500_000_000_123_456_789, True)
    assert (walked.size, walked.named) == (7, False)


@pytest.mark.parametrize("size", [0, 1])
def test_walk_accepts_any_size(here: Path, size: int) -> None:
    Path("a").write_bytes(b"x" * size)
    (item,) = found("a")
    assert isinstance(item, LocalFile)
    assert item.size == size


def test_a_walk_can_be_used_before_it_ends(here: Path) -> None:
    make("d/a.mp4", "d/b/c.mp4")
    items = walk(["d"], Filters())
    assert next(items).path == "d/a.mp4"
    make("d/b/late.mp4")
    assert [item.path for item in items if item] == ["d/b/c.mp4", "d/b/late.mp4"]


@pytest.mark.thorough
def test_directories_nest_as_deep_as_the_disk_allows(here: Path) -> None:
    depth = 1100
    made = ["d"]
    os.mkdir("d")
    while len(made) < depth:
        made.append(made[-1] + "/d")
        os.mkdir(made[-1])
    Path(made[-1], "x").touch()
    try:
        assert [item.path for item in found("d")] == [made[-1] + "/x"]
    finally:
        Path(made[-1], "x").unlink()
        for path in reversed(made):
            os.rmdir(path)


# --- the relative path -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "relative"),
    [
        ("videos", "videos/a/x.mp4 videos/y.mp4"),
        ("videos/", "videos/a/x.mp4 videos/y.mp4"),
        ("./videos//", "videos/a/x.mp4 videos/y.mp4"),
        ("videos/a", "a/x.mp4"),
        ("videos/a/..", "videos/a/x.mp4 videos/y.mp4"),
        (".", "here/videos/a/x.mp4 here/videos/y.mp4"),
        ("./", "here/videos/a/x.mp4 here/videos/y.mp4"),
        ("../here", "here/videos/a/x.mp4 here/videos/y.mp4"),
        ("videos/a/x.mp4", "x.mp4"),
        ("./videos/y.mp4", "y.mp4"),
    ],
)
def test_the_relative_path_starts_below_the_parent_of_the_argument(here: Path, argument: str, relative: str) -> None:
    make("videos/a/x.mp4", "videos/y.mp4")
    assert relatives(found(argument)) == relative


def test_an_absolute_argument_gives_the_same_relative_path(here: Path) -> None:
    make("videos/a/x.mp4")
    items = found(str(here / "videos"))
    assert relatives(items) == "videos/a/x.mp4"
    assert items[0].path == str(here / "videos/a/x.mp4")


def test_the_path_is_as_selected(here: Path) -> None:
    make("videos/x.mp4")
    assert [found(word)[0].path for word in ("videos", "videos/", "./videos", ".")] == [
        "videos/x.mp4",
        "videos/x.mp4",
        "./videos/x.mp4",
        "./videos/x.mp4",
    ]


# --- filters ---------------------------------------------------------------------------------------------------------


def test_filters_see_the_path_below_the_argument(here: Path) -> None:
    make("v/raw/a.mp4", "v/cut/a.mp4", "v/a.mp4", "v/a.avi")
    assert line(found("v", exclude="/raw/")) == "v/a.avi v/a.mp4 v/cut/a.mp4"
    assert line(found("v", exclude="v/")) == "v/a.avi v/a.mp4 v/cut/a.mp4 v/raw/a.mp4"
    assert line(found("v", include="*.mp4", exclude="raw")) == "v/a.mp4 v/cut/a.mp4"
    assert line(found("v", include="/a.mp4")) == "v/a.mp4"


def test_filters_hold_for_named_files_too(here: Path) -> None:
    make("d/a.mp4", "d/b.tmp")
    assert line(found("d/a.mp4", "d/b.tmp", exclude="*.tmp")) == "d/a.mp4"


def test_filtered_files_are_not_reported_as_skipped(here: Path) -> None:
    make("d/a.mp4")
    os.symlink("a.mp4", "d/link.tmp")
    os.mkfifo("d/pipe.tmp")
    assert line(found("d", exclude="*.tmp")) == "d/a.mp4"
    assert line(found("d", exclude="*.tmp", follow=True)) == "d/a.mp4"


def test_an_excluded_directory_is_not_entered(here: Path) -> None:
    """Nothing in it is looked at, so what can't be read there is no failure."""
    make("d/a.mp4")
    Path("d/raw").mkdir()
    os.symlink("gone", "d/raw/broken")
    assert line(found("d", exclude="raw/", follow=True)) == "d/a.mp4"


# --- links -----------------------------------------------------------------------------------------------------------


def test_symlinks_are_reported_as_skipped(here: Path) -> None:
    make("d/a.mp4", "elsewhere/b.mp4")
    os.symlink("a.mp4", "d/file")
    os.symlink("../elsewhere", "d/dir")
    os.symlink("gone", "d/broken")
    assert line(found("d")) == "d/a.mp4 d/broken!symlink d/dir!symlink d/file!symlink"


def test_named_symlink_is_followed(here: Path) -> None:
    make("elsewhere/b.mp4")
    os.symlink("elsewhere", "dir")
    os.symlink("elsewhere/b.mp4", "file.mp4")
    assert relatives(found("dir")) == "dir/b.mp4"
    assert relatives(found("file.mp4")) == "file.mp4"


def test_links_are_followed_on_request(here: Path) -> None:
    make("d/a.mp4", "elsewhere/b.mp4")
    os.symlink("../elsewhere", "d/dir")
    os.symlink("gone", "d/broken")
    items = found("d", follow=True)
    assert line(items) == "d/a.mp4 d/broken!vanished d/dir/b.mp4"
    assert relatives(items) == "d/a.mp4 d/dir/b.mp4"


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="a file system below another one")
def test_directory_of_another_file_system_with_the_same_inode_is_no_loop() -> None:
    """The roots of most file systems in memory have the inode 1."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        file = Path(directory, "a.mp4")
        file.touch()
        below = file.relative_to("/dev").as_posix()
        others = " ".join(f"/shm/{name}" for name in os.listdir("/dev/shm") if name != file.parent.name)
        assert line(found("/dev", include=f"/{below}", exclude=others)) == str(file)


def test_loops_are_broken(here: Path) -> None:
    make("d/a.mp4", "d/sub/b.mp4")
    os.symlink("..", "d/sub/up")
    os.symlink("../sub", "d/sub/self")
    os.symlink("../..", "d/sub/above")
    items = found("d", follow=True)
    assert relatives(items) == "d/a.mp4 d/sub/b.mp4"
    assert {mark(item) for item in items} <= {"", "!duplicate"}


def test_a_link_to_itself_is_unreadable_not_endless(here: Path) -> None:
    make("d/b.mp4")
    os.symlink("a", "d/a")
    assert line(found("d", follow=True)) == "d/a!unreadable d/b.mp4"
    assert line(found("d/a")) == "d/a!unreadable"


# --- duplicates ------------------------------------------------------------------------------------------------------


def test_a_file_reached_twice_is_selected_once(here: Path) -> None:
    make("d/a.mp4", "d/sub/b.mp4")
    assert line(found("d", "d/a.mp4", "./d/sub")) == ("d/a.mp4 d/sub/b.mp4 d/a.mp4!duplicate ./d/sub/b.mp4!duplicate")
    assert line(found("d/a.mp4", str(here / "d/a.mp4"))) == f"d/a.mp4 {here / 'd/a.mp4'}!duplicate"


def test_a_file_reached_by_a_link_is_selected_once(here: Path) -> None:
    make("d/z.mp4")
    os.symlink("z.mp4", "d/a.mp4")
    assert line(found("d", follow=True)) == "d/a.mp4 d/z.mp4!duplicate"


def test_hard_links_are_files_of_their_own(here: Path) -> None:
    make("d/a.mp4")
    os.link("d/a.mp4", "d/b.mp4")
    assert line(found("d")) == "d/a.mp4 d/b.mp4"
    assert line(found("d", "d/b.mp4")) == "d/a.mp4 d/b.mp4 d/b.mp4!duplicate"
    assert line(found("d/a.mp4", "d/b.mp4", "d/../d/a.mp4")) == "d/a.mp4 d/b.mp4 d/../d/a.mp4!duplicate"


# --- what can't be sent ----------------------------------------------------------------------------------------------


def test_a_pipe_is_skipped_where_it_was_found_and_fails_where_it_was_named(here: Path) -> None:
    make("d/a.mp4")
    os.mkfifo("d/pipe")
    assert line(found("d")) == "d/a.mp4 d/pipe!special"
    (item,) = found("d/pipe")
    assert item == FileFailed(0, "d/pipe", FailureCode.UNREADABLE, "not a regular file", retryable=False)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="files of /proc are Linux's")
def test_file_with_content_beyond_its_size_is_no_regular_file(here: Path) -> None:
    """It would be stored empty. One that is really empty is sent."""
    make("d/a.mp4")
    Path("d/empty").touch()
    (item,) = found("/proc/self/status")
    assert isinstance(item, FileFailed)
    assert item.message == "has content although its size is 0: copy it to a regular file first"
    assert line(found("d")) == "d/a.mp4 d/empty"
    os.symlink("/proc/self/status", "d/status")
    assert line(found("d", follow=True)) == "d/a.mp4 d/empty d/status!special"


def test_walk_continues_after_an_unreadable_directory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the refusal is the system's answer put in its place."""
    make("d/a.mp4", "d/locked/b.mp4", "d/z.mp4")
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert line(found("d")) == "d/a.mp4 d/locked!unreadable d/z.mp4"


def test_walk_continues_after_a_vanished_file(here: Path) -> None:
    make("d/a.mp4", "d/b/c.mp4", "d/e.mp4", "d/z.mp4")
    items = walk(["d"], Filters())
    first = next(items)
    shutil.rmtree("d/b")
    Path("d/e.mp4").unlink()
    assert line([first, *items]) == "d/a.mp4 d/b!vanished d/e.mp4!vanished d/z.mp4"


def test_vanished_argument_is_reported(here: Path) -> None:
    make("a.mp4")
    assert line(found("gone", "a.mp4", "a.mp4/below")) == "gone!vanished a.mp4 a.mp4/below!vanished"


def test_unusable_file_has_the_system_message(here: Path) -> None:
    (item,) = found("gone")
    assert isinstance(item, FileFailed)
    assert item.message == "No such file or directory"


def test_missing_paths_are_known_before_anything_is_done(here: Path) -> None:
    make("a.mp4", "d/b.mp4")
    assert missing(["gone", "a.mp4", "d", "d/gone"]) == ["gone", "d/gone"]
    assert missing([]) == []


def test_a_broken_link_is_not_missing(here: Path) -> None:
    """It is there, and can't be read: that is a failure of the file, not of the command line."""
    os.symlink("gone", "broken")
    assert missing(["broken"]) == []
    (item,) = found("broken")
    assert line([item]) == "broken!vanished"
    assert isinstance(item, FileFailed)
    assert item.message == "a symbolic link to a file that does not exist"


# --- names -----------------------------------------------------------------------------------------------------------

NAMES = ["a b.mp4", "景区.mp4", "-rf", "a\nb.mp4", 'q"uote', "*.mp4", "é.mp4", "e\u0301.mp4", "x\\y", "~", "#"]


def test_any_name_is_found_as_it_is(here: Path) -> None:
    make(*(f"d/{name}" for name in NAMES))
    items = found("d")
    assert sorted(item.path for item in items) == sorted(f"d/{name}" for name in NAMES)
    assert [Path(item.path).read_text() for item in items] == [item.path for item in items]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_names_that_are_no_utf8_are_found_and_can_be_opened(here: Path) -> None:
    Path("d").mkdir()
    for name in (b"d/caf\xe9.mp4", b"d/\xff\xfe"):
        Path(os.fsdecode(name)).write_bytes(name)
    items = found("d", include="*")
    assert [os.fsencode(item.path) for item in items] == [b"d/caf\xe9.mp4", b"d/\xff\xfe"]
    assert all(Path(item.path).read_bytes() == os.fsencode(item.path) for item in items)
    assert line(found("d", exclude="*.mp4")) == os.fsdecode(b"d/\xff\xfe")


def test_named_file_is_opened_where_a_link_above_it_leads_now(tmp_path: Path) -> None:
    """As a watch does, which forgets directories after each look."""
    for name in ("v1", "v2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    current = tmp_path / "current"
    read = []
    for name in ("v1", "v2"):
        current.unlink(missing_ok=True)
        current.symlink_to(name)
        (file,) = (step for step in walk([str(current / "a")], Filters()) if isinstance(step, LocalFile))
        with open_unchanged(file) as source:
            read.append(source.read())
        directories.forget()
    assert read == [b"v1", b"v2"]
