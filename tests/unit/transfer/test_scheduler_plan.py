"""Sessions cut from a walk that may still run, through `Scheduler`."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fakes import Supplied
from unit.transfer.transfer_fakes import BUNDLED, FakeApi, Run

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core import plan
from uploader_cli.core.plan import ASSUMED
from uploader_cli.transfer import scheduler

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_cli.core.plan import LocalFile


class Walk:
    """A walk in words: files, and `-` where no file comes within the wait (0.1 s); `stop` stops the run."""

    def __init__(self, run: Run, words: str) -> None:
        self.ended, self.taken = False, 0
        self._run, self._words = run, deque(words.split())
        first = self._words[0] if self._words else "-"
        self._files = {word: run.file(word) for word in words.split() if word not in ("-", "stop")}
        self.ahead = [self._files[first]] if first in self._files else []

    def take(self, wait: float = 0.0) -> LocalFile | None:
        if not self._words:
            self.ended = True
            return None
        if self._words[0] not in self._files and not wait:
            return None
        word = self._words.popleft()
        self.taken += 1
        if word == "stop":
            self._run.stop.set()
        return self._files.get(word)

    def close(self) -> list[LocalFile]:
        return [self._files[word] for word in self._words if word in self._files]


def sessions(run: Run) -> str:
    """Return the sessions with their files, as `[a.mp4 b.mp4] [c.avi]`, in the order of their creation."""
    names: dict[str, list[str]] = {event.session: [] for event in run.all(ev.SessionCreated)}
    for event in run.all(ev.FileStarted):
        names[event.session].append(event.wire_name)
    return " ".join(f"[{' '.join(files)}]" for files in names.values())


@pytest.mark.parametrize(
    ("walk", "expected"),
    [
        ("a.mp4 b.mp4 c.mp4 d.mp4", "[a.mp4 b.mp4 c.mp4] [d.mp4]"),
        ("a.mp4 - - b.mp4 - c.mp4", "[a.mp4 b.mp4 c.mp4]"),
        ("a.mp4 - - - - b.mp4 - - - - c.mp4", "[a.mp4 b.mp4 c.mp4]"),
        ("a.mp4 - - - - - - b.mp4 c.mp4", "[a.mp4] [b.mp4 c.mp4]"),
        ("a.avi b.mp4 c.mp4 d.mp4 - e.mp4", "[b.mp4 c.mp4 d.mp4] [a.avi] [e.mp4]"),
    ],
)
def test_session_begins_when_it_is_full_or_the_walk_has_ended_or_is_slow(
    tmp_path: Path, walk: str, expected: str
) -> None:
    """0.5 s without a new file begin a session that is not full; a shorter wait costs no call."""
    run = Run(tmp_path, FakeApi(limits=ASSUMED))
    assert run.go(Walk(run, walk)) is None
    assert sessions(run) == expected


def test_walk_that_starts_slowly_is_waited_for(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(limits=ASSUMED))
    assert run.go(Walk(run, "- - - - - - - - a.mp4")) is None
    assert sessions(run) == "[a.mp4]"


def test_walk_without_files_makes_no_session(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(limits=ASSUMED))
    assert run.go(Walk(run, "- - - - - - - -")) is None
    assert sessions(run) == ""


def test_first_file_of_a_slow_walk_ends_with_the_run_where_the_first_contact_fails(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(limits=ASSUMED, healths=deque([errors.NotAnUploadServer("a web page")])))
    walk = Walk(run, "a.mp4 b.mp4")
    file, walk.ahead, take = walk.ahead[0], [], walk.take
    walk.take = lambda wait=0.1: take(wait)  # type: ignore[method-assign]  # it comes before the first request
    assert str(run.go(walk)) == "a web page"
    assert [event.file for event in run.all(ev.FileSkipped)] == [file.file, file.file + 1]


def test_stop_during_a_slow_walk_cancels_the_files(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(limits=ASSUMED))
    assert run.go(Walk(run, "a.mp4 - - stop - - b.mp4")) is None
    assert run.all(ev.FilesCancelled)[0].files == (0, 1)
    assert run.completed == []


def test_error_of_the_walk_ends_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(limits=ASSUMED))
    walk = Walk(run, "a.mp4 - -")
    take = walk.take

    def broken(wait: float = 0.0) -> LocalFile | None:
        if wait and walk.taken:
            walk.ended = True
            raise errors.UsageError("the list is broken")
        return take(wait)

    walk.take = broken  # type: ignore[method-assign]
    error = run.go(walk)
    assert str(error) == "the list is broken"
    assert run.untried == [0]


def test_session_takes_no_more_than_the_limit_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the server would take any number."""
    monkeypatch.setattr(plan, "SESSION_FILES", 4)
    run = Run(tmp_path, FakeApi(limits=replace(BUNDLED, max_files=1 << 40)))
    for number in range(5):
        run.file(f"{number}.mp4")
    assert run.go() is None
    assert [event.files for event in run.all(ev.SessionCreated)] == [4, 1]


class Counting(Supplied):
    """A walk that counts the files that were taken from it and are not over."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.files)
        self.ahead = run.files[:1]
        self.most = self._taken = 0
        self._run = run

    def take(self, wait: float = 0.0) -> LocalFile | None:
        file = super().take(wait)
        if file is not None:
            self._taken += 1
            self.most = max(self.most, self._taken - len(self._run.all(ev.FileCompleted)))
        return file


@pytest.mark.parametrize("names", [[f"{number}.mp4" for number in range(40)], ["clip.mp4"] * 40], ids=["many", "same"])
def test_lookahead_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    """Also with files of one name, each of which needs a session of its own on the reference backend."""
    monkeypatch.setattr(scheduler, "AHEAD", 8)
    run = Run(tmp_path, FakeApi(limits=ASSUMED))
    for name in names:
        run.file(name)
    supply = Counting(run)
    assert run.go(supply) is None
    assert sorted(run.completed) == list(range(40))
    assert supply.most <= 8
