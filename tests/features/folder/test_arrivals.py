"""Files that appear in directories: when they are complete, when they are selected again, and what is kept of them."""

from __future__ import annotations

import os
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from fakes import Clock

from uploader_cli.core import events as ev
from uploader_cli.features.folder.arrivals import FIRST_RETRY, LAST_RETRY, UNFINISHED, Arrivals
from uploader_cli.selection.filters import Filters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.selection.walk import Step

SETTLE = 10.0


class Folder:
    """A watched directory, and what was selected in it."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path, self.clock = path, clock
        self.told: list[ev.Event] = []
        self.numbers: dict[str, int] = {}
        filters = Filters(exclude=UNFINISHED)
        self.arrivals = Arrivals([str(path)], filters, settle=SETTLE, clock=clock, sleep=clock.pass_)
        self.arrivals.emit = self.told.append
        self._steps: Iterator[Step] = iter(self.arrivals)

    def put(self, name: str | bytes, content: bytes = b"x") -> None:
        path = os.path.join(os.fsencode(self.path), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        os.utime(path, (self.clock(), self.clock()))

    def within(self, seconds: float) -> list[str]:
        """The names of the files that are selected in the next seconds."""
        end = self.clock() + seconds
        found = []
        while self.clock() < end:
            step = next(self._steps)
            found += [step] if step is not None else []
        numbers = {os.path.relpath(item.path, self.path): item.file for item in found}
        self.numbers.update(numbers)
        return list(numbers)

    def end(self, name: str, *, failed: bool = False, gone: bool = False) -> None:
        number = self.numbers[name]
        more: dict[str, Any] = {"verified": True, "attempts": 1, "seconds": 0.0, "gone": gone}
        if failed:
            self.arrivals.listen([ev.FileFailed(number, name, ev.FailureCode.NETWORK, "", retryable=True)])
        else:
            self.arrivals.listen([ev.FileCompleted(number, name, 1, None, None, **more)])

    def warnings(self) -> list[str]:
        return [event.text for event in self.told if isinstance(event, ev.RunWarning)]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "in").mkdir()
    return Folder(tmp_path / "in", Clock())


def test_file_is_selected_once_it_has_not_changed_for_a_time(folder: Folder) -> None:
    folder.put("old.bin")
    assert folder.within(SETTLE - 1) == []
    assert folder.within(2) == ["old.bin"]
    for size in range(1, 8):  # written slowly
        folder.put("slow.bin", b"x" * size)
        assert folder.within(SETTLE / 2) == []
    assert folder.within(2 * SETTLE) == ["slow.bin"]
    assert folder.within(1000) == []


def test_new_directories_are_found_and_unfinished_files_left_out(folder: Folder) -> None:
    for name in ("a/b/c.bin", b"a/\xff.bin", "x.part", "x.tmp", "X.CRDOWNLOAD", ".hidden", ".git/config", "a/.y"):
        folder.put(name)
    assert folder.within(2 * SETTLE) == ["a/b/c.bin", "a/\udcff.bin"]
    os.rename(folder.path / "x.part", folder.path / "x.mp4")
    assert folder.within(2 * SETTLE) == ["x.mp4"]


def test_changed_file_is_selected_again_after_its_upload(folder: Folder) -> None:
    folder.put("a.bin")
    assert folder.within(2 * SETTLE) == ["a.bin"]
    folder.put("a.bin", b"longer")
    assert folder.within(3 * SETTLE) == []  # it is still being sent
    folder.end("a.bin")
    assert folder.within(2 * SETTLE) == ["a.bin"]
    folder.end("a.bin")
    assert folder.within(1000) == []


def test_file_in_place_of_one_that_was_removed_is_selected(folder: Folder) -> None:
    """No walk has found the path empty, and size and time are the same."""
    folder.put("a.bin")
    assert folder.within(2 * SETTLE) == ["a.bin"]
    folder.end("a.bin", gone=True)
    assert folder.within(2 * SETTLE) == ["a.bin"]


@pytest.mark.thorough
def test_failed_file_is_selected_again_after_delays_that_grow_or_a_change(folder: Folder) -> None:
    folder.put("a.bin")
    assert folder.within(2 * SETTLE) == ["a.bin"]
    for delay in (FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY):
        folder.end("a.bin", failed=True)
        assert folder.within(delay - 1) == []
        assert folder.within(10) == ["a.bin"]
    for _ in range(6):
        folder.end("a.bin", failed=True)
        assert folder.within(LAST_RETRY + 10) == ["a.bin"]
    folder.end("a.bin", failed=True)
    folder.put("a.bin", b"changed")
    assert folder.within(2 * SETTLE) == ["a.bin"]


def test_file_that_an_earlier_run_has_stored_is_not_selected(folder: Folder) -> None:
    """Several files are asked for at once."""
    asked: list[list[str]] = []

    def uploaded(files: Sequence[LocalFile]) -> list[bool]:
        asked.append(sorted(os.path.basename(file.path) for file in files))
        return [file.path.endswith("old.bin") for file in files]

    folder.arrivals.uploaded = uploaded
    folder.put("old.bin")
    folder.put("new.bin")
    assert folder.within(2 * SETTLE) == ["new.bin"]
    assert [files for files in asked if files] == [["new.bin", "old.bin"]]


class Written:
    """Notifications that say which files are written."""

    def __init__(self, paths: Sequence[str], wake: Callable[[], None]) -> None:
        self.paths, self.wake, self.written, self.closed = paths, wake, set[str](), False

    def is_open(self, path: str) -> bool:
        return os.path.basename(path) in self.written

    def close(self) -> None:
        self.closed = True


def test_directory_that_disappears_is_a_warning_and_comes_back(folder: Folder) -> None:
    """It is watched anew, and no longer as before."""
    made: list[Written] = []

    def notify(paths: Sequence[str], wake: Callable[[], None]) -> Written:
        made.append(Written(paths, wake))
        return made[-1]

    folder.arrivals.notify = notify
    folder.put("a.bin")
    assert folder.within(2 * SETTLE) == ["a.bin"]
    folder.end("a.bin")
    os.rename(folder.path, folder.path.with_name("away"))
    assert folder.within(10 * SETTLE) == []
    (gone,) = folder.warnings()
    assert gone.startswith(f"{folder.path}: No such file or directory")
    folder.put("b.bin")
    made[0].wake()
    assert folder.within(2 * SETTLE) == ["b.bin"]
    assert folder.warnings()[1:] == [f"{folder.path} can be read again"]
    assert [one.closed for one in made] == [True, False]


def test_link_is_skipped_once(folder: Folder) -> None:
    os.symlink("nothing", folder.path / "link")
    assert folder.within(100) == ["link"]
    assert folder.within(100) == []


def test_file_that_is_still_open_is_not_selected_and_its_close_wakes_the_walk(folder: Folder) -> None:
    made: list[Written] = []

    def notify(paths: Sequence[str], wake: Callable[[], None]) -> Written:
        made.append(Written(paths, wake))
        made[0].written.add("a.bin")
        return made[0]

    folder.arrivals.notify = notify
    folder.put("a.bin")
    assert folder.within(50 * SETTLE) == []
    made[0].written.clear()
    made[0].wake()
    assert folder.within(1) == ["a.bin"]


def test_lack_of_notifications_is_a_warning_and_files_are_found(folder: Folder) -> None:
    def notify(_paths: Sequence[str], _wake: Callable[[], None]) -> Written:
        raise OSError(28, "inotify watch limit reached")

    folder.arrivals.notify = notify
    folder.put("a.bin")
    assert folder.within(2 * SETTLE) == ["a.bin"]
    assert folder.warnings() == [
        "no notifications of new files: inotify watch limit reached; directories are walked every few seconds"
    ]


@pytest.mark.thorough
def test_memory_does_not_grow_with_the_number_of_files(folder: Folder) -> None:
    """A hundred files at a time, which are deleted after their upload."""
    tracemalloc.start()
    try:
        used: list[int] = []
        for day in range(8):
            for number in range(100):
                folder.put(f"{day}/{number}.bin")
            names = folder.within(3 * SETTLE)
            assert len(names) == 100
            for name in names:
                folder.end(name)
                os.unlink(folder.path / name)
            names.clear()
            folder.numbers.clear()
            assert folder.within(600) == []
            folder.told.clear()
            used.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert used[-1] - used[2] < 20_000
