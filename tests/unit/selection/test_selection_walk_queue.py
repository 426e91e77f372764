"""The walk ahead of the transfer: its lookahead, its events, and its end."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest
from fakes import Clock, local_file

from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, FileFailed, FileSkipped, SkipReason
from uploader_cli.selection import selection as selection_module
from uploader_cli.selection.selection import MOST_AHEAD, STEPS_AHEAD, Selection, WalkQueue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.selection.walk import Step

GUARD = 30.0


def files(count: int, *, start: int = 0) -> list[LocalFile]:
    return [local_file(f"{number}.mp4", number) for number in range(start, start + count)]


def taken(walk_queue: WalkQueue, count: int) -> list[int]:
    """The numbers of the next files; waits for each."""
    out: list[int] = []
    while len(out) < count:
        file = walk_queue.take(GUARD)
        assert file is not None
        out.append(file.file)
    return out


# --- the beginning ----------------------------------------------------------------------------------------------------


def test_a_small_selection_is_known_as_a_whole() -> None:
    selection = Selection([*files(3), None, FileSkipped(3, "x", SkipReason.SYMLINK)])
    assert selection.complete
    assert [item.file for item in selection.ahead] == [0, 1, 2, 3]
    assert [file.file for file in selection.files] == [0, 1, 2]
    assert [item.file for item in selection] == [0, 1, 2, 3]


def test_of_a_large_selection_only_the_beginning_is_looked_at() -> None:
    """What was passed by counts too: a few files between a million others must not be waited for."""
    steps = itertools.count()

    def walk() -> Iterator[Step]:
        yield from files(2)
        for _ in steps:
            yield None

    selection = Selection(walk())
    assert not selection.complete
    assert len(selection.ahead) == 2
    assert next(steps) == STEPS_AHEAD - 2


def test_the_first_file_is_waited_for() -> None:
    """Before it nothing can be sent."""
    selection = Selection([*[None] * (STEPS_AHEAD * 2), *files(1), *[None] * STEPS_AHEAD])
    assert [file.file for file in selection.files] == [0]
    assert not selection.complete


@pytest.mark.parametrize("step", [None, "file"])
def test_slow_walk_is_waited_for_one_second(step: str | None) -> None:
    """Whether it finds files or passes by others."""
    clock = Clock()

    def walk() -> Iterator[Step]:
        for number in itertools.count():
            clock.pass_(0.3)
            yield local_file(f"{number}.mp4", number) if step or not number else None

    selection = Selection(walk(), clock)
    assert not selection.complete
    assert 1 <= len(selection.files) <= 4
    assert clock.now - Clock().now < 1.5
    following = next(itertools.islice(selection.steps(), len(selection.ahead), None))
    assert following is None or following.file == len(selection.ahead), "no step is lost"


def test_what_can_not_be_sent_is_not_collected_without_end() -> None:
    selection = Selection(FileSkipped(number, "x", SkipReason.SYMLINK) for number in itertools.count())
    assert len(selection.ahead) == MOST_AHEAD


# --- a selection that is known as a whole -----------------------------------------------------------------------------


def test_known_files_are_returned_in_order_without_a_thread() -> None:
    told: list[ev.Event] = []
    one, two = files(2)
    odd: list[Any] = [
        FileSkipped(2, "link", SkipReason.SYMLINK),
        FileFailed(3, "locked", FailureCode.UNREADABLE, "no", retryable=False),
    ]
    walk_queue = WalkQueue(Selection([one, *odd, two]), told.append)
    assert told == []
    before = set(threading.enumerate())
    walk_queue.start()
    assert set(threading.enumerate()) <= before
    assert [type(event) for event in told] == [
        *[ev.FileSelected] * 4,
        ev.SelectionEnded,
        ev.FileSkipped,
        ev.FileFailed,
    ]
    assert taken(walk_queue, 2) == [0, 1]
    assert not walk_queue.ended
    assert walk_queue.take() is None
    assert walk_queue.ended


# --- a walk that goes on ----------------------------------------------------------------------------------------------


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection_module, "STEPS_AHEAD", 2)


@pytest.mark.usefixtures("_short")
def test_walk_stays_within_the_lookahead() -> None:
    """However many files there are, no more than `most` are known and not over."""
    looked = itertools.count()
    walk_queue = WalkQueue(
        Selection(local_file(f"{n}.mp4", next(looked)) for n in itertools.count()), lambda _: None, most=5
    )
    walk_queue.start()
    assert taken(walk_queue, 5) == [0, 1, 2, 3, 4]
    assert walk_queue.take(0.05) is None
    walk_queue.listen([ev.FileSkipped(number, "", SkipReason.PRESENT) for number in range(2)])
    assert taken(walk_queue, 2) == [5, 6]
    assert walk_queue.close() == []
    assert next(looked) <= 9, "the next one may have been looked at, in hand of the walk"


@pytest.mark.usefixtures("_short")
def test_walk_advances_by_the_files_that_a_batch_ended() -> None:
    walk_queue = WalkQueue(Selection(local_file(f"{n}.mp4", n) for n in itertools.count()), lambda _: None, most=5)
    walk_queue.start()
    assert taken(walk_queue, 5) == [0, 1, 2, 3, 4]
    stored = ev.FileCompleted(0, "0.mp4", 10, None, None, verified=False, attempts=1, seconds=0.1)
    refused = ev.FileFailed(1, "1.mp4", ev.FailureCode.SERVER_FAILED, "no", retryable=False)
    walk_queue.listen([stored, ev.Ticked(), refused, ev.FileSkipped(2, "2.mp4", ev.SkipReason.PRESENT)])
    walk_queue.listen([ev.Ticked()])
    assert taken(walk_queue, 3) == [5, 6, 7]
    assert walk_queue.take(0.05) is None
    walk_queue.close()


@pytest.mark.usefixtures("_short")
def test_whole_walk_ends_before_a_file_is_taken() -> None:
    """After that no more than `most` are taken and not over."""
    told: list[ev.Event] = []
    goes_on = threading.Event()

    def walk() -> Iterator[Step]:
        yield from files(8)
        goes_on.wait(GUARD)

    walk_queue = WalkQueue(Selection(walk()), told.append, most=5, whole=True)
    walk_queue.start()
    assert walk_queue.take(0.05) is None
    goes_on.set()
    assert taken(walk_queue, 5) == [0, 1, 2, 3, 4]
    assert [type(event) for event in told] == [*[ev.FileSelected] * 8, ev.SelectionEnded]
    assert walk_queue.take(0.05) is None
    walk_queue.listen([ev.FileSkipped(0, "", SkipReason.PRESENT)])
    assert taken(walk_queue, 1) == [5]
    assert [file.file for file in walk_queue.close()] == [6, 7]


@pytest.mark.usefixtures("_short")
def test_the_end_of_a_walk_makes_totals_final() -> None:
    told: list[ev.Event] = []
    walk_queue = WalkQueue(
        Selection([*files(3), None, FileSkipped(3, "x", SkipReason.SPECIAL), *files(2, start=4)]), told.append
    )
    walk_queue.start()
    assert taken(walk_queue, 5) == [0, 1, 2, 4, 5]
    assert walk_queue.take(GUARD) is None
    assert walk_queue.ended
    assert sum(isinstance(event, ev.FileSelected) for event in told) == 6
    assert isinstance(told[-1], ev.SelectionEnded)
    walk_queue.close()


@pytest.mark.usefixtures("_short")
def test_error_of_the_walk_is_raised_to_the_consumer() -> None:
    def broken() -> Iterator[Step]:
        yield from files(4)
        raise RuntimeError("the disk is gone")

    told: list[ev.Event] = []
    walk_queue = WalkQueue(Selection(broken()), told.append)
    walk_queue.start()
    assert taken(walk_queue, 4) == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match="the disk is gone"):
        walk_queue.take(GUARD)
    assert walk_queue.ended
    assert not any(isinstance(event, ev.SelectionEnded) for event in told)


@pytest.mark.usefixtures("_short")
def test_close_returns_untaken_files_and_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection_module, "JOIN_WITHIN", GUARD)
    before = set(threading.enumerate())
    walk_queue = WalkQueue(Selection(local_file(f"{n}.mp4", n) for n in itertools.count()), lambda _: None, most=5)
    walk_queue.start()
    assert taken(walk_queue, 1) == [0]
    left = [file.file for file in walk_queue.close()]
    assert left == list(range(1, 1 + len(left)))
    assert walk_queue.ended
    assert walk_queue.take() is None
    assert set(threading.enumerate()) <= before
