"""What the next run finds: several runs of the scheduler on one journal, with a fake server and clock."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from unit.transfer.transfer_fakes import BUNDLED, FakeApi, FakeStop, Request, Run, lost, refused, stored
from unit.transfer.tus_model import ENDPOINT, TUS, Model

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.capabilities import Capabilities
from uploader_cli.core.events import FailureCode, FileStatus, SessionProgress, SkipReason, Transport, WarningCode
from uploader_cli.core.packs import FoundFile
from uploader_cli.transfer.answers import Answer
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.tus_state import Tus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_cli.core.plan import Limits, LocalFile

OFFER = Capabilities(
    ENDPOINT,
    extensions=frozenset({"creation", "termination", "checksum", "concatenation"}),
    checksum_algorithms=frozenset({"sha256"}),
)


class Portal(Model):
    """The model, with answers that are not of a tus server at all."""

    ANSWERS: dict[str, tuple[int, dict[str, str]]] = {  # noqa: RUF012
        "portal": (200, {"Content-Type": "text/html"}),
        "redirect": (302, {"Location": "https://login.example/"}),
        "redeploy": (404, {"Content-Type": "text/html"}),
        "session": (404, dict(TUS)),
    }

    def respond(self, method: str, url: str, body: Any, headers: Any) -> Answer:
        word = self.words[0] if self.words else ""
        if word == "untrusted":
            self.words.popleft()
            error = errors.ConnectFailed("no secure connection: the certificate is not trusted")
            error.retryable = False
            raise error
        if word in self.ANSWERS:
            self.words.popleft()
            self.calls.append((method, url, dict(headers), 0))
            status, answered = self.ANSWERS[word]
            return Answer(status, answered, {"error": "SESSION_NOT_FOUND"} if word == "session" else None, url)
        return super().respond(method, url, body, headers)


class TusRun(Run):
    """Runs of the scheduler against the tus model; each `again` is a new run of the same command."""

    def __init__(self, directory: Path, words: str = "", **settings: Any) -> None:
        super().__init__(directory, None, **{"chunk_size": 10, "jobs": 1, **settings})
        self.model = Portal(words.split())
        self.api = self._api()

    def _api(self) -> FakeApi:
        return FakeApi(tus=OFFER, limits=BUNDLED, model=self.model, budget=self.api.budget)

    def again(self, words: str = "") -> errors.UploaderError | None:
        self.events.clear()
        self.followers.told.clear()
        self.model.words, self.model.calls = deque(words.split()), []
        self.api, self.stop = self._api(), FakeStop(self.clock)
        return self.go()

    def sent(self) -> int:
        """Bytes of file data in all requests of this run."""
        return sum(size for *_, size in self.model.calls)


def test_401_in_the_middle_keeps_every_partial_upload(tmp_path: Path) -> None:
    run = TusRun(tmp_path, "ok ok ok 401")
    run.file("a.mp4", 40)
    run.file("b.mp4", 40)
    assert isinstance(run.go(), errors.Unauthorized)
    assert (run.failed, run.untried) == ({0: FailureCode.UNAUTHORIZED}, [1])
    assert run.again() is None
    assert sorted(run.completed) == [0, 1]
    assert run.sent() == 80 - 20, "the first 20 bytes are on the server"


@pytest.mark.parametrize("word", ["401", "403", "portal", "redirect", "redeploy", "untrusted", "500"])
def test_resume_that_meets_another_answer_keeps_the_upload(tmp_path: Path, word: str) -> None:
    run = TusRun(tmp_path, "ok ok ok reset reset", retries=0)
    run.file("a.mp4", 40)
    run.go()
    run.again(" ".join([word] * 9))
    assert run.failed
    assert run.again() is None
    assert run.completed == [0]
    assert run.sent() == 40 - 20


def test_session_that_is_lost_twice_is_a_retryable_failure(tmp_path: Path) -> None:
    run = TusRun(tmp_path, "session session")
    run.file("a.mp4", 40)
    run.go()
    assert [(event.code, event.retryable) for event in run.all(ev.FileFailed)] == [(FailureCode.SERVER_ERROR, True)]
    assert run.model.methods == "POST POST"


def test_head_without_tus_header_does_not_restart_an_upload(tmp_path: Path) -> None:
    """A 404 of a proxy during a redeploy does not end the upload; one of the tus server does."""
    run = TusRun(tmp_path, "ok ok ok reset redeploy redeploy ok ok ok", retries=5)
    run.file("a.mp4", 40)
    assert run.go() is None
    assert run.completed == [0]
    assert run.model.methods.count("POST") == 1


@pytest.mark.parametrize("status", ["413", "415"])
def test_permanent_refusal_of_a_file_forgets_it(tmp_path: Path, status: str) -> None:
    run = TusRun(tmp_path, "ok", retries=0)
    run.file("a.mp4", 5)
    run.model.ANSWERS = {**Portal.ANSWERS, "415": (415, dict(TUS))}
    run.model.words = deque(["ok", *[status] * 9])
    run.go()
    assert run.failed
    with Journal(run.settings.state_path) as journal:
        assert [info.open_files for info in journal.runs()] == [0]


def touch(path: str) -> None:
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize(("change", "code"), [(touch, FailureCode.CHANGED), (os.unlink, FailureCode.VANISHED)])
def test_changed_file_does_not_resend_the_others(
    tmp_path: Path, change: Callable[[str], None], code: FailureCode
) -> None:
    run = Run(tmp_path)
    changed = run.file("a.mp4")
    run.file("b.mp4")

    class Meddling(FakeApi):
        def batch(self, session: str, body: Any, files: int) -> Any:
            if os.path.exists(changed.path):
                change(changed.path)
            return super().batch(session, body, files)

    run.api = Meddling()
    run.go()
    assert run.failed == {0: code}
    assert [event.code for event in run.all(ev.FileRetry)] == [FailureCode.NETWORK], "not the code of the other file"
    second = again(run)
    assert second.groups == []
    assert {event.file: event.reason for event in second.all(ev.FileSkipped)} == {1: SkipReason.PRESENT}


def again(run: Run, api: FakeApi | None = None, **settings: Any) -> Run:
    """Run the same command once more, in a new process as it were."""
    later = Run(run.directory, api, **settings)
    later.settings = later.settings if settings else run.settings
    later.files = run.files
    later.go()
    return later


# --- outcome unknown (docs/protocol.md, section 3.15) ----------------------------------------------------------------


def test_unknown_outcome_is_not_resent_by_a_resume(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(answers=deque([lost(body_sent=True)])))
    run.file()
    run.go()
    assert run.failed == {0: FailureCode.OUTCOME_UNKNOWN}
    later = again(run)
    assert later.failed == {0: FailureCode.OUTCOME_UNKNOWN}
    assert later.api.count("batch") == 0
    last = again(run, resend_unknown=True)
    assert last.completed == [0]


def test_killed_while_the_server_works_is_unknown_afterwards(tmp_path: Path) -> None:
    class Killed(BaseException):
        """The process is gone: nothing of ours runs any more."""

    def kill(_request: Request) -> Any:
        raise Killed

    run = Run(tmp_path, FakeApi(answers=deque([kill])))
    run.file()
    with pytest.raises(Killed):
        run.go()
    later = again(run)
    assert later.failed == {0: FailureCode.OUTCOME_UNKNOWN}
    assert later.api.count("batch") == 0


def test_unknown_outcome_is_looked_up_where_the_server_can_be_asked(tmp_path: Path) -> None:
    run = Run(tmp_path, FakeApi(limits=BUNDLED, answers=deque([lost(body_sent=True)])))
    run.stop = FakeStop(run.clock, at=1)  # interrupted before it could look
    run.file("a.mp4")
    run.go()
    assert run.warnings == [WarningCode.MAY_BE_STORED]
    later = again(run, FakeApi(limits=BUNDLED, heads=deque([equal(b"A" * 10)])))
    assert later.groups == []
    assert [event.reason for event in later.all(ev.FileSkipped)] == [SkipReason.PRESENT]


def test_refused_request_is_not_an_unknown_outcome(tmp_path: Path) -> None:
    """A refused request, or one that never left, may be repeated."""
    of_another = SessionProgress("s1", Transport.HTTP, 50.0, "completed", files=(FileStatus("z.mp4", "completed"),))
    run = Run(tmp_path, FakeApi(answers=deque([refused(422)]), looks=deque([of_another])))
    run.file()
    run.go()
    assert run.failed == {0: FailureCode.SERVER_REFUSED}
    assert run.api.count("progress") == 1, "the session is asked once whether it has the files all the same"
    assert again(run).completed == [0]


@pytest.mark.parametrize("end", ["rate limit", "unreachable"])
def test_file_settled_before_the_run_ends_keeps_its_receipt(tmp_path: Path, end: str) -> None:
    """Of a request whose answer was lost one file is stored; the retry of the other one ends the run."""
    gone = errors.ConnectFailed("no connection")
    limited = errors.RateLimited("429", status=429, retry_after=86400)
    api = FakeApi(answers=deque([lost(body_sent=True), limited]))
    if end == "unreachable":
        api = FakeApi(answers=deque([lost(body_sent=True)]), early=deque([None, gone]))
        api.healths = deque([None, *[gone] * 9])
    run = Run(tmp_path, api, resend_unknown=True, retries=1, wait_for_server=1.0)
    run.file("a.mp4")
    run.file("b.mp4")
    status = FileStatus("a.mp4", "completed", server_id="id-1")
    run.last_heard.note(SessionProgress("s1", Transport.HTTP, None, "uploading", files=(status,)))
    assert run.go() is not None
    assert run.completed == [0]
    assert list(run.failed) == [1]
    assert again(run).groups == [["b.mp4"]]


# --- verification ----------------------------------------------------------------------------------------------------


class Readable(FakeApi):
    """A server whose stored files can be asked for; `digests` are played for each question."""

    digests: deque[Any]

    def _stored(self, where: str) -> Any:
        self.calls.append(("stored", where))
        answer = self.digests.popleft()
        if isinstance(answer, BaseException):
            raise answer
        return FoundFile(answer[0], answer[1], None)

    def read_back(self, where: str, take: Any) -> bool:
        del where, take
        return False


def readable(*digests: Any, limits: Limits | None = None) -> Readable:
    api = Readable(limits=limits)
    api.digests = deque(digests)
    return api


def equal(data: bytes) -> tuple[int, str]:
    return len(data), hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "trouble", [lost(body_sent=False), errors.ServerFault("503", status=503)], ids=["reset", "503"]
)
def test_verification_read_is_retried(tmp_path: Path, trouble: Exception) -> None:
    run = Run(tmp_path, readable(trouble, equal(b"A" * 10)), verify=True)
    run.file()
    run.go()
    assert run.completed == [0]
    assert run.all(ev.FileCompleted)[0].verified
    assert run.warnings == []


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (lost(body_sent=False), FailureCode.NETWORK),
        (errors.Unauthorized("401", status=401), FailureCode.UNAUTHORIZED),
    ],
    ids=["reset", "401"],
)
def test_verification_that_can_not_be_done_is_a_retryable_failure(
    tmp_path: Path, trouble: Exception, code: FailureCode
) -> None:
    run = Run(tmp_path, readable(*[trouble] * 9), verify=True, retries=1)
    run.file()
    run.go()
    (failure,) = run.all(ev.FileFailed)
    assert (failure.code, failure.retryable) == (code, True)
    later = again(run, readable(*[equal(b"A" * 10)] * 2))
    assert later.groups == [], "the receipt was written before the verification"
    assert [event.reason for event in later.all(ev.FileSkipped)] == [SkipReason.PRESENT]


def test_file_that_changes_before_its_verification_ends_alone(tmp_path: Path) -> None:
    run = Run(tmp_path, verify=True)
    first = run.file("a.mp4")
    run.file("b.mp4")

    def change(request: Request) -> Any:
        with open(first.path, "ab") as grown:
            grown.write(b"more")
        return stored(request)

    run.api = readable(equal(b"A" * 10), equal(b"B" * 10))
    run.api.answers.append(change)
    run.go()
    assert run.failed == {0: FailureCode.CHANGED}
    assert run.completed == [1]
    assert run.api.count("batch") == 1


def test_killed_during_verification_is_not_sent_again(tmp_path: Path) -> None:
    class Killed(BaseException):
        """The process is gone."""

    run = Run(tmp_path, readable(Killed()), verify=True)
    run.file()
    with pytest.raises(Killed):
        run.go()
    later = again(run, readable(*[equal(b"A" * 10)] * 2))
    assert later.groups == []
    assert later.api.count("stored") == 2, "asked for, then verified"


# --- prechecks, pauses, parts ----------------------------------------------------------------------------------------


STALLED = errors.TimedOut("no answer within 60 s", body_sent=True)


@pytest.mark.parametrize("trouble", [lost(body_sent=True), STALLED], ids=["dropped", "stalled"])
def test_one_failed_head_does_not_end_a_skip_existing_run(tmp_path: Path, trouble: errors.UploaderError) -> None:
    heads = deque([trouble, equal(b"A" * 10), None])
    run = Run(tmp_path, FakeApi(limits=BUNDLED, heads=heads), skip_existing=True)
    run.file("a.mp4")
    run.file("b.mp4")
    assert run.go() is None
    assert [event.file for event in run.all(ev.FileSkipped)] == [0]
    assert run.completed == [1]


def test_head_that_always_fails_sends_the_file(tmp_path: Path) -> None:
    """Such a server does not store equal bytes twice."""
    run = Run(tmp_path, FakeApi(limits=BUNDLED, heads=deque([STALLED] * 2)), skip_existing=True, retries=1)
    run.file("a.mp4")
    run.file("b.mp4")
    assert run.go() is None
    assert sorted(run.completed) == [0, 1]


def test_interrupt_while_a_rate_limit_is_waited_for_claims_nothing(tmp_path: Path) -> None:
    limited = errors.RateLimited("429", status=429, retry_after=30)
    run = Run(tmp_path, FakeApi(answers=deque([lambda _request: (_ for _ in ()).throw(limited)])))
    run.stop = FakeStop(run.clock, at=1)
    run.file()
    run.go()
    assert run.warnings == [WarningCode.RATE_LIMITED]
    assert run.all(ev.FilesCancelled)[0].files == (0,)


def test_file_in_parts_that_is_complete_starts_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the last part and the answer to the join: the next run begins where the server is."""
    monkeypatch.setattr(Tus, "parts", lambda _tus, _size, idle, _spare, _round_trip: 1 + idle)
    run = TusRun(tmp_path, jobs=2, retries=0)
    file: LocalFile = run.file("a.mp4", 40)
    words = {"final;": "lost"}

    def lose_the_join(method: str, url: str, body: Any, headers: Any) -> Answer:
        if headers.get("Upload-Concat", "").startswith("final;") and words:
            run.model.words.appendleft(words.popitem()[1])
        return Portal.respond(run.model, method, url, body, headers)

    run.model.respond = lose_the_join  # type: ignore[method-assign]
    run.go()
    assert run.failed == {0: FailureCode.NETWORK}
    assert run.again() is None
    assert run.completed == [0]
    assert [event.offset for event in run.all(ev.FileStarted)] == [file.size]
    assert run.sent() == 0
