"""The order of files, their sessions and their outcomes, with a fake server and a fake clock."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from unit.transfer.transfer_fakes import (
    BUNDLED,
    FakeApi,
    FakeStop,
    Request,
    Run,
    fault,
    lost,
    refused,
    session_lost,
    stored,
    too_slow,
    upload_failed,
)

from uploader_cli import errors, exit_status
from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, FileStatus, SessionProgress, SkipReason, Transport, WarningCode
from uploader_cli.core.plan import ASSUMED, Limits

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_cli.core.protocol import StoredFile
    from uploader_cli.transfer.bodies import Body


def exit_of(run: Run) -> int:
    return exit_status.worst(
        exit_status.of_failure(event.code, retryable=event.retryable) for event in run.all(ev.FileFailed)
    )


def says(session: str, *files: FileStatus) -> SessionProgress:
    return SessionProgress(session, Transport.HTTP, None, "uploading", files=files)


# --- sessions --------------------------------------------------------------------------------------------------------


def test_seven_mp4_and_two_avi_make_four_sessions_and_nine_calls(tmp_path: Path) -> None:
    """Without limits in /health they come from the first session, which is used (protocol.md, section 3.12)."""
    run = Run(tmp_path)
    for number in range(9):
        run.file(f"{number}.{'avi' if number in (2, 5) else 'mp4'}")
    assert run.go() is None
    assert sorted(run.completed) == list(range(9))
    assert [call for call in run.api.calls if call[0] == "session"] == [
        ("session", 3),
        ("session", 3),
        ("session", 2),
        ("session", 1),
    ]
    assert run.api.count("batch") == 4
    assert run.api.count("health") == 1
    assert len(run.api.calls) == 9
    assert [sorted({name.rpartition(".")[2] for name in group}) for group in run.groups] == [
        ["mp4"],
        ["mp4"],
        ["avi"],
        ["mp4"],
    ]


def test_a_plain_run_of_three_files_needs_three_calls(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for number in range(3):
        run.file(f"{number}.mp4")
    run.go()
    assert [call[0] for call in run.api.calls] == ["health", "session", "batch"]
    (request,) = run.api.requests
    assert (request.session, request.category, request.paths) == ("s1", "personal", [])
    assert request.data == [b"A" * 10, b"B" * 10, b"C" * 10]


def test_a_server_that_shows_its_limits_gets_one_session_with_paths_and_a_finish(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(limits=BUNDLED), category="scenic")
    for number in range(5):
        run.file(f"{number}.txt")
    run.go()
    assert [call[0] for call in run.api.calls] == ["health", "session", "batch", "finish"]
    (request,) = run.api.requests
    assert request.category == "scenic"
    assert request.paths == [f"{number}.txt" for number in range(5)]
    assert run.reported == BUNDLED
    completed = run.all(ev.FileCompleted)[0]
    assert completed.location == "/uploads/scenic/at-0.txt"
    assert (completed.server_id, completed.verified, completed.attempts) == ("id-0.txt", False, 1)


def test_a_finish_that_fails_is_a_warning(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(limits=BUNDLED, finishes=deque([refused(409)])))
    run.file()
    run.go()
    assert run.completed == [0]
    assert run.warnings == [WarningCode.FINISH_FAILED]


def test_expected_files_is_once_more_one_after_a_400(tmp_path: Path) -> None:
    one = Limits(1, 1 << 30, frozenset({"mp4"}))
    run = Run(tmp_path, FakeApi(session_limits=one, sessions=deque([refused(400, "INVALID_CATEGORY")])))
    run.file("a.mp4")
    run.file("b.mp4")
    assert run.go() is None
    assert [call for call in run.api.calls if call[0] == "session"] == [("session", 2), ("session", 1), ("session", 1)]
    assert run.completed == [0, 1]
    assert run.reported == one


def test_a_second_400_ends_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(sessions=deque([refused(400), refused(400)])))
    run.file("a.mp4")
    run.file("b.mp4")
    error = run.go()
    assert isinstance(error, errors.AnswerError)
    assert run.api.count("session") == 2
    assert (run.failed, run.untried) == ({}, [0, 1])


def test_a_session_opened_for_few_files_is_given_no_more(tmp_path: Path) -> None:
    """Opened as the assumed limits had it; the server's own would have allowed more."""
    run = Run(tmp_path, FakeApi(session_limits=Limits(10, 1 << 30, frozenset({"mp4"}))))
    for number in range(5):
        run.file(f"{number}.mp4")
    run.go()
    assert [call[1] for call in run.api.calls if call[0] == "session"] == [3, 2]
    assert [len(group) for group in run.groups] == [3, 2]


def test_assumed_limits_are_not_cached(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(session_limits=None))
    run.file()
    run.go()
    assert run.completed == [0]
    assert run.reported is None


def test_run_without_files_makes_no_call(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.go() is None
    assert run.api.calls == []


def test_files_refused_here_are_never_sent(tmp_path: Path) -> None:
    """A named one fails, one found by walking is skipped; the others are sent (protocol.md, section 3.12)."""
    run = Run(tmp_path, FakeApi(limits=replace(ASSUMED, max_file_size=100)))
    run.file("good.mp4")
    run.file("notes.txt")
    run.file("empty.mp4", 0)
    run.file("big.mp4", 101)
    run.file("named.txt", named=True)
    run.file("just.mp4", 100)
    run.go()
    assert run.groups == [["good.mp4", "just.mp4"]]
    skipped = {event.file: event.reason for event in run.all(ev.FileSkipped)}
    assert skipped == {1: SkipReason.TYPE, 2: SkipReason.EMPTY, 3: SkipReason.SIZE}
    assert run.failed == {4: FailureCode.REFUSED_TYPE}
    assert exit_of(run) == 4


def test_files_of_one_name_go_in_sessions_of_their_own(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.file("a.mp4")
    run.file("a.mp4")
    run.go()
    assert run.groups == [["a.mp4"], ["a.mp4"]]
    assert [r.session for r in run.api.requests] == ["s1", "s2"]


def test_a_file_that_is_gone_before_its_session_is_not_in_it(tmp_path: Path) -> None:
    run = Run(tmp_path)
    gone = run.file("a.mp4")
    run.file("b.mp4")
    os.unlink(gone.path)
    run.go()
    assert run.failed == {0: FailureCode.VANISHED}
    assert run.completed == [1]
    assert run.api.count("batch") == 1
    assert exit_of(run) == 4


# --- retries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [lost(body_sent=False), errors.ConnectFailed("refused"), errors.TimedOut("stalled"), fault(503)],
    ids=["lost", "refused", "stalled", "unavailable"],
)
def test_retryable_failures_are_retried_and_counted(tmp_path: Path, error: errors.UploaderError) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([error, error])))
    file = run.file()
    run.go()
    assert run.completed == [0]
    assert run.attempts(file) == 3
    assert run.all(ev.FileCompleted)[0].attempts == 3
    assert [(e.attempt, e.code) for e in run.all(ev.FileRetry)] == [(2, error.code), (3, error.code)]
    assert [e.attempt for e in run.all(ev.FileStarted)] == [1, 2, 3]
    assert run.api.count("progress") == 0, "nothing can have landed"
    assert 0.5 <= run.stop.slept[0] <= 1.0
    assert 1.0 <= run.stop.slept[1] <= 1.5


def test_retries_end_and_the_failure_can_be_tried_again(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([fault(503)] * 3)), retries=2)
    file = run.file()
    run.go()
    assert run.attempts(file) == 3
    assert run.failed == {0: FailureCode.SERVER_ERROR}
    assert exit_of(run) == 3


def test_the_servers_own_delay_is_kept(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([fault(503, retry_after=7.0)])))
    run.file()
    run.go()
    assert run.stop.slept == [7.0]
    assert [e.delay for e in run.all(ev.FileRetry)] == [7.0]


def test_a_delay_longer_than_max_wait_is_not_waited_for(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([fault(503, retry_after=86400.0)])), max_wait=60.0)
    run.file()
    run.go()
    assert run.stop.slept == []
    assert run.failed == {0: FailureCode.SERVER_ERROR}
    assert exit_of(run) == 3


def test_a_short_max_wait_forbids_no_ordinary_retry(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([lost(body_sent=False)])), max_wait=0.0)
    run.file()
    run.go()
    assert run.completed == [0]


def test_first_contact_is_tried_thrice_at_most(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(healths=deque([errors.ConnectFailed("refused")] * 9)))
    run.file()
    assert isinstance(run.go(), errors.ConnectFailed)
    assert run.api.count("health") == 3
    assert run.untried == [0]


def test_no_retries_means_none_at_first_contact_either(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(healths=deque([errors.ConnectFailed("refused")] * 9)), retries=0)
    run.file()
    run.go()
    assert run.api.count("health") == 1


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_refused_request_is_halved_until_one_file_is_left(tmp_path: Path, status: int) -> None:
    def picky(request: Request) -> Any:
        if "b.mp4" in request.names:
            raise refused(status)
        return stored(request)

    run = Run(tmp_path, FakeApi(answers=deque([picky] * 5)))
    for name in "abc":
        run.file(f"{name}.mp4")
    run.go()
    assert run.groups == [["a.mp4", "b.mp4", "c.mp4"], ["a.mp4", "b.mp4"], ["a.mp4"], ["b.mp4"], ["c.mp4"]]
    assert run.completed == [0, 2]
    assert run.failed == {1: FailureCode.SERVER_REFUSED}
    assert exit_of(run) == 4


def test_requests_are_full_again_after_one_refused_file(tmp_path: Path) -> None:
    """One bad file among 60 once made the rest travel one file per request: 61 requests."""

    def picky(request: Request) -> Any:
        if "7.txt" in request.names:
            raise refused(400)
        return stored(request)

    run = Run(tmp_path, FakeApi(limits=BUNDLED, answers=deque([picky] * 99)))
    for number in range(60):
        run.file(f"{number}.txt")
    run.go()
    assert len(run.completed) == 59
    assert run.failed == {7: FailureCode.SERVER_REFUSED}
    assert len(run.groups) <= 13
    assert len(run.groups[-1]) > 1


def test_a_408_halves_the_group_and_is_never_retried_as_it_was(tmp_path: Path) -> None:
    def slow(request: Request) -> Any:
        if len(request.names) > 1:
            raise too_slow()
        return stored(request)

    run = Run(tmp_path, FakeApi(limits=replace(BUNDLED, max_files=10), answers=deque([slow] * 20)))
    for number in range(5):
        run.file(f"{number}.mp4")
    run.go()
    assert [len(group) for group in run.groups] == [5, 2, 1, 1, 1, 1, 1]
    assert sorted(run.completed) == list(range(5))
    assert [e.code for e in run.all(ev.FileRetry)] == [FailureCode.TOO_SLOW] * 7


def test_a_file_alone_that_is_too_slow_names_the_rate_it_would_need(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([too_slow()])))
    path = tmp_path / "movie.mp4"
    with path.open("wb") as out:
        out.truncate(6_000_000)
    run.file("movie.mp4", 6_000_000)
    run.go()
    (failure,) = run.all(ev.FileFailed)
    assert failure.code is FailureCode.TOO_SLOW
    assert "6000000 bytes need 0.02 MB/s to arrive in 300 s" in failure.message
    assert not failure.retryable
    assert exit_of(run) == 4
    assert run.api.count("batch") == 1


def test_401_ends_the_run_and_every_file_is_reported(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([errors.Unauthorized("refused", status=401)])))
    for number in range(5):
        run.file(f"{number}.mp4")
    assert isinstance(run.go(), errors.Unauthorized)
    assert run.api.count("batch") == 1
    assert set(run.failed.values()) == {FailureCode.UNAUTHORIZED}
    assert exit_of(run) == 5
    assert run.all(ev.SessionFinished)[0].status == "partial"


def test_rate_limit_beyond_max_wait_exits_3(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([errors.RateLimited("429", status=429, retry_after=86400)])))
    run.file("a.mp4")
    run.file("b.avi")
    assert isinstance(run.go(), errors.RateLimited)
    assert (run.failed, run.untried) == ({0: FailureCode.RATE_LIMITED}, [1])
    assert run.stop.slept == [], "refused before any thread sleeps"
    assert exit_of(run) == 3


def test_lost_session_is_renewed_once(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([session_lost()])))
    run.file("a.mp4")
    run.file("b.mp4")
    run.go()
    assert [r.session for r in run.api.requests] == ["s1", "s2"]
    assert sorted(run.completed) == [0, 1]
    assert run.warnings == [WarningCode.SESSION_LOST]
    assert [(e.session, e.status) for e in run.all(ev.SessionFinished)] == [("s1", "lost"), ("s2", "completed")]
    assert run.api.count("progress") == 0
    assert run.stop.slept == [], "a new session needs no pause"


@pytest.mark.parametrize(
    ("error", "heard"),
    [
        pytest.param(upload_failed(), (), id="500"),
        pytest.param(upload_failed(), (FileStatus("a.mp4", "completed"),), id="500 and an event"),
        pytest.param(refused(422), (FileStatus("a.mp4", "completed"),), id="422 and an event"),
    ],
)
def test_error_after_the_whole_request_sends_no_file_a_second_time(
    tmp_path: Path, error: errors.AnswerError, heard: tuple[FileStatus, ...]
) -> None:
    """The reference backend answers 500 when it stops in the middle of a request, also before its first event."""
    run = Run(tmp_path, FakeApi(answers=deque([error])))
    run.file("a.mp4")
    run.file("b.mp4")
    run.last_heard.note(says("s1", *heard))
    run.go()
    assert [request.names for request in run.api.requests] == [["a.mp4", "b.mp4"]]
    unknown = dict.fromkeys(range(len(heard), 2), FailureCode.OUTCOME_UNKNOWN)
    assert (run.completed, run.failed) == (list(range(len(heard))), unknown)


def test_session_lost_twice_fails_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its files fail, none is sent a third time; the next session goes on."""
    monkeypatch.setattr("uploader_cli.core.plan.UNMETERED_BYTES", 64)
    run = Run(tmp_path, FakeApi(answers=deque([session_lost(), session_lost()])))
    run.file("a.mp4", 80)
    run.file("b.mp4", 80)
    run.file("c.avi")
    run.go()
    assert run.groups == [["a.mp4"], ["a.mp4"], ["c.avi"]]
    assert run.failed == {0: FailureCode.SERVER_ERROR, 1: FailureCode.SERVER_ERROR}
    assert run.completed == [2]
    assert exit_of(run) == 3


def test_server_that_stays_unreachable_ends_the_run(tmp_path: Path) -> None:
    gone = errors.ConnectFailed("no connection")
    run = Run(tmp_path, FakeApi(early=deque([gone] * 9), healths=deque([None, *[gone] * 9])), wait_for_server=1.5)
    for number in range(20):
        run.file(f"{number}.mp4")
    assert isinstance(run.go(), errors.Unreachable)
    assert run.api.count("batch") == 1
    assert run.api.count("health") == 1 + 3, "one probe at once, and one after each wait"
    assert run.stop.slept == [0.5, 1.0]
    assert run.failed == dict.fromkeys(range(3), FailureCode.NETWORK)
    assert run.untried == list(range(3, 20)), "one cause for the files that were never sent"
    assert exit_of(run) == 3


def test_disk_that_stays_full_ends_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(early=deque([fault(507)] * 99)), wait_for_server=3.0, retries=1)
    for number in range(20):
        run.file(f"{number}.mp4")
    assert isinstance(run.go(), errors.DiskFull)
    assert run.stop.slept == [1.0] * 3
    assert run.failed == dict.fromkeys(range(3), FailureCode.SERVER_ERROR)
    assert run.untried == list(range(3, 20)), "one cause for the files that were never sent"
    assert run.warnings == [WarningCode.DISK_FULL, WarningCode.RUN_ENDED]
    assert exit_of(run) == 3


def test_outage_uses_up_no_retry(tmp_path: Path) -> None:
    gone = errors.ConnectFailed("no connection")
    api = FakeApi(early=deque([gone, lost(body_sent=False), None]), healths=deque([None, gone, gone, None]))
    run = Run(tmp_path, api, retries=2)
    file = run.file()
    assert run.go() is None
    assert run.completed == [0]
    assert run.attempts(file) == 3
    assert run.stop.slept[:2] == [0.5, 1.0], "two probes failed, the third one succeeded"


def test_run_continues_after_a_short_outage(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(early=deque([errors.ConnectFailed("no")] * 2)), retries=1)
    run.file("a.mp4")
    run.file("b.avi")
    assert run.go() is None
    assert run.failed == {0: FailureCode.NETWORK}
    assert run.completed == [1]


@pytest.mark.parametrize("limits", [None, BUNDLED], ids=["sessions", "groups of one session"])
def test_fail_fast_starts_no_file_after_the_first_failure(tmp_path: Path, limits: Limits | None) -> None:
    def broken(request: Request) -> Any:
        return tuple(replace(item, status="failed", error="disk full") for item in stored(request))

    run = Run(tmp_path, FakeApi(limits=limits, answers=deque([broken])), fail_fast=True)
    for number in range(40):
        run.file(f"{number}.mp4")
    run.go()
    assert run.api.count("batch") == 1
    assert run.completed == []
    assert {e.reason for e in run.all(ev.FileSkipped)} == {SkipReason.FAIL_FAST}
    assert len(run.failed) + len(run.all(ev.FileSkipped)) == 40


def test_a_file_that_changes_while_it_is_sent_fails_and_the_others_go_again(tmp_path: Path) -> None:
    run = Run(tmp_path)
    first, changed = run.file("a.mp4", 3_000_000), run.file("b.mp4", 10)
    run.file("c.mp4")

    class Meddling(FakeApi):
        def batch(self, session: str, body: Any, files: int) -> Any:
            os.utime(changed.path, ns=(0, 0))
            return super().batch(session, body, files)

    run.api = Meddling()
    run.go()
    assert run.failed == {1: FailureCode.CHANGED}
    assert sorted(run.completed) == [0, 2]
    assert run.groups == [["a.mp4", "c.mp4"]]
    assert run.attempts(first) == 2


def test_body_of_a_failed_request_is_closed(tmp_path: Path) -> None:
    bodies: list[Any] = []

    class Breaking(FakeApi):
        def batch(self, session: str, body: Any, files: int) -> Any:
            bodies.append(body)
            body.read(10)
            return super().batch(session, body, files)

    run = Run(tmp_path, Breaking(early=deque([fault(503)] * 9)), retries=1)
    run.file("a.mp4", 3_000_000)
    run.go()
    assert [bytes(body.read(10)) for body in bodies] == [b"", b""]


# --- what the answer says --------------------------------------------------------------------------------------------


def test_a_failure_inside_a_200_is_that_files_failure(tmp_path: Path) -> None:
    def answer(request: Request) -> Any:
        good, bad = stored(request)
        return good, replace(bad, status="failed", error="ENAMETOOLONG: name too long")

    run = Run(tmp_path, FakeApi(answers=deque([answer])))
    run.file("good.mp4")
    run.file("nnn.mp4")
    run.go()
    assert run.completed == [0]
    (failure,) = run.all(ev.FileFailed)
    assert (failure.file, failure.code, failure.retryable) == (1, FailureCode.SERVER_FAILED, False)
    assert "ENAMETOOLONG" in failure.message
    assert run.all(ev.SessionFinished)[0].status == "partial"
    assert exit_of(run) == 4


def test_another_size_than_was_sent_is_a_matter_of_integrity(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([lambda r: tuple(replace(i, size=9) for i in stored(r))])))
    run.file()
    run.go()
    assert run.failed == {0: FailureCode.INTEGRITY}
    assert exit_of(run) == 7


def test_answers_are_matched_by_name_in_any_order(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([lambda r: stored(r)[::-1]])))
    run.file("a.mp4")
    run.file('say "b".mp4')
    run.go()
    assert {e.file: e.server_id for e in run.all(ev.FileCompleted)} == {0: "id-a.mp4", 1: 'id-say "b".mp4'}


def test_names_that_come_back_otherwise_are_matched_by_their_order(tmp_path: Path) -> None:
    def mangled(request: Request) -> Any:
        first, second, third = stored(request)
        return second, replace(first, name="æ.mp4"), replace(third, name="?.mp4")

    run = Run(tmp_path, FakeApi(answers=deque([mangled])))
    for name in ("é.mp4", "plain.mp4", "喂.mp4"):
        run.file(name)
    run.go()
    assert {e.file: e.server_id for e in run.all(ev.FileCompleted)} == {
        0: "id-é.mp4",
        1: "id-plain.mp4",
        2: "id-喂.mp4",
    }


def test_a_file_that_the_answer_leaves_out_has_failed(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([lambda r: stored(r)[:1]])))
    run.file("a.mp4")
    run.file("b.mp4")
    run.go()
    assert run.completed == [0]
    assert run.failed == {1: FailureCode.PROTOCOL}


# --- answers that were lost ------------------------------------------------------------------------------------------


def of_another_kind(_request: Request) -> None:
    """An answer without a list of files."""


LOST_AFTER = [
    lost(body_sent=True),
    errors.TimedOut("no answer", body_sent=True),
    fault(502),
    errors.ProtocolError("the answer is too large"),
    of_another_kind,
]
LOST_IDS = ["connection lost", "timed out", "bad gateway", "too large", "without a list of files"]


@pytest.mark.parametrize("answer", LOST_AFTER, ids=LOST_IDS)
def test_received_events_settle_a_lost_answer(tmp_path: Path, answer: Any) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([answer])))
    run.file("a.mp4")
    run.file("b.mp4")
    run.last_heard.note(
        says("s1", FileStatus("a.mp4", "completed", server_id="id-1"), FileStatus("b.mp4", "failed", error="full"))
    )
    run.go()
    assert run.completed == [0]
    assert run.all(ev.FileCompleted)[0].server_id == "id-1"
    assert run.failed == {1: FailureCode.SERVER_FAILED}
    assert "full" in run.all(ev.FileFailed)[0].message
    assert run.api.count("batch") == 1
    assert run.api.count("progress") == 0


@pytest.mark.parametrize("answer", LOST_AFTER, ids=LOST_IDS)
def test_unsettled_file_is_unknown_and_not_resent(tmp_path: Path, answer: Any) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([answer])))
    run.file()
    run.go()
    assert run.failed == {0: FailureCode.OUTCOME_UNKNOWN}
    assert not run.all(ev.FileFailed)[0].retryable
    assert run.api.count("batch") == 1
    assert run.api.count("progress") == 5, "five looks without news are enough"
    assert exit_of(run) == 4


def test_progress_is_polled_until_it_settles_the_file(tmp_path: Path) -> None:
    at_work = says("s1", FileStatus("a.mp4", "uploading", 40.0))
    done = says("s1", FileStatus("a.mp4", "completed", 100.0, "id-9"))
    run = Run(tmp_path, FakeApi(answers=deque([lost(body_sent=True)]), looks=deque([None, *[at_work] * 7, done])))
    run.file()
    run.go()
    assert run.completed == [0]
    assert run.api.count("progress") == 9
    assert run.stop.slept == [1.0] * 9


def test_lookups_slow_down_within_the_session_retention(tmp_path: Path) -> None:
    """The reference backend forgets a session five seconds after its end (protocol.md, section 3.6)."""
    run = Run(tmp_path, FakeApi(answers=deque([lost(body_sent=True)])))
    run.api.budget.note({"X-RateLimit-Remaining": "4", "X-RateLimit-Reset": "800"})
    run.file()
    run.go()
    assert run.stop.slept == [4.0] * 5


def test_rate_limit_beyond_max_wait_ends_the_lookup(tmp_path: Path) -> None:
    run = Run(
        tmp_path,
        FakeApi(answers=deque([lost(body_sent=True)]), looks=deque([errors.RateLimited("429", status=429)])),
    )
    run.file()
    run.go()
    assert run.failed == {0: FailureCode.OUTCOME_UNKNOWN}
    assert run.api.count("progress") == 1


def test_failed_lookups_leave_the_file_unknown(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([lost(body_sent=True)]), looks=deque([lost(body_sent=True)] * 5)))
    run.file()
    run.go()
    assert run.failed == {0: FailureCode.OUTCOME_UNKNOWN}


def test_wait_for_endless_processing_is_limited(tmp_path: Path) -> None:
    at_work = says("s1", FileStatus("a.mp4", "uploading", 40.0))
    run = Run(tmp_path, FakeApi(answers=deque([lost(body_sent=True)]), looks=deque([at_work] * 1000)))
    run.file()
    run.go()
    assert run.failed == {0: FailureCode.OUTCOME_UNKNOWN}
    assert run.api.count("progress") == 300


def test_resend_unknown_resends_the_file(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([lost(body_sent=True)])), resend_unknown=True)
    file = run.file()
    run.go()
    assert run.completed == [0]
    assert run.attempts(file) == 2


def test_only_unsettled_files_are_resent(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([lost(body_sent=True)])), resend_unknown=True)
    run.file("a.mp4")
    run.file("b.mp4")
    run.last_heard.note(says("s1", FileStatus("a.mp4", "completed")))
    run.go()
    assert run.groups == [["a.mp4", "b.mp4"], ["b.mp4"]]
    assert sorted(run.completed) == [0, 1]


def test_a_503_means_that_nothing_was_done(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([fault(503)])))
    run.file()
    run.go()
    assert run.completed == [0]
    assert run.api.count("progress") == 0


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_stored_file_with_equal_digest_is_completed_and_verified(tmp_path: Path) -> None:
    """On a server that keeps our paths and gives digests nothing is left unknown (protocol.md, section 1)."""
    api = FakeApi(
        limits=BUNDLED,
        answers=deque([lost(body_sent=True)]),
        heads=deque([(10, digest(b"A" * 10)), (10, digest(b"x"))]),
    )
    run = Run(tmp_path, api)
    run.file("a.mp4")
    run.file("b.mp4")
    run.go()
    assert run.groups == [["a.mp4", "b.mp4"], ["b.mp4"]]
    first = next(e for e in run.all(ev.FileCompleted) if e.file == 0)
    assert (first.verified, first.verified_by) == (True, ev.VerifiedBy.DIGEST)
    assert first.checksum == f"sha256:{hashlib.sha256(b'A' * 10).hexdigest()}"
    assert first.location == "/uploads/personal/a.mp4"
    assert sorted(run.completed) == [0, 1]
    assert run.stop.slept[0] == 1.0
    assert len(run.stop.slept) == 2, "one pause for the whole group, one before the retry"


@pytest.mark.parametrize(
    "found",
    [None, (9, digest(b"A" * 10)), (10, None), (None, None), (10, digest(b"B")), lost(body_sent=True)],
    ids=["absent", "other size", "no digest", "neither", "other bytes", "no answer"],
)
def test_file_without_an_equal_digest_is_resent(tmp_path: Path, found: Any) -> None:
    """Such a server never stores the same bytes twice under one path."""
    run = Run(tmp_path, FakeApi(limits=BUNDLED, answers=deque([lost(body_sent=True)]), heads=deque([found])))
    run.file("a.mp4")
    run.go()
    assert run.groups == [["a.mp4"]] * 2
    assert run.completed == [0]
    assert not run.all(ev.FileCompleted)[0].verified


def test_a_file_that_changed_since_proves_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(limits=BUNDLED))
    file = run.file("a.mp4")

    def answer(_request: Request) -> Any:
        os.utime(file.path, ns=(0, 0))
        raise lost(body_sent=True)

    run.api.answers.append(answer)
    run.api.heads.append((10, digest(b"A" * 10)))
    run.go()
    assert run.failed == {0: FailureCode.CHANGED}


# --- interrupts ------------------------------------------------------------------------------------------------------


def interrupted_in(run: Run, answer: Any) -> None:
    run.api.answers.append(answer)
    run.file("a.mp4")
    run.file("b.avi")
    assert run.go() is None
    assert run.all(ev.FilesCancelled)[0].files == (0, 1)
    assert run.completed == []


def test_interrupt_while_the_body_travels(tmp_path: Path) -> None:
    """Nothing is stored then (protocol.md, section 3.9), and nothing else is claimed."""
    run = Run(tmp_path)

    class Stopping(FakeApi):
        def batch(self, session: str, body: Any, files: int) -> Any:
            run.stop.set()
            return super().batch(session, body, files)

    run.api = Stopping()
    interrupted_in(run, None)
    assert run.warnings == []
    assert run.all(ev.SessionFinished)[0].status == "cancelled"
    assert run.api.count("batch") == 1
    assert run.api.count("cancel") == 0


def test_interrupt_during_processing_reports_an_unknown_outcome(tmp_path: Path) -> None:
    """The connection is cut to end the wait: no look, no retry, and no claim."""
    run = Run(tmp_path)

    def cut(_request: Request) -> Any:
        run.stop.set()
        raise lost(body_sent=True)

    interrupted_in(run, cut)
    assert run.warnings == [WarningCode.MAY_BE_STORED]
    assert run.api.count("progress") == 0


def test_interrupt_during_a_lookup_reports_an_unknown_outcome(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.stop = FakeStop(at=2)
    interrupted_in(run, lost(body_sent=True))
    assert run.warnings == [WarningCode.MAY_BE_STORED]


@pytest.mark.parametrize("error", [fault(503), lost(body_sent=False)], ids=["refused whole", "lost in the middle"])
def test_interrupt_before_a_retry_claims_nothing(tmp_path: Path, error: errors.UploaderError) -> None:
    run = Run(tmp_path)
    run.stop = FakeStop(at=1)
    interrupted_in(run, error)
    assert run.warnings == []


def test_interrupt_before_anything_was_asked(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(healths=deque([errors.ConnectFailed("no")])))
    run.stop = FakeStop(at=1)
    run.file()
    assert run.go() is None
    assert run.all(ev.FilesCancelled)[0].files == (0,)
    assert run.api.count("session") == 0


def test_interrupt_between_sessions_keeps_what_is_done(tmp_path: Path) -> None:
    run = Run(tmp_path)

    def last(request: Request) -> Any:
        run.stop.set()
        return stored(request)

    run.api.answers.append(last)
    run.file("a.mp4")
    run.file("b.avi")
    assert run.go() is None
    assert run.completed == [0]
    assert run.all(ev.FilesCancelled)[0].files == (1,)
    assert run.warnings == []


def test_cancel_on_interrupt_cancels_the_session(tmp_path: Path) -> None:
    run = Run(tmp_path, cancel_on_interrupt=True)

    def cut(_request: Request) -> Any:
        run.stop.set()
        raise lost(body_sent=True)

    interrupted_in(run, cut)
    assert ("cancel", "s1") in run.api.calls


def test_a_cancel_that_fails_is_a_warning(tmp_path: Path) -> None:
    run = Run(tmp_path, cancel_on_interrupt=True)

    class Deaf(FakeApi):
        def cancel(self, session: str) -> dict[str, Any]:
            raise lost(body_sent=True)

    def cut(_request: Request) -> Any:
        run.stop.set()
        raise lost(body_sent=False)

    run.api = Deaf()
    interrupted_in(run, cut)
    assert run.warnings[-1] == WarningCode.CANCEL_FAILED


def test_batch_that_waits_for_another_body_begins_after_the_pause(tmp_path: Path) -> None:
    """The user pauses while the first body is sent."""
    held: list[bool] = []

    class Paused(FakeApi):
        def batch(self, session: str, body: Body, files: int) -> tuple[StoredFile, ...]:
            held.append(self.pacer.held)
            while len(run.all(ev.FileStarted)) < 2:
                time.sleep(0.001)
            self.pacer.held = len(held) == 1
            return super().batch(session, body, files)

    class Resuming(FakeStop):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            run.api.pacer.held = False

    run = Run(tmp_path, Paused(), jobs=2)
    run.stop = Resuming(run.clock)
    run.file("a.mp4")
    run.file("b.avi")
    run.go()
    assert sorted(run.completed) == [0, 1]
    assert held == [False, False]


# --- sizes of requests -----------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_requests_are_cut_by_the_rate_that_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first measurement 1 MB/s is assumed: 150 MB in a request (protocol.md, section 3.10)."""
    run = Run(tmp_path, FakeApi(session_limits=ASSUMED))
    run.api.budget.note({"X-RateLimit-Remaining": "90"})
    for number in range(3):
        run.file(f"{number}.mp4", 9_000_000)
    monkeypatch.setattr("uploader_cli.transfer.bodies.Body.seconds", property(lambda _self: 1.0))
    monkeypatch.setattr("uploader_cli.core.plan.REQUEST_SECONDS", 10.0)
    run.go()
    assert [len(group) for group in run.groups] == [1, 2]
