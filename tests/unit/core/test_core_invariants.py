"""Any sequence of events, in any order, from any attempt: invariants of the state and of its output.

And the totals of runs with faults: no confirmed byte leaves them.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, Phase, SkipReason, Transport
from uploader_cli.core.reducer import reduce
from uploader_cli.core.state import ProgressState, file_fraction

SIZES = (0, 1, 100, 5000)
NAMES = ("a.mp4", "b.mp4", "c.avi", "d.avi")
SESSIONS = ("s1", "s2", "watched")

numbers = st.sampled_from(range(len(SIZES)))
attempts = st.integers(1, 4)
sessions = st.sampled_from(SESSIONS)
statuses = st.sampled_from(["", "pending", "uploading", "completed", "failed", "partial", "cancelled"])
percents = st.none() | st.integers(-10, 130) | st.floats(0, 100)
counts = st.none() | st.integers(-2, 9)
file_words = st.builds(
    ev.FileStatus, st.sampled_from((*NAMES, "other.mp4")), statuses, percents, st.none() | st.just("id")
)


class AnyOrder(RuleBasedStateMachine):
    """Events of workers, socket and polls in random order."""

    def __init__(self) -> None:
        super().__init__()
        self.state = ProgressState()
        self.now = 0.0
        self.told: Counter[str] = Counter()
        self.ends: Counter[int] = Counter()
        self.heights: dict[tuple[int, int], tuple[int, int]] = {}
        self.session_heights: dict[str, tuple[float, int, int]] = {}

    def put(self, event: ev.Event) -> None:
        self.now += 0.1
        for out in reduce(self.state, event, self.now):
            self.told[out.type] += 1
            if isinstance(out, ev.FileCompleted | ev.FileFailed | ev.FileSkipped):
                self.ends[out.file] += 1
            if isinstance(out, ev.FileProgress):
                self.check_progress(out)

    def check_progress(self, event: ev.FileProgress) -> None:
        """0 ≤ confirmed ≤ sent ≤ size, and within an attempt neither falls; a cancelled file has its end here."""
        assert 0 <= event.confirmed <= event.sent
        assert event.size is None or event.sent <= event.size
        assert event.server_percent is None or 0 <= event.server_percent <= 100
        before = self.heights.get((event.file, event.attempt), (0, 0))
        assert (event.sent, event.confirmed) >= before
        assert event.confirmed >= before[1]
        self.heights[event.file, event.attempt] = event.sent, event.confirmed
        assert not self.ends[event.file]
        self.ends[event.file] += event.phase is Phase.CANCELLED

    # -- what may happen ----------------------------------------------------------------------------------------------

    @initialize()
    def select(self) -> None:
        self.put(ev.RunStarted("http://x", len(SIZES), sum(SIZES), 1, "batch"))
        for number, size in enumerate(SIZES):
            self.put(ev.FileSelected(number, NAMES[number], size))

    @rule()
    def selection_ends(self) -> None:
        self.put(ev.SelectionEnded())

    @rule(session=st.sampled_from(SESSIONS[:2]))
    def session_is_created(self, session: str) -> None:
        self.put(ev.SessionCreated(session, "personal", 2))
        self.session_heights.pop(session, None)

    @rule()
    def session_is_watched(self) -> None:
        if "watched" not in self.state.sessions:
            self.put(ev.SessionWatched("watched"))

    @rule(session=sessions, status=statuses)
    def session_ends(self, session: str, status: str) -> None:
        self.put(ev.SessionFinished(session, status))

    @rule(session=st.sampled_from(SESSIONS[:2]))
    def session_is_left(self, session: str) -> None:
        self.put(ev.SessionLeft(session))

    @rule(number=numbers, session=sessions, attempt=attempts, part=st.sampled_from((0, 2)))
    def file_starts(self, number: int, session: str, attempt: int, part: int) -> None:
        offset = SIZES[number] // part if part else 0
        self.put(ev.FileStarted(number, NAMES[number], SIZES[number], session, offset, attempt, NAMES[number]))

    @rule(number=numbers, attempt=attempts, share=st.floats(0, 1))
    def bytes_leave(self, number: int, attempt: int, share: float) -> None:
        self.put(ev.BytesSent(number, attempt, int(SIZES[number] * share)))

    @rule(chosen=st.sets(numbers))
    def body_is_through(self, chosen: set[int]) -> None:
        self.put(ev.BodySent(tuple(chosen)))

    @rule(number=numbers, attempt=attempts)
    def file_is_tried_again(self, number: int, attempt: int) -> None:
        self.put(ev.FileRetry(number, attempt, 1.0, FailureCode.NETWORK, "lost"))

    @rule(number=numbers)
    def file_completes(self, number: int) -> None:
        self.put(ev.FileCompleted(number, NAMES[number], SIZES[number], None, None, False, 1, 1.0))

    @rule(number=numbers)
    def file_fails(self, number: int) -> None:
        self.put(ev.FileFailed(number, NAMES[number], FailureCode.NETWORK, "lost", retryable=True))

    @rule(number=numbers)
    def file_is_skipped(self, number: int) -> None:
        self.put(ev.FileSkipped(number, NAMES[number], SkipReason.FAIL_FAST))

    @rule(chosen=st.sets(numbers))
    def files_are_cancelled(self, chosen: set[int]) -> None:
        self.put(ev.FilesCancelled(tuple(chosen)))

    @rule(
        session=sessions,
        source=st.sampled_from(Transport),
        stamp=st.none() | st.integers(0, 20),
        status=st.none() | statuses,
        totals=st.tuples(percents, counts, counts, counts),
        files=st.lists(file_words, max_size=3),
        message=st.sampled_from(["", "working", "done"]),
    )
    def server_speaks(
        self,
        session: str,
        source: Transport,
        stamp: int | None,
        status: str | None,
        totals: tuple[float | None, int | None, int | None, int | None],
        files: list[ev.FileStatus],
        message: str,
    ) -> None:
        self.put(ev.SessionProgress(session, source, stamp, status, *totals, tuple(files), message))
        if totals[3] is not None and source is not Transport.HTTP:  # with a total, a pushed percentage may fall
            _, completed, failed = self.session_heights.get(session, (0.0, 0, 0))
            self.session_heights[session] = (0.0, completed, failed)

    # -- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def each_running_file_is_within_its_size(self) -> None:
        for file in self.state.running.values():
            assert 0 <= file.confirmed <= file.sent
            assert file.size is None or file.sent <= file.size
            assert 0.0 <= file_fraction(file) < 1.0
            assert not file.phase.terminal

    @invariant()
    def counters_match_the_events(self) -> None:
        state = self.state
        assert state.completed == self.told["file.completed"]
        assert state.failed == self.told["file.failed"] == len(state.failures)
        assert state.skipped == self.told["file.skipped"] == state.skips.total()
        assert state.retries == self.told["file.retry"]
        assert state.sessions_done == self.told["session.finished"]
        assert state.over == sum(state.marks) <= state.selected

    @invariant()
    def each_file_has_one_end_at_most(self) -> None:
        assert all(count <= 1 for count in self.ends.values())

    @invariant()
    def the_whole_is_reached_at_the_end_only(self) -> None:
        state = self.state
        assert 0.0 <= state.fraction <= 1.0
        if state.fraction == 1.0:
            assert state.over == state.selected
            assert not state.running
        assert state.completed_bytes <= state.settled_bytes <= state.bytes_through
        assert state.bytes_through <= state.total_bytes <= state.selected_bytes

    @invariant()
    def no_total_of_a_session_falls(self) -> None:
        for name, session in self.state.sessions.items():
            height = session.percent, session.completed, session.failed
            before = self.session_heights.get(name, (0.0, 0, 0))
            assert all(new >= old for new, old in zip(height, before, strict=True))
            assert session.percent <= 100
            self.session_heights[name] = height


AnyOrder.TestCase.settings = settings(stateful_step_count=40)
TestAnyOrder = AnyOrder.TestCase


# --- faults ----------------------------------------------------------------------------------------------------------

CHUNK, CHUNKS, FILES = 100, 4, 3
steps = st.tuples(st.sampled_from(range(FILES)), st.sampled_from(("send", "confirm", "break")), st.integers(1, CHUNK))


@given(st.lists(steps, max_size=80))
def test_no_confirmed_byte_leaves_the_total_and_it_falls_by_one_chunk_of_each_file_at_most(
    plan: list[tuple[int, str, int]],
) -> None:
    """A broken request loses its chunk, or a part of it; the next attempt begins at the server's offset."""
    state, now, highest = ProgressState(), 0.0, 0
    sent, confirmed, stored, attempt, running = ([0] * FILES for _ in range(5))

    def put(event: ev.Event) -> None:
        nonlocal now, highest
        now += 0.1
        reduce(state, event, now)
        assert state.bytes_through >= sum(confirmed)
        highest = max(highest, state.bytes_through)
        assert highest - CHUNK * FILES <= state.bytes_through <= state.bytes_reached <= state.total_bytes
        assert state.bytes_reached >= highest, "what must be sent again is shown as such"

    for number in range(FILES):
        put(ev.FileSelected(number, str(number), CHUNK * CHUNKS))
    for number, step, count in plan:
        if not running[number]:
            running[number], attempt[number], sent[number] = 1, attempt[number] + 1, stored[number]
            size = CHUNK * CHUNKS
            put(ev.FileStarted(number, str(number), size, "s", stored[number], attempt[number], str(number)))
            confirmed[number] = stored[number]
        elif step == "send":
            sent[number] = min(confirmed[number] + CHUNK, sent[number] + count, CHUNK * CHUNKS - 1)
            put(ev.BytesSent(number, attempt[number], sent[number]))
        elif step == "confirm":
            stored[number] = sent[number]
            put(ev.BytesConfirmed(number, attempt[number], stored[number]))
            confirmed[number] = stored[number]
        else:
            running[number], stored[number] = 0, min(sent[number], confirmed[number] + count)
            put(ev.FileRetry(number, attempt[number] + 1, 1.0, FailureCode.NETWORK, "lost"))
