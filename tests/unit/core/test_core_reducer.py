"""The reducer by tables: what moves a file, what changes nothing, and what the server's messages may do.

A script is a row of steps for file 0 (100 bytes): `start`, `sent 40`, `body`, `retry`, `done`, `fail`, `skip`,
`cancel`, and `says 30` (the server's percentage). `sent@1 40` is a step of attempt 1; without a number it is of the
attempt under way.
"""

from __future__ import annotations

from typing import Any

import pytest

from uploader_cli.core import events as ev
from uploader_cli.core.events import ChannelReason, ChannelState, FailureCode, Phase, SkipReason, Transport
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.reducer import reduce
from uploader_cli.core.state import HISTORY, MOST_KEPT, ProgressState, file_fraction
from uploader_cli.errors import ConnectFailed

SESSION, SIZE = "s", 100


class Run:
    """A state with one selected file, and what came out of it."""

    def __init__(self, script: str = "", *, offset: int = 0) -> None:
        self.state = ProgressState()
        self.now = 100.0
        self.stamp = 1000.0
        self.attempt = 1
        self.offset = offset
        self.out: list[ev.Event] = []
        self.put(ev.RunStarted("http://x", 1, SIZE, 1, "batch"))
        self.put(ev.FileSelected(0, "a.mp4", SIZE), ev.SelectionEnded(), ev.SessionCreated(SESSION, "personal", 1))
        self.play(script)

    def put(self, *events: ev.Event) -> list[ev.Event]:
        self.now += 1
        answers = [answer for event in events for answer in reduce(self.state, event, self.now)]
        self.out += answers
        return answers

    def play(self, script: str) -> list[ev.Event]:
        return [answer for step in filter(None, script.split(", ")) for answer in self.put(self._event(step))]

    def says(self, percent: float | None, status: str = "uploading", stamp: float | None = None) -> list[ev.Event]:
        files = (ev.FileStatus("a.mp4", status, percent, "id-1"),)
        return self.put(ev.SessionProgress(SESSION, Transport.WEBSOCKET, stamp, "uploading", files=files))

    def _event(self, step: str) -> ev.Event:
        word, _, number = step.partition(" ")
        verb, _, given = word.partition("@")
        attempt = int(given) if given else self.attempt
        match verb:
            case "start":
                return ev.FileStarted(0, "a.mp4", SIZE, SESSION, self.offset, attempt, "a.mp4")
            case "sent":
                return ev.BytesSent(0, attempt, int(number))
            case "through":
                return ev.BytesSent(0, attempt, SIZE, through=True)
            case "body":
                return ev.BodySent((0,))
            case "retry":
                self.attempt = attempt + 1
                return ev.FileRetry(0, attempt + 1, 1.0, FailureCode.NETWORK, "lost")
            case "done":
                return ev.FileCompleted(0, "a.mp4", SIZE, "id-1", None, verified=False, attempts=1, seconds=1.0)
            case "fail":
                return ev.FileFailed(0, "a.mp4", FailureCode.NETWORK, "lost", retryable=True)
            case "skip":
                return ev.FileSkipped(0, "a.mp4", SkipReason.TYPE)
            case "cancel":
                return ev.FilesCancelled((0,))
            case "says":
                self.stamp += 1
                files = (ev.FileStatus("a.mp4", "uploading", float(number)),)
                return ev.SessionProgress(SESSION, Transport.WEBSOCKET, self.stamp, None, files=files)
        raise AssertionError(step)

    @property
    def phase(self) -> str:
        """Of file 0: a running one's, or the one in which it ended."""
        if 0 in self.state.running:
            return self.state.running[0].phase
        counts = {name: getattr(self.state, name) for name in ("completed", "failed", "skipped", "cancelled")}
        assert sum(counts.values()) <= 1
        return next((name for name, count in counts.items() if count), "waiting")

    @property
    def progress(self) -> list[ev.FileProgress]:
        return [event for event in self.out if isinstance(event, ev.FileProgress)]


def kinds(events: list[ev.Event]) -> str:
    """Their names in the stream, without the prefix."""
    return " ".join(event.type.removeprefix("file.") for event in events if event.type)


# --- phases ----------------------------------------------------------------------------------------------------------

MOVES = """
waiting     | start    | sending    | started
waiting     | sent 40  | waiting    |
waiting     | through  | waiting    |
waiting     | body     | waiting    |
waiting     | retry    | waiting    |
waiting     | says 30  | waiting    |
waiting     | done     | completed  | completed
waiting     | fail     | failed     | failed
waiting     | skip     | skipped    | skipped
waiting     | cancel   | cancelled  |
sending     | start    | sending    |
sending     | sent 40  | sending    | progress
sending     | through  | processing | progress
sending     | body     | processing | progress
sending     | retry    | queued     | retry
sending     | says 30  | sending    | progress
sending     | done     | completed  | progress completed
sending     | fail     | failed     | failed
sending     | skip     | skipped    | skipped
sending     | cancel   | cancelled  | progress
processing  | start    | processing |
processing  | body     | processing |
processing  | retry    | queued     | retry
processing  | says 30  | processing | progress
processing  | done     | completed  | progress completed
processing  | fail     | failed     | failed
processing  | cancel   | cancelled  | progress
queued      | start    | sending    | started
queued      | sent 40  | queued     |
queued      | through  | queued     |
queued      | body     | queued     |
queued      | retry@1  | queued     |
queued      | says 30  | queued     |
queued      | done     | completed  | progress completed
queued      | fail     | failed     | failed
queued      | cancel   | cancelled  | progress
"""
REACH = {"waiting": "", "sending": "start", "processing": "start, body", "queued": "start, retry"}
ENDS = {"completed": "start, done", "failed": "start, fail", "skipped": "skip", "cancelled": "start, cancel"}
STEPS = ("start", "start@2", "sent 40", "through", "body", "retry", "says 30", "done", "fail", "skip", "cancel")


@pytest.mark.parametrize("row", [line for line in MOVES.splitlines() if line], ids=lambda row: row.replace(" ", ""))
def test_each_transition_of_a_file_and_its_events(row: str) -> None:
    before, step, after, told = (cell.strip() for cell in row.split("|"))
    run = Run(REACH[before])
    assert run.phase == before
    assert kinds(run.play(step)) == told
    assert run.phase == after


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("step", STEPS)
def test_terminal_phase_never_changes(end: str, step: str) -> None:
    """After its one terminal event a file never changes, is counted once, and emits no event."""
    run = Run(ENDS[end])
    assert run.phase == end
    bytes_before = run.state.settled_bytes, run.state.completed_bytes
    assert run.play(step) == []
    assert run.phase == end
    assert run.state.over == 1
    assert (run.state.settled_bytes, run.state.completed_bytes) == bytes_before


def test_last_bytes_are_processed_once_also_if_they_were_sent_before() -> None:
    run = Run("start, through")
    assert (run.state.running[0].sent, run.state.sent_total) == (SIZE, SIZE)
    assert run.play("through") == []
    again = Run(f"start, sent {SIZE}")
    assert kinds(again.play("through, through")) == "progress"
    assert (again.phase, again.state.sent_total) == ("processing", SIZE)


def test_four_phases_are_final() -> None:
    assert {phase for phase in Phase if phase.terminal} == {
        Phase.COMPLETED,
        Phase.FAILED,
        Phase.CANCELLED,
        Phase.SKIPPED,
    }


# --- bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "sent", "confirmed", "attempt"),
    [
        ("start, sent 40", 40, 0, 1),
        ("start, sent 40, sent 40, sent 30", 40, 0, 1),  # a duplicate, and a step back
        ("start, sent 40, start@1", 40, 0, 1),  # a duplicate start takes nothing away
        ("start, sent@2 40", 0, 0, 1),  # an attempt that is not known
        ("start, sent 40, retry", 0, 0, 1),
        ("start, sent 40, retry, sent@1 60", 0, 0, 1),  # a straggler of the attempt that broke
        ("start, sent 40, retry, start, sent@1 60", 0, 0, 2),
        ("start, sent 40, retry, start, sent 10", 10, 0, 2),
        ("start, sent 40, retry, start, start@1, sent 10", 10, 0, 2),
        ("start, sent 100, body", 100, 0, 1),
    ],
)
def test_bytes_are_absolute_and_of_the_attempt_under_way(script: str, sent: int, confirmed: int, attempt: int) -> None:
    file = Run(script).state.running[0]
    assert (file.sent, file.confirmed, file.attempt) == (sent, confirmed, attempt)


def test_bytes_that_the_server_confirms_count_as_sent() -> None:
    """An earlier attempt, whose end was not seen, may have sent more than this one."""
    run = Run("start, sent 40")
    reduce(run.state, ev.BytesConfirmed(0, 1, 60), 2.0)
    file = run.state.running[0]
    assert (file.sent, file.confirmed) == (60, 60)


@pytest.mark.parametrize("end", ["done", "cancel", "fail"])
@pytest.mark.parametrize(
    "script", ["start, sent 40, says 30", "start, sent 100, body, says 90", "start, sent 40, says 10, retry, says 20"]
)
def test_progress_never_falls_within_an_attempt(script: str, end: str) -> None:
    run = Run(script)
    run.play(end)
    for attempt in {event.attempt for event in run.progress}:
        told = [(event.sent, event.confirmed) for event in run.progress if event.attempt == attempt]
        assert told == sorted(told)


def test_file_cancelled_before_a_retry_has_the_next_attempt_number() -> None:
    run = Run("start, sent 40, retry, cancel")
    last = run.progress[-1]
    assert (last.attempt, last.sent, last.phase) == (2, 0, Phase.CANCELLED)


def test_confirmed_rises_by_the_http_answer_only() -> None:
    """Neither sent bytes nor the server's percentages confirm anything."""
    run = Run("start, sent 100, body, says 100")
    assert run.state.running[0].confirmed == 0
    run.play("done")
    last = run.progress[-1]
    assert (last.sent, last.confirmed, last.size) == (SIZE, SIZE, SIZE)


def test_resumed_offset_does_not_count_for_the_speed() -> None:
    run = Run("start", offset=60)
    assert run.state.running[0].sent == 60
    assert run.progress == []
    run.play("sent 70")
    assert run.state.sent_total == 10
    assert run.progress[-1].rate == 10.0  # ten bytes in the second since the start
    assert run.state.rate(run.now) == 10.0  # without the time before the first file


def test_bytes_of_a_new_attempt_count_as_sent_again() -> None:
    """The speed is made of what left this machine, in all attempts."""
    run = Run("start, sent 40, retry, start, sent 30, retry, start, sent 20")
    assert run.state.sent_total == 90
    assert run.state.bytes_through == 20
    assert run.state.retries == 2


def test_a_retry_keeps_when_the_file_began_and_forgets_what_the_server_said() -> None:
    run = Run("start, sent 40, body, says 30")
    began = run.state.running[0].started
    run.play("retry")
    assert run.state.running[0].server_percent is None
    run.play("start")
    assert run.state.running[0].started == began
    assert run.state.running[0].server_percent is None


def test_a_message_older_than_the_new_attempt_says_nothing_of_it() -> None:
    run = Run("start, body, says 30, retry, start")
    assert run.says(90, stamp=run.stamp - 1) == []
    assert run.state.running[0].server_percent is None
    run.says(5, stamp=run.stamp + 1)
    assert run.state.running[0].server_percent == 5


# --- the whole -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["", "start", "start, sent 100", "start, sent 100, body", "start, body, says 100"])
def test_file_is_not_at_100_before_it_is_confirmed(script: str) -> None:
    run = Run(script)
    assert run.state.fraction < 1.0
    for file in run.state.running.values():
        assert file_fraction(file) < 1.0
    run.play("done")
    assert run.state.fraction == 1.0


def test_total_is_not_at_100_between_two_files() -> None:
    run = Run()
    run.put(ev.FileSelected(1, "b.mp4", 300))
    run.play("start, sent 100, done")
    assert not run.state.running
    assert run.state.fraction == 0.25


def test_total_is_not_at_100_during_the_walk() -> None:
    state = ProgressState()
    reduce(state, ev.FileSelected(0, "a", 10), 1.0)
    reduce(state, ev.FileSkipped(0, "a", SkipReason.PRESENT), 1.0)
    assert state.fraction == 0.99
    reduce(state, ev.SelectionEnded(), 1.0)
    assert state.fraction == 1.0


def test_empty_selection_has_fraction_0() -> None:
    assert ProgressState().fraction == 0.0


def test_time_left_is_of_the_bytes_that_are_left() -> None:
    run = Run("start")
    assert run.state.eta(run.now) is None
    run.play("sent 60")
    assert run.state.eta(run.now) == pytest.approx(40 / run.state.rate(run.now))
    run.play("done")
    assert run.state.eta(run.now) == 0.0


def test_a_file_of_unknown_size_has_the_servers_percentage() -> None:
    run = Run("start")
    file = run.state.running[0]
    file.size = None
    assert file_fraction(file) == 0.0
    file.server_percent = 40.0
    assert file_fraction(file) == 0.4


def test_finished_files_become_counts_and_one_line_each() -> None:
    run = Run("start, sent 100, body, done")
    state = run.state
    assert [(end.path, end.outcome, end.size) for end in state.finished] == [("a.mp4", Phase.COMPLETED, SIZE)]
    assert (state.completed_bytes, state.settled_bytes, state.bytes_through) == (SIZE, SIZE, SIZE)
    assert not state.running
    assert not state.unstarted


def test_end_of_a_file_is_known_after_thousands_of_others() -> None:
    run = Run("start, done")
    for number in range(1, 13_000):
        run.put(ev.FileSkipped(number, f"{number}.mp4", SkipReason.PRESENT))
    assert len(run.state.marks) < 8192
    for number in (0, 9000, 12_999):
        assert run.put(ev.FileSkipped(number, "again", SkipReason.PRESENT)) == []
    assert run.put(ev.FileSkipped(13_001, "new", SkipReason.PRESENT)) != []
    assert (run.state.completed, run.state.skipped) == (1, 13_000)


def test_recovery_that_a_worker_reports_is_news_and_no_warning() -> None:
    run, told = Run(), ev.RunWarning(ev.WarningCode.RECOVERED, "the server answers again")
    assert run.put(told) == [told]
    assert (run.state.news, run.state.warnings) == (told, [])


def test_failed_file_keeps_its_message_and_confirms_no_byte() -> None:
    run = Run("start, sent 40, fail")
    assert [failure.message for failure in run.state.failures] == ["lost"]
    assert run.state.finished[-1].message == "lost"
    assert (run.state.completed_bytes, run.state.settled_bytes) == (0, 0)


def test_bytes_of_a_failed_file_leave_the_total() -> None:
    """Its bytes do not count as progress, and the total is not complete."""
    run = Run("start, sent 40")
    run.put(ev.FileSelected(1, "b.mp4", 300))
    run.play("fail")
    state = run.state
    assert (state.selected_bytes, state.total_bytes, state.bytes_through) == (SIZE + 300, 300, 0)
    assert state.fraction == 0.0
    run.put(ev.FileStarted(1, "b.mp4", 300, "s-1", 0, 1, wire_name="b.mp4"))
    run.put(ev.FileCompleted(1, "b.mp4", 300, None, None, verified=False, attempts=1, seconds=1.0))
    assert state.bytes_through == state.total_bytes
    assert state.fraction == 0.99


def test_skips_are_counted_by_reason_and_take_no_line_of_the_last_few() -> None:
    run = Run("skip")
    assert run.state.skips == {SkipReason.TYPE: 1}
    assert not run.state.finished


def test_files_that_were_not_started_are_cancelled_too() -> None:
    run = Run("start")
    run.put(ev.FileSelected(1, "b.mp4", 50))
    assert kinds(run.put(ev.FilesCancelled((0, 1)))) == "progress"
    assert (run.state.cancelled, run.state.total_bytes, run.state.fraction) == (2, SIZE + 50, 0.0)


def test_confirmed_bytes_of_cancelled_files_stay_in_the_fraction() -> None:
    """One file is stored, one is being sent, one waits: a resumed run sends the rest."""
    run = Run("start, sent 40")
    run.put(ev.BytesConfirmed(0, 1, 30))
    for number, size in ((1, 300), (2, 600)):
        run.put(ev.FileSelected(number, f"{number}.mp4", size))
    run.put(ev.FileCompleted(1, "1.mp4", 300, None, None, verified=False, attempts=1, seconds=1.0))
    assert run.state.fraction == (300 + 40) / (SIZE + 900)
    run.put(ev.FilesCancelled((0, 2)), ev.EngineStopped(None))
    assert run.state.fraction == (300 + 30) / (SIZE + 900)
    assert (run.state.kept, run.state.kept_bytes) == (1, 30)
    assert run.state.eta(1.0) is None


@pytest.mark.parametrize(
    ("reason", "done", "whole"),
    [(SkipReason.PRESENT, (1, 2), 400), (SkipReason.RECEIPT, (1, 2), 400), (SkipReason.TYPE, (0, 1), 300)],
)
def test_files_that_are_there_count_as_done_and_those_left_out_in_no_total(
    reason: SkipReason, done: tuple[int, int], whole: int
) -> None:
    run = Run()
    run.put(ev.FileSelected(1, "b.mp4", 300), ev.FileSkipped(0, "a.mp4", reason))
    assert (run.state.files_done, run.state.total_bytes) == (done, whole)
    assert run.state.bytes_through == whole - 300


@pytest.mark.parametrize(("status", "failed", "whole"), [("completed", 0, True), ("partial", 1, False)])
def test_watched_session_is_complete_only_if_no_file_failed(status: str, failed: int, whole: bool) -> None:
    state = ProgressState()
    counts: dict[str, Any] = {"completed": 2 - failed, "failed": failed, "total": 2}
    for event in (ev.SessionWatched("s"), ev.SessionProgress("s", Transport.HTTP, 1.0, status, 100.0, **counts)):
        reduce(state, event, 0.0)
    assert (state.fraction == 1.0) is whole


def test_each_cancelled_file_is_reported_once() -> None:
    run = Run("start")
    files = tuple(LocalFile(number, f"{number}.mp4", f"{number}.mp4", 50, 0) for number in range(2))
    run.put(ev.FileSelected(1, "1.mp4", 50), ev.FilesCancelled((0,), files[:1]), ev.FilesCancelled((0, 1), files))
    assert [event.file for event in run.out if isinstance(event, ev.FileEnded)] == [0, 1]


# --- the server's messages -------------------------------------------------------------------------------------------


def test_server_percentages_never_fall_and_repeats_are_dropped() -> None:
    run = Run("start, body")
    told = [kinds(run.says(percent, stamp=2000.0)) for percent in (0, 0, 5, 5, 0, 30, 15, None, 30)]
    assert told == ["progress", "", "progress", "", "", "progress", "", "", ""]
    assert run.state.running[0].server_percent == 30


@pytest.mark.parametrize(("said", "kept"), [(-5, 0), (150, 100), (0, 0), (100, 100)])
def test_percentages_stay_between_0_and_100(said: float, kept: float) -> None:
    run = Run("start, body")
    assert len(run.says(said)) == 1
    assert run.says(said) == []
    assert run.state.running[0].server_percent == kept
    assert run.progress[-1].server_percent == kept
    run.put(ev.SessionProgress(SESSION, Transport.HTTP, None, None, percent=said))
    assert run.state.sessions[SESSION].percent == kept


def test_a_stale_message_changes_nothing() -> None:
    run = Run("start, body")
    run.says(30, stamp=2000.0)
    assert run.says(60, "completed", stamp=1999.0) == []
    late = ev.SessionProgress(SESSION, Transport.HTTP, 1999.0, "cancelled", 90.0, 1, 1, 7, message="old")
    assert run.put(late) == []
    session = run.state.sessions[SESSION]
    assert (session.status, session.percent, session.completed, session.failed) == ("uploading", 0.0, 0, 0)
    assert (session.total, list(run.state.messages)) == (None, [])


def test_server_event_does_not_end_an_own_file() -> None:
    """Only the HTTP answer decides what was stored (protocol.md, section 3.4); an event changes nothing."""
    run = Run("start, body")
    run.says(100, "completed")
    run.says(100, "failed")
    assert run.phase == "processing"
    assert run.state.running[0].server_id == "id-1"


def test_session_totals_are_capped_and_never_fall() -> None:
    run = Run("start")
    for completed, failed, total in ((2, 0, 2), (4, 1, 2), (1, 0, None), (None, None, None)):
        totals: dict[str, Any] = {"completed": completed, "failed": failed, "total": total}
        run.put(ev.SessionProgress(SESSION, Transport.HTTP, None, None, **totals))
    session = run.state.sessions[SESSION]
    assert (session.completed, session.failed, session.total) == (2, 1, 2)


@pytest.mark.parametrize("end", ["completed", "partial", "cancelled"])
def test_the_first_end_of_a_session_stays(end: str) -> None:
    """`completed` comes twice, or after `partial` (protocol.md, section 3.4); files arrive after `cancelled`."""
    run = Run("start")
    for status in ("uploading", end, "uploading", "completed"):
        run.put(ev.SessionProgress(SESSION, Transport.WEBSOCKET, None, status))
    assert run.state.sessions[SESSION].status == end


def test_server_message_is_reported_once() -> None:
    run = Run("start")
    message = ev.SessionProgress(SESSION, Transport.WEBSOCKET, None, None, message="working")
    assert run.put(message) == [ev.ServerMessage("working")]
    assert run.put(message) == []
    assert list(run.state.messages) == ["working"]


def test_messages_of_an_unknown_session_are_ignored() -> None:
    run = Run("start")
    foreign = ev.SessionProgress("other", Transport.WEBSOCKET, None, "completed", 100.0, message="hello")
    assert run.put(foreign) == []
    assert run.state.channel.heard is None


def test_a_session_ends_once() -> None:
    run = Run("start")
    end = ev.SessionFinished(SESSION, "completed")
    assert run.put(end, end, ev.SessionFinished("other", "completed")) == [end]
    assert run.state.sessions_done == 1


def test_final_events_count_until_a_session_is_left() -> None:
    """Final events come up to 18 ms after the answer (protocol.md, section 3.8)."""
    run = Run("start")
    last = ev.SessionProgress(SESSION, Transport.WEBSOCKET, None, "completed", 100.0, message="done")
    run.put(ev.SessionFinished(SESSION, "completed"))
    assert run.put(last) == [ev.ServerMessage("done")]
    assert run.put(ev.SessionLeft(SESSION)) == []
    assert run.says(50) == []
    assert not run.state.sessions


def test_events_of_a_lost_session_do_not_change_moved_files() -> None:
    run = Run("start, body, says 30, retry")
    run.put(ev.SessionCreated("new", "personal", 1), ev.FileStarted(0, "a.mp4", SIZE, "new", 0, 2, "a.mp4"))
    assert run.says(90, stamp=run.stamp + 1) == []
    files = (ev.FileStatus("a.mp4", "uploading", 5.0),)
    assert len(run.put(ev.SessionProgress("new", Transport.WEBSOCKET, run.stamp, None, files=files))) == 1
    assert run.state.running[0].server_percent == 5


def test_events_of_unknown_names_are_ignored() -> None:
    run = Run("start")
    files = (ev.FileStatus("stranger.mp4", "uploading", 5.0),)
    assert run.put(ev.SessionProgress(SESSION, Transport.WEBSOCKET, None, None, files=files)) == []
    assert run.state.selected == 1


# --- channel, pauses, warnings ---------------------------------------------------------------------------------------


def test_the_channel_is_shown_as_it_moved_and_keeps_its_latency() -> None:
    run = Run()
    opened = ev.ChannelChanged(
        ChannelState.CONNECTING, ChannelState.LIVE, Transport.WEBSOCKET, ChannelReason.CONNECTED, latency_ms=12.0
    )
    lost = ev.ChannelChanged(ChannelState.LIVE, ChannelState.RECONNECTING, None, ChannelReason.LOST, attempt=1)
    assert run.put(opened, lost) == [opened, lost]
    channel = run.state.channel
    assert (channel.state, channel.transport, channel.attempt) == (ChannelState.RECONNECTING, None, 1)
    assert channel.latency_ms == 12.0


def test_failed_poll_marks_the_state_stale_until_news() -> None:
    run = Run("start")
    assert run.put(ev.PollFailed(SESSION, "timed out")) == []
    assert run.state.channel.stale == "timed out"
    run.says(5)
    assert (run.state.channel.stale, run.state.channel.heard) == ("", run.now)


def test_session_is_missing_until_the_first_status() -> None:
    """A 404 is an answer: the known state is current."""
    run = Run("start")
    run.put(ev.PollFailed(SESSION, "timed out", TimeoutError()))
    assert isinstance(run.state.channel.failure, TimeoutError)
    run.put(ev.SessionMissing(SESSION), ev.SessionMissing(SESSION), ev.SessionMissing("another"))
    session = run.state.sessions[SESSION]
    assert (session.missing, session.heard, run.state.channel.stale, run.state.channel.failure) == (
        2,
        None,
        "",
        None,
    )
    run.says(5)
    assert (session.missing, session.heard, session.answered) == (0, run.now, None)


@pytest.mark.parametrize("total", [None, 4])
def test_watched_session_is_as_far_as_the_server_says(total: int | None) -> None:
    """Also where it does not tell the number of its files."""
    state = ProgressState()
    for event in (ev.SessionWatched("s"), ev.SessionProgress("s", Transport.HTTP, 1.0, "uploading", 40.0, total=total)):
        reduce(state, event, 1.0)
    assert state.fraction == pytest.approx(0.4)


def test_a_watched_session_stays_when_it_is_left() -> None:
    """Its number of expected files is the requested one."""
    run = Run("start")
    run.put(ev.SessionWatched("w"), ev.SessionLeft("w"), ev.SessionLeft(SESSION))
    assert list(run.state.sessions) == ["w"]


def test_a_pause_ends_at_a_time() -> None:
    run = Run()
    assert run.put(ev.Paused(30.0, ev.PauseReason.RATE_LIMIT)) == []
    assert (run.state.paused_until, run.state.pause_reason) == (run.now + 30.0, ev.PauseReason.RATE_LIMIT)


def test_stall_ends_only_with_progress() -> None:
    run = Run("start, sent 40")
    moved = run.state.advanced
    run.play("sent 40, sent 30, start")
    run.put(ev.RunWarning(ev.WarningCode.STALLED, "…"), ev.PollFailed(SESSION, "timed out"))
    assert run.state.advanced == moved
    run.play("sent 50")
    assert run.state.advanced == run.now


def test_warnings_and_the_outcome_are_kept() -> None:
    run = Run()
    warning = ev.RunWarning(ev.WarningCode.INSECURE, "careful")
    outcome = ev.RunFinished(True, 1, 0, 0, 0, 100, 1.0, 100.0, 0, ev.ChannelStats(), 1)
    assert run.put(warning, outcome) == [warning, outcome]
    assert (run.state.warnings, run.state.outcome) == ([warning], outcome)


def test_error_that_ended_a_run_has_a_hint() -> None:
    run = Run()
    assert run.put(ev.EngineStopped(ConnectFailed("http://x: refused", hint="is it running?"))) == []
    assert run.state.advice == "is it running?"
    assert run.put(ev.EngineStopped(), ev.EngineStopped(KeyError("x"))) == []
    assert run.state.advice == ""


def test_public_events_without_a_rule_pass_through() -> None:
    """A public event without a rule is passed on, an internal one is not."""
    run = Run()
    assert run.put(ev.ServerMessage("hello")) == [ev.ServerMessage("hello")]
    assert run.put(ev.Event()) == []


def test_history_is_bounded() -> None:
    run = Run()
    for number in range(1, 4 * HISTORY):
        name = f"{number}.mp4"
        run.put(ev.FileSelected(number, name, SIZE), ev.FileStarted(number, name, SIZE, SESSION, 0, 1))
        run.put(ev.FileCompleted(number, name, SIZE, None, None, verified=False, attempts=1, seconds=1.0))
        words = f"message {number}"
        run.put(ev.SessionProgress(SESSION, Transport.WEBSOCKET, float(number), None, message=words))
    assert run.state.completed == 4 * HISTORY - 1
    assert len(run.state.finished) == HISTORY
    assert list(run.state.messages)[-1] == words
    assert len(run.state.messages) == HISTORY


@pytest.mark.parametrize("told", [True, False])
def test_file_of_a_pack_has_no_progress_and_counts_once(told: bool) -> None:
    """When the body of its pack is sent, else when it is stored."""
    run = Run()
    run.put(ev.FileStarted(0, "a.mp4", SIZE, SESSION, 0, 1, "a.mp4", packed=True))
    if told:
        assert run.play("body") == []
        assert (run.state.sent_total, run.state.running[0].sent) == (SIZE, SIZE)
        assert run.state.meter.rate(run.now) > 0
    assert [type(event) for event in run.play("done")] == [ev.FileCompleted, ev.FileEnded]
    assert run.state.sent_total == SIZE
    assert run.state.meter.rate(run.now) > 0


def test_pack_counts_its_bytes_as_they_leave_in_the_order_of_its_files() -> None:
    """No line of the stream tells of it, and what is confirmed does not move."""
    run = Run()
    for number in range(3):
        run.put(ev.FileSelected(number, f"{number}.txt", SIZE))
        run.put(ev.FileStarted(number, f"{number}.txt", SIZE, SESSION, 0, 1, f"{number}.txt", packed=True))
    for sent, each in [(SIZE // 2, [SIZE // 2, 0, 0]), (2 * SIZE + 7, [SIZE, SIZE, 7]), (SIZE, [SIZE, SIZE, 7])]:
        assert run.put(ev.PackSent((0, 1, 2), sent)) == []
        assert [file.sent for file in run.state.running.values()] == each
    state = run.state
    assert (state.bytes_through, state.sent_total, state.bytes_confirmed) == (2 * SIZE + 7, 2 * SIZE + 7, 0)
    run.put(ev.FileRetry(0, 2, 1.0, FailureCode.NETWORK, "lost"), ev.PackSent((0, 1, 2), 3 * SIZE))
    assert state.running[1].sent == SIZE, "a report of the attempt before is late"


def test_summary_keeps_a_limited_number_of_failures_warnings_and_renamed_files() -> None:
    run = Run()
    for number in range(1, MOST_KEPT + 10):
        name, where = f"{number}.mp4", f"/uploads/personal/{number} (2).mp4"
        own = LocalFile(number, name, name, SIZE, 0)
        done = ev.FileCompleted(number, name, SIZE, None, where, verified=False, attempts=1, seconds=1.0, local=own)
        failure = ev.FileFailed(10_000 + number, name, FailureCode.NETWORK, "lost", retryable=True)
        run.put(done, failure, ev.RunWarning(ev.WarningCode.INSECURE, name))
    state = run.state
    assert len(state.renames) == len(state.failures) == len(state.warnings) == MOST_KEPT
    assert (state.renames[0].stored_as, state.renamed, state.failed) == ("1 (2).mp4", MOST_KEPT + 9, MOST_KEPT + 9)
