"""The loop that passes the events of a run to its observers."""

from __future__ import annotations

import io
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from fakes import Clock

from uploader_cli.core import events as ev
from uploader_cli.core.alarms import Alarms
from uploader_cli.core.masking import MASK
from uploader_cli.errors import UploaderError
from uploader_cli.exit_status import Exit
from uploader_cli.render.plain import PlainView
from uploader_cli.run import loop as run_loop
from uploader_cli.run.loop import Loop, without_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.core.state import ProgressState

STARTED = ev.RunStarted("http://127.0.0.1:1", None, None, 0, "batch")
LEAK = "Authorization: Bearer abcdefgh"


class Onlooker:
    """Records its events in order."""

    def __init__(self, fails_on: type[ev.Event] | None = None) -> None:
        self.told: list[str] = []
        self._fails_on = fails_on

    def handle(self, event: ev.Event, _state: ProgressState, _now: float) -> None:
        self.told.append(type(event).__name__)
        if type(event) is self._fails_on:
            raise BrokenPipeError

    def refresh(self, _state: ProgressState, _now: float) -> None:
        self.told.append("refresh")

    def close(self, _state: ProgressState, _now: float) -> None:
        self.told.append("close")
        if self._fails_on is not None:
            raise BrokenPipeError

    def listen(self, events: Sequence[ev.Event]) -> None:
        self.told.append(" ".join(type(event).__name__ for event in events))


def started(file: int) -> ev.FileStarted:
    return ev.FileStarted(file, f"{file}.mp4", 5, "s", 0, 1)


def completed(file: int) -> ev.FileCompleted:
    return ev.FileCompleted(file, f"{file}.mp4", 5, None, None, False, 1, 0.1)


def loop_of(*observers: Any, listeners: Sequence[Onlooker] = (), clock: Clock | None = None) -> Loop:
    loop = Loop(observers, Alarms(stall=30.0), clock or Clock())
    loop.listeners += [one.listen for one in listeners]
    loop.apply(STARTED)
    for one in (*observers, *listeners):
        one.told.clear()
    return loop


def test_no_event_reaches_observers_before_the_run_starts() -> None:
    onlooker: Any = Onlooker()
    loop = Loop([onlooker], Alarms(stall=0.0))
    loop.emit(ev.RunWarning(ev.WarningCode.STALLED, "early"))
    loop.turn()
    assert onlooker.told == []
    loop.emit(ev.CallMade("GET", "http://127.0.0.1:1/health", None, 200, 0.1, None))  # the log has all calls
    loop.turn()
    assert onlooker.told == ["CallMade"]
    loop.apply(STARTED)
    loop.turn()
    assert onlooker.told[1:3] == ["RunStarted", "RunWarning"]
    assert "refresh" in onlooker.told


def test_listeners_get_a_batch_at_once_before_the_observers_refresh() -> None:
    both = Onlooker()
    loop = loop_of(both, listeners=[both])
    loop.emit(started(0))
    loop.emit(ev.FileSelected(1, "1.mp4", 5))  # not public
    loop.emit(completed(0))
    loop.turn()
    told = ["FileStarted", "FileProgress", "FileCompleted", "FileEnded"]
    assert both.told == [*told, " ".join(told), "refresh"]
    both.told.clear()
    loop.turn()
    assert both.told == ["refresh"]


def test_events_wait_for_the_end_of_the_frame() -> None:
    """Only the end of the engine is passed on at once."""
    onlooker: Any = Onlooker()
    began = time.monotonic()
    loop = Loop([onlooker], Alarms(stall=0.0))
    loop.turn()
    loop.emit(STARTED)
    loop.turn()
    assert time.monotonic() - began >= run_loop.FRAME
    stopped = ev.EngineStopped(None)
    loop.emit(stopped)
    assert loop.turn() is stopped


def test_observer_that_fails_keeps_no_event_from_the_listeners() -> None:
    failing, listener = Onlooker(fails_on=ev.FileStarted), Onlooker()
    loop = loop_of(failing, listeners=[listener])
    loop.emit(started(0))
    with pytest.raises(BrokenPipeError):
        loop.turn()
    assert listener.told == ["FileStarted"]


def test_observers_are_all_closed_where_one_fails() -> None:
    failing, other = Onlooker(fails_on=ev.FileStarted), Onlooker()
    loop = loop_of(failing, other)
    with pytest.raises(BrokenPipeError), loop.observed():
        pass
    assert other.told == ["close"]


def test_event_has_the_time_at_which_it_was_emitted() -> None:
    """The loop reads its queue once per frame; a file that took 30 ms must not have 0 seconds."""
    clock = Clock()
    loop = loop_of(clock=clock)
    loop.emit(started(0))
    clock.pass_(0.03)
    loop.emit(ev.FileFailed(0, "0.mp4", ev.FailureCode.NETWORK, "gone", retryable=True))
    clock.pass_(5)
    loop.turn()
    assert loop.state.finished[0].seconds == pytest.approx(0.03)


def test_observer_sees_the_state_of_the_event_within_a_batch() -> None:
    """The file that is retried is over when its batch is; the line of its retry still names it."""
    stream = io.StringIO()
    loop = Loop([PlainView(stream)], Alarms(stall=0.0), Clock())
    loop.apply(STARTED)
    retry = ev.FileRetry(0, 2, 0.0, ev.FailureCode.NETWORK, "reset")
    for event in (started(0), retry, completed(0)):
        loop.emit(event)
    loop.turn()
    assert "↻ 0.mp4: retry 1 (reset)" in stream.getvalue()


def test_end_of_the_engine_ends_the_frame_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_loop, "FRAME", 600.0)
    loop = loop_of()
    loop.turn()
    threading.Timer(0.05, loop.emit, [ev.EngineStopped()]).start()
    assert loop.turn() == ev.EngineStopped()


def test_drain_of_no_seconds_applies_what_is_queued() -> None:
    loop = loop_of()
    loop.emit(started(0))
    loop.drain(0.0)
    assert 0 in loop.state.running


def test_drain_ends_when_the_state_is_as_wanted() -> None:
    loop = loop_of()  # its clock stands still: the seconds never pass
    loop.emit(started(0))
    loop.drain(1.0, until=lambda state: 0 in state.running)
    assert 0 in loop.state.running


@pytest.mark.parametrize(
    "event",
    [
        ev.FileFailed(0, "a", ev.FailureCode.SERVER_FAILED, LEAK, retryable=False),
        ev.RunWarning(ev.WarningCode.STALLED, LEAK),
        ev.PollFailed("s", LEAK),
        ev.SessionProgress("s", ev.Transport.HTTP, None, None, message=LEAK),
        ev.SessionProgress(
            "s", ev.Transport.HTTP, None, None, files=(ev.FileStatus("a", "failed", error=LEAK), ev.FileStatus("b", ""))
        ),
    ],
)
def test_secret_quoted_by_the_server_is_masked_in_events(event: ev.Event) -> None:
    clean = repr(without_secrets(event))
    assert "abcdefgh" not in clean
    assert MASK in clean


def test_secret_quoted_by_the_server_is_masked_in_the_error_that_ends_the_run() -> None:
    error = UploaderError(LEAK, hint=LEAK)
    without_secrets(ev.EngineStopped(error))
    assert "abcdefgh" not in f"{error} {error.hint}"


def test_peak_of_memory_is_in_bytes() -> None:
    assert 8 << 20 < run_loop.peak_rss() < 1 << 40


@pytest.mark.parametrize(
    "event",
    [
        started(0),
        ev.SessionProgress("s", ev.Transport.HTTP, None, None, files=(ev.FileStatus("a", "uploading"),), message="on"),
    ],
)
def test_event_without_a_secret_is_not_copied(event: ev.Event) -> None:
    assert without_secrets(event) is event


@pytest.mark.parametrize(("code", "ends"), [(Exit.OK, 2), (Exit.FAILED_FOR_GOOD, 4)])
def test_a_report_that_can_not_be_written_is_exit_2_unless_the_run_failed(code: Exit, ends: int) -> None:
    loop = Loop([], Alarms())
    with loop.observed():
        outcome = loop.finish(code, ev.ChannelStats(), written=lambda _state: False)
    assert outcome.exit_code == ends
