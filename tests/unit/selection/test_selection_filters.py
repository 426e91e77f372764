"""`--include` and `--exclude` as in a .gitignore, on the path below the argument."""

from __future__ import annotations

import stat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli.errors import UsageError
from uploader_cli.selection.filters import Filters
from uploader_cli.sources.files import RemoteStatus


@pytest.mark.parametrize(
    ("include", "exclude", "path", "wanted"),
    [
        ("", "", "a.mp4", True),
        ("", "", ".hidden", True),
        # a pattern without a slash holds at any depth
        ("*.mp4", "", "a.mp4", True),
        ("*.mp4", "", "x/y/a.mp4", True),
        ("*.mp4", "", "a.avi", False),
        ("", "*.tmp", "x/a.tmp", False),
        ("", "*.tmp", "a.mp4", True),
        ("", ".*", ".hidden", False),
        # case counts
        ("*.mp4", "", "a.MP4", False),
        # with a slash it starts at the argument
        ("/a.mp4", "", "a.mp4", True),
        ("/a.mp4", "", "x/a.mp4", False),
        ("x/*.mp4", "", "x/a.mp4", True),
        ("x/*.mp4", "", "x/y/a.mp4", False),
        ("x/**/a.mp4", "", "x/y/z/a.mp4", True),
        # directories
        ("raw/", "", "raw/a.mp4", True),
        ("raw/", "", "x/raw/y/a.mp4", True),
        ("", "raw/", "raw/a.mp4", False),
        ("", "raw/", "raw", True),  # a file of that name is none
        # several are one list, the last match decides
        ("*.mp4 *.avi", "", "a.avi", True),
        ("* !*.tmp", "", "a.tmp", False),
        ("", "*.mp4 !keep.mp4", "keep.mp4", True),
        ("", "*.mp4 !keep.mp4", "a.mp4", False),
        # an exclude outranks an include
        ("*.mp4", "secret*", "secret.mp4", False),
        ("secret.mp4", "*.mp4", "secret.mp4", False),
        ("*.mp4", "secret*", "a.mp4", True),
        # no pattern, but a comment
        ("", "#a.mp4", "#a.mp4", True),
    ],
)
def test_which_files_are_wanted(include: str, exclude: str, path: str, wanted: bool) -> None:
    assert Filters(include.split(), exclude.split()).wants(path) is wanted


@pytest.mark.parametrize(
    ("include", "exclude", "path", "entered"),
    [
        ("", "", "x", True),
        ("*.mp4", "", "x", True),  # what an include wants may be anywhere below
        ("", "raw/", "raw", False),
        ("", "raw/", "x/raw", False),
        ("", "/raw/", "x/raw", True),
        ("", "raw", "raw", False),
        ("", "*.mp4", "x", True),
    ],
)
def test_which_directories_are_entered(include: str, exclude: str, path: str, entered: bool) -> None:
    assert Filters(include.split(), exclude.split()).enters(path) is entered


@pytest.mark.parametrize(
    ("size", "mtime", "wanted"),
    [(10, 5.0, True), (20, 5.0, True), (9, 5.0, False), (21, 5.0, False), (10, 4.9, False)],
)
def test_limits_of_size_and_time_are_inclusive(size: int, mtime: float, wanted: bool) -> None:
    filters = Filters(min_size=10, max_size=20, newer_than=5.0)
    assert filters.fits(RemoteStatus(stat.S_IFREG, size, mtime, 0)) is wanted


@pytest.mark.parametrize("pattern", ["!", "[z-a]"])
@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_pattern_that_gitignore_would_not_take_is_a_usage_error(option: str, pattern: str) -> None:
    rules: dict[str, Any] = {option: ["*.tmp", pattern]}
    with pytest.raises(UsageError, match=f"--{option}: not a gitignore pattern") as caught:
        Filters(**rules)
    assert "'*.tmp'" in caught.value.hint


@pytest.mark.filterwarnings("ignore::FutureWarning")
@given(st.text(alphabet="ab*?![]^-/\\ #.é\n", max_size=8) | st.text(max_size=8))
def test_any_pattern_is_a_filter_or_a_usage_error(pattern: str) -> None:
    try:
        filters = Filters(exclude=[pattern])
    except UsageError:
        return
    assert filters.wants("x/a.mp4") in (True, False)
