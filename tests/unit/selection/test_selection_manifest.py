"""A manifest and the disk: what is checked before anything is sent, and what is selected."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from uploader_cli.core.events import FailureCode, FileFailed, FileSkipped, SkipReason
from uploader_cli.core.plan import LocalFile
from uploader_cli.errors import UsageError
from uploader_cli.selection.filters import Filters
from uploader_cli.selection.manifest import BAD_LINES_NAMED, Manifest, format_of, look
from uploader_cli.selection.manifest_lines import BadLine, Entry, Format
from uploader_cli.transfer.journal.file_keys import path_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_cli.selection.walk import Selected


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a.mp4 (1 byte), d/b.mp4 (2 bytes)."""
    place = tmp_path / "here"
    (place / "d").mkdir(parents=True)
    (place / "a.mp4").write_bytes(b"a")
    (place / "d" / "b.mp4").write_bytes(b"bb")
    monkeypatch.chdir(place)
    return place


def manifest(
    content: str, kind: Format = Format.PLAIN, *, strict: bool = True, category: str | None = "personal"
) -> Manifest:
    file = Path("list")
    file.write_text(content, encoding="utf-8")
    return Manifest(file, "the list", kind, category, strict)


def everything(_name: str) -> bool:
    return True


def refused(listed: Manifest) -> UsageError:
    with pytest.raises(UsageError) as raised:
        listed.check(everything)
    return raised.value


def selected(listed: Manifest) -> list[Selected]:
    found = [item for item in listed.files(Filters()) if item is not None]
    assert [item.file for item in found] == list(range(len(found)))
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    [("x.csv", "csv"), ("x.JSONL", "jsonl"), ("x.ndjson", "jsonl"), ("x.txt", "plain"), ("-", "plain")],
)
def test_the_format_by_the_suffix(name: str, kind: str) -> None:
    assert format_of(name) == kind


# --- the check --------------------------------------------------------------------------------------------------------


def test_a_good_list_passes() -> None:
    manifest("a.mp4\nd/b.mp4\n").check(everything)


def test_each_bad_line_is_named_with_its_number() -> None:
    os.mkfifo("pipe")
    os.symlink("nowhere", "dangling")
    content = ["a.mp4", "gone.mp4", "d", "pipe", "a.mp4/x", "dangling", "x" * 300]
    error = refused(manifest("\n".join(content)))
    assert str(error) == "the list: 6 of 7 lines are invalid; nothing was sent"
    assert error.details == (
        "line 2: gone.mp4: no such file",
        "line 3: d: is a directory: give it as PATH, or list its files",
        "line 4: pipe: not a regular file",
        "line 5: a.mp4/x: no such file",
        "line 6: dangling: no such file",
        f"line 7: {'x' * 199}…: can't be read (File name too long)",
    )
    assert "--lenient" in error.hint


def test_of_many_bad_lines_the_first_are_named_and_the_others_counted() -> None:
    error = refused(manifest("gone\n" * 1000))
    assert "1,000 of 1,000 lines" in str(error)
    assert len(error.details) == BAD_LINES_NAMED + 1
    assert error.details[-1] == "… and 980 more"


def test_what_is_not_wanted_may_be_missing() -> None:
    manifest("a.mp4\ngone.mp4\n").check(lambda name: name == "a.mp4")


def test_a_lenient_list_is_refused_only_for_its_header() -> None:
    manifest("gone\n" * 3, strict=False).check(everything)
    with pytest.raises(UsageError, match="the column path is missing"):
        manifest("gone\n" * 3, Format.CSV, strict=False).check(everything)


@pytest.mark.parametrize(
    ("content", "kind", "hint"),
    [
        ('{"path": "a.mp4"}\n', Format.PLAIN, "--from-format jsonl"),
        ("name,path\nx,a.mp4\n", Format.PLAIN, "--from-format csv"),
        ("a.mp4\nd/b.mp4\n", Format.NUL, "omit -0"),
        ("gone\n", Format.PLAIN, "--lenient"),
    ],
)
def test_another_format_is_guessed(content: str, kind: Format, hint: str) -> None:
    assert hint in refused(manifest(content, kind)).hint


def test_a_list_that_can_not_be_read(here: Path) -> None:
    with pytest.raises(UsageError, match="--from-file: the list can't be read: No such file"):
        Manifest(here / "none", "the list", Format.PLAIN, None).check(everything)
    with pytest.raises(UsageError, match="the list, line 1: the column path is missing"):
        manifest("x\n", Format.CSV).check(everything)


def test_a_tus_endpoint_knows_no_categories() -> None:
    error = refused(manifest("path,category\na.mp4,personal\n", Format.CSV, category=None))
    assert error.details == ("line 2: a.mp4: a tus server has no categories",)


# --- what is selected -------------------------------------------------------------------------------------------------


def test_files_in_the_order_of_the_list() -> None:
    first, second = selected(manifest("d/b.mp4\n./a.mp4\n"))
    assert isinstance(first, LocalFile)
    assert isinstance(second, LocalFile)
    assert (first.path, first.relative_path, first.size, first.named) == ("d/b.mp4", "d/b.mp4", 2, True)
    assert second.mtime_ns == os.stat("a.mp4").st_mtime_ns
    assert (second.path, second.relative_path) == ("./a.mp4", "a.mp4")


def test_a_line_that_can_not_be_used_is_a_failed_file() -> None:
    """Reported with its number; one without a path gets a placeholder."""
    content = 'path,category\na.mp4,\ngone.mp4,\na.mp4,work\n"'
    ok, gone, work, end = selected(manifest(content, Format.CSV, strict=False))
    assert isinstance(ok, LocalFile)
    assert isinstance(gone, FileFailed)
    assert gone.message == "no such file (line 3 of the list)"
    assert (gone.file, gone.path, gone.code) == (1, "gone.mp4", FailureCode.VANISHED)
    assert isinstance(work, FileFailed)
    assert (work.path, work.code) == ("line 4 of the list", FailureCode.BAD_LINE)
    assert isinstance(end, FileFailed)
    assert end.path == "line 5 of the list"


def test_a_file_that_is_listed_twice_is_selected_once() -> None:
    found = selected(manifest(f"a.mp4\n./a.mp4\n{os.path.abspath('a.mp4')}\n"))
    assert [type(item) for item in found] == [LocalFile, FileSkipped, FileSkipped]
    assert found[1] == FileSkipped(1, "./a.mp4", SkipReason.DUPLICATE)


def test_the_same_file_for_several_places_is_as_many_files() -> None:
    """By category and by name; the journal distinguishes them. The run's own category is none."""
    content = "path,name,category\na.mp4,,\na.mp4,,personal\na.mp4,,scenic\na.mp4,other.mp4,\na.mp4,other.mp4,scenic\n"
    found = selected(manifest(content, Format.CSV))
    files = [item for item in found if isinstance(item, LocalFile)]
    assert found[1] == FileSkipped(1, "a.mp4", SkipReason.DUPLICATE)
    assert [(file.relative_path, file.category) for file in files] == [
        ("a.mp4", None),
        ("a.mp4", "scenic"),
        ("other.mp4", None),
        ("other.mp4", "scenic"),
    ]
    assert len({path_key(file) for file in files}) == len(files) == 4
    assert path_key(files[0]) == os.fsencode(os.path.abspath("a.mp4"))


def test_a_name_that_a_directory_would_give_is_no_other_place(here: Path) -> None:
    """So a list of failures resumes what the walk had begun."""
    content = f"path,name\n{here}/d/b.mp4,d/b.mp4\n"
    (file,) = selected(manifest(content, Format.CSV))
    assert isinstance(file, LocalFile)
    assert (file.relative_path, file.destination) == ("d/b.mp4", "")


@pytest.mark.thorough
def test_a_long_list_needs_no_more_memory_than_a_short_one(here: Path) -> None:
    """Both passes; what grows is the set that finds what is listed twice."""

    def peak(count: int) -> int:
        names = ("gone/" * 100 + str(number) for number in range(count))
        listed = manifest("\n".join(names), strict=False)
        tracemalloc.start()
        try:
            listed.check(everything)
            assert consume(listed.files(Filters())) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(4_000) < peak(1_000) + 200_000


def consume(items: Iterator[object]) -> int:
    return sum(1 for _ in items)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="files of /proc are Linux's")
def test_listed_file_with_content_beyond_its_size_is_refused() -> None:
    bad = look(Entry(3, "/proc/self/status", "status"))
    assert isinstance(bad, BadLine)
    assert (bad.line, bad.code) == (3, FailureCode.UNREADABLE)
    assert bad.message.startswith("has content although its size is 0")
