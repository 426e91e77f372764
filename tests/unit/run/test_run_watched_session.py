"""When a watched session is polled, and when it has ended; with a fake clock and recorded events."""

from __future__ import annotations

from typing import Any

import pytest

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import FileStatus, Transport
from uploader_cli.core.reducer import reduce
from uploader_cli.core.state import ProgressState
from uploader_cli.exit_status import Exit
from uploader_cli.run.watch import ASK_FIRST, ASK_LATER, FIRST_ANSWER, LOST, WatchedSession

BEGAN, WAIT, PATIENCE = 100.0, 30.0, 1200.0
REFUSED = errors.ConnectFailed("no connection")
DENIED = errors.Unauthorized("401", status=401)


class Watch:
    """One watched session, and the events it gets at given times."""

    def __init__(self, name: str = "s", state: ProgressState | None = None) -> None:
        self.state = state or ProgressState()
        self.name = name
        reduce(self.state, ev.SessionWatched(name), BEGAN)
        self.watched = WatchedSession(self.state.sessions[name], BEGAN, WAIT, PATIENCE)

    def hear(self, now: float, status: str = "uploading", **more: Any) -> None:
        """A message by Socket.IO; with `source=Transport.HTTP` the answer to a poll."""
        said = {"source": Transport.WEBSOCKET, "timestamp": now, **more}
        reduce(self.state, ev.SessionProgress(self.name, status=status, **said), now)

    def miss(self, now: float) -> None:
        """An answer that does not know the session."""
        reduce(self.state, ev.SessionMissing(self.name), now)

    def fail(self, now: float, error: Exception = REFUSED) -> None:
        """A poll without an answer."""
        reduce(self.state, ev.PollFailed(self.name, "it failed", error), now)

    def asked(self, *times: float) -> list[float]:
        """Return those of the times at which a poll is due."""
        return [now for now in times if self.watched.due(now)]

    def verdict(self, now: float) -> Exit | None:
        return self.watched.verdict(self.state, now)


# --- when to ask -----------------------------------------------------------------------------------------------------


def test_unknown_session_is_polled_at_once_and_every_two_seconds() -> None:
    watch = Watch()
    assert watch.asked(100.0, 100.1, 101.9, 102.0, 103.9, 104.0) == [100.0, 102.0, 104.0]
    assert ASK_FIRST == 2.0


def test_session_with_events_is_not_polled() -> None:
    """A poll is due after every ten seconds without a message."""
    watch = Watch()
    assert watch.asked(100.0) == [100.0]
    for now in range(101, 130):
        watch.hear(now)
        assert not watch.asked(now + 0.9)
    assert watch.asked(138.9, 139.0, 148.9, 149.0) == [139.0, 149.0]
    assert ASK_LATER == 10.0


def test_session_that_became_unknown_is_polled_again_soon() -> None:
    watch = Watch()
    watch.hear(100.0)
    assert watch.asked(110.0) == [110.0]
    watch.miss(110.1)
    assert watch.asked(111.9, 112.0) == [112.0]


def test_ended_session_is_polled_once() -> None:
    """Also if the last poll was a moment before."""
    watch = Watch()
    assert watch.asked(100.0) == [100.0]
    watch.hear(101.0, "completed", total=2)
    assert watch.verdict(101.0) is None
    assert watch.asked(101.0, 101.1, 103.5, 120.0) == [101.0]


# --- when it is over -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "failed", "code"),
    [
        ("completed", 0, Exit.OK),
        ("completed", 1, Exit.FAILED_FOR_GOOD),  # sent after `partial` (protocol.md, section 3.4)
        ("partial", 1, Exit.FAILED_FOR_GOOD),
        ("cancelled", 0, Exit.FAILED_FOR_GOOD),
    ],
)
def test_exit_code_follows_the_end_of_the_session(status: str, failed: int, code: Exit) -> None:
    watch = Watch()
    watch.hear(101.0, status, failed=failed, source=Transport.HTTP)
    watch.verdict(101.0)
    watch.hear(101.5, status, failed=failed, source=Transport.HTTP)
    assert watch.verdict(101.5) is code


def test_end_with_all_files_needs_no_poll() -> None:
    watch = Watch()
    for number, name in enumerate("ab"):
        watch.hear(101.0 + number, total=2, files=(FileStatus(name, "completed"),))
    assert watch.verdict(102.0) is None
    watch.hear(103.0, "completed", total=2)
    assert watch.verdict(103.0) is Exit.OK


def test_watch_waits_for_files_whose_end_was_missed() -> None:
    """Until an answer that is younger than the end names them."""
    watch = Watch()
    watch.hear(101.0, total=2, files=(FileStatus("a", "uploading"),), source=Transport.HTTP)
    watch.hear(102.0, "completed", total=2)
    assert watch.verdict(102.0) is None
    assert watch.verdict(102.5) is None
    both = (FileStatus("a", "completed"), FileStatus("b", "completed"))
    watch.hear(102.6, "completed", total=2, files=both, source=Transport.HTTP)
    assert watch.verdict(102.6) is Exit.OK
    assert watch.state.completed == 2


@pytest.mark.parametrize("knows", [True, False])
def test_wait_for_missed_files_is_limited(knows: bool) -> None:
    """A 404 for an ended session counts; a server that does not answer has ten seconds, also for many sessions."""
    watch = Watch()
    watch.hear(102.0, "completed", total=2)
    assert watch.verdict(102.0) is None
    if knows:
        assert watch.verdict(112.0) is None
        assert watch.verdict(112.1) is Exit.OK
    else:
        watch.miss(102.2)
        assert watch.verdict(102.2) is Exit.OK


def test_session_that_never_appears_exits_6_after_the_wait() -> None:
    watch = Watch()
    watch.miss(101.0)
    assert watch.verdict(BEGAN + WAIT) is None
    assert watch.verdict(BEGAN + WAIT + 0.1) is Exit.NO_SERVER


def test_wait_0_still_waits_for_one_answer() -> None:
    """For five seconds, if the server sends nothing."""
    hasty, silent = Watch(), Watch()
    hasty.watched, silent.watched = (
        WatchedSession(w.state.sessions["s"], BEGAN, 0.0, PATIENCE) for w in (hasty, silent)
    )
    assert hasty.verdict(BEGAN + 1.0) is None
    hasty.miss(BEGAN + 1.1)
    assert hasty.verdict(BEGAN + 1.1) is Exit.NO_SERVER
    assert silent.verdict(BEGAN + FIRST_ANSWER) is None
    assert silent.verdict(BEGAN + FIRST_ANSWER + 0.1) is Exit.NO_SERVER


def test_session_that_appears_late_is_followed_to_its_end() -> None:
    watch = Watch()
    watch.miss(101.0)
    watch.hear(129.0, "pending")
    assert watch.verdict(5_000.0) is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (REFUSED, Exit.NO_SERVER),
        (errors.ServerFault("503", status=503), Exit.RETRY_MAY_HELP),
        (errors.RateLimited("429", status=429), Exit.RETRY_MAY_HELP),
    ],
)
def test_exit_code_without_any_answer_is_that_of_the_failure(error: Exception, code: Exit) -> None:
    watch = Watch()
    watch.fail(101.0, error)
    assert watch.verdict(BEGAN + WAIT) is None
    assert watch.verdict(BEGAN + WAIT + 0.1) is code


def test_server_of_another_kind_ends_the_watch_at_once() -> None:
    watch = Watch()
    watch.fail(101.0, errors.NotAnUploadServer("a web page"))
    assert watch.verdict(101.0) is Exit.NO_SERVER


@pytest.mark.parametrize("heard", [True, False])
def test_refused_token_ends_the_watch_at_once(heard: bool) -> None:
    watch = Watch()
    if heard:
        watch.hear(100.5)
    watch.fail(101.0, DENIED)
    assert watch.verdict(101.0) is Exit.NOT_AUTHORISED


def test_lost_server_ends_the_watch_after_max_wait() -> None:
    """Counted from its last message."""
    watch = Watch()
    watch.hear(200.0)
    watch.fail(201.0)
    assert watch.verdict(200.0 + PATIENCE) is None
    assert watch.verdict(200.1 + PATIENCE) is Exit.RETRY_MAY_HELP


def test_restored_server_resets_max_wait() -> None:
    watch = Watch()
    watch.hear(200.0)
    watch.fail(201.0)
    watch.hear(1_399.0, source=Transport.HTTP)
    assert watch.verdict(1_401.0) is None


def test_removed_session_ends_the_watch() -> None:
    """Not after one such answer, which may have crossed its first message, nor after two with a message between."""
    watch = Watch()
    watch.hear(101.0)
    watch.miss(102.0)
    watch.hear(103.0)
    watch.miss(104.0)
    assert watch.verdict(104.0) is None
    watch.miss(106.0)
    assert watch.verdict(106.0) is Exit.FAILED_FOR_GOOD
    assert LOST == 2


def test_several_sessions_are_judged_apart() -> None:
    state = ProgressState()
    good, bad, unknown = (Watch(name, state) for name in ("good", "bad", "unknown"))
    good.hear(101.0, "completed", total=0)
    bad.hear(101.0, "cancelled", total=0)
    unknown.miss(101.0)
    assert [watch.verdict(131.0) for watch in (good, bad, unknown)] == [Exit.OK, Exit.FAILED_FOR_GOOD, Exit.NO_SERVER]
