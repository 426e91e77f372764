"""Sessions cut from a walk that may still go on."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fakes import Supplied, local_file, local_files
from transfer_fakes import BUNDLED, FakeStop

from uploader_cli.core.plan import ASSUMED, SESSION_FILES, PlannedSession
from uploader_cli.errors import Interrupted
from uploader_cli.transfer.session_queue import SessionQueue

if TYPE_CHECKING:
    from uploader_cli.core.plan import Limits, LocalFile


class Walk:
    """A walk in words: files, and `-` where the taker has to wait in vain."""

    def __init__(self, words: str) -> None:
        self.ahead: list[LocalFile] = []
        self.ended = False
        self._words = deque(words.split())
        self._number = 0

    def take(self, wait: float = 0.0) -> LocalFile | None:
        if self._words and self._words[0] == "-":
            if wait:
                self._words.popleft()
            return None
        if not self._words:
            self.ended = True
            return None
        self._number += 1
        return local_file(self._words.popleft(), self._number)

    def close(self) -> list[LocalFile]:
        return []


def cut(walk: str, limits: Limits = ASSUMED) -> str:
    """The sessions of a walk, as `[a.mp4 b.mp4] [c.avi]`."""
    session_queue = SessionQueue(Walk(walk), lambda _: True, limits, FakeStop())
    out = []
    while (session := session_queue.next()) is not None:
        out.append("[" + " ".join(file.path for file in session.files) + "]")
    return " ".join(out)


@pytest.mark.parametrize(
    ("walk", "sessions"),
    [
        ("a.mp4 b.mp4 c.mp4 d.mp4", "[a.mp4 b.mp4 c.mp4] [d.mp4]"),
        ("a.mp4 - - b.mp4 - c.mp4", "[a.mp4 b.mp4 c.mp4]"),
        ("a.mp4 - - - - - - b.mp4 c.mp4", "[a.mp4] [b.mp4 c.mp4]"),
        ("- - - - - - - - a.mp4", "[a.mp4]"),
        ("a.avi b.mp4 c.mp4 d.mp4 - e.mp4", "[b.mp4 c.mp4 d.mp4] [a.avi] [e.mp4]"),
        ("", ""),
    ],
)
def test_a_session_is_cut_when_it_is_full_or_the_walk_has_ended_or_is_slow(walk: str, sessions: str) -> None:
    """A short wait costs no session: calls are money. A long one does not keep the line idle."""
    assert cut(walk) == sessions


def test_no_session_waits_for_all_the_files_that_a_server_would_take() -> None:
    many = [local_file(f"{number}.mp4", number) for number in range(SESSION_FILES + 1)]
    limits = replace(BUNDLED, max_files=1 << 40)
    session_queue = SessionQueue(Supplied(many), lambda _: True, limits, FakeStop())
    sizes = []
    while (session := session_queue.next()) is not None:
        sizes.append(len(session.files))
    assert sizes == [SESSION_FILES, 1]


def test_files_of_one_name_are_not_collected_without_end() -> None:
    """Each needs a session of its own on the reference backend; a million of them would never be cut."""
    supply = Supplied([local_file(f"d{number}/clip.mp4", number) for number in range(SESSION_FILES + 5)])
    session_queue = SessionQueue(supply, lambda _: True, ASSUMED, FakeStop())
    session = session_queue.next()
    assert session is not None
    assert [file.file for file in session.files] == [0]
    assert not supply.ended


def test_the_sessions_to_come_are_known_as_far_as_the_walk_has_come() -> None:
    words = " ".join(f"{number}.mp4" for number in range(10))
    session_queue = SessionQueue(Supplied(local_files(words)), lambda _: True, ASSUMED, FakeStop())
    first = session_queue.next()
    assert first is not None
    assert len(session_queue) == 3
    session_queue.put_back(PlannedSession(first.files[1:]))
    again = session_queue.next()
    assert again is not None
    assert [file.path for file in again.files] == ["1.mp4", "2.mp4"]


def test_what_is_turned_down_is_not_planned() -> None:
    supply = Supplied(local_files("a.mp4 b.mp4 c.mp4"))
    session_queue = SessionQueue(supply, lambda file: file.path != "b.mp4", ASSUMED, FakeStop())
    session = session_queue.next()
    assert session is not None
    assert [file.path for file in session.files] == ["a.mp4", "c.mp4"]
    assert session_queue.next() is None


def test_waiting_for_a_walk_ends_with_an_interrupt() -> None:
    stop = FakeStop()
    stop.set()
    session_queue = SessionQueue(Walk("- - -"), lambda _: True, ASSUMED, stop)
    with pytest.raises(Interrupted):
        session_queue.next()
