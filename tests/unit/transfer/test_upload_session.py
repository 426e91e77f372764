"""One thread renews a lost session, and blocks no other thread."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from time_limits import PATIENCE
from unit.transfer.transfer_fakes import BUNDLED, Followers

from uploader_cli import errors
from uploader_cli.core.protocol import Session
from uploader_cli.core.terms import Terms
from uploader_cli.settings import Settings
from uploader_cli.transfer.pacer import Stop
from uploader_cli.transfer.targets import target_of
from uploader_cli.transfer.upload_session import UploadSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Slow:
    """A server whose answer to a session call comes when `answer` is set; `error` comes in its place."""

    def __init__(self) -> None:
        self.called, self.answer = threading.Event(), threading.Event()
        self.calls, self.error, self.finished = 0, None, list[str]()

    def create_session(self, category: str, _expected: int, _size: int | None, **_how: object) -> Session:
        self.calls += 1
        self.called.set()
        assert self.answer.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return Session("second", category, None)

    def finish(self, session: str, *_given_up: int, **_how: object) -> None:
        self.finished.append(session)


@pytest.fixture
def api() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.answer.set()


def a_session(stop: Stop | None = None) -> UploadSession:
    kept = SimpleNamespace(session_opened=lambda *_known: None, session_closed=lambda _id, **_how: None)
    context: Any = SimpleNamespace(
        settings=SimpleNamespace(category="personal", retries=5),
        emit=lambda _event: None,
        warn=lambda _code, _text: None,
        followers=Followers(),
        stop=Stop() if stop is None else stop,
        run=kept,
        sessions=set(),
        terms=Terms(limits=BUNDLED),
        target=target_of(Settings()),
    )
    session = UploadSession(context, Session("first", "personal", None), 3)
    session.begin()
    return session


def in_thread(call: Callable[[], object], answers: list[object]) -> threading.Thread:
    def run() -> None:
        try:
            answers.append(call())
        except errors.UploaderError as error:
            answers.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_renewal_creates_one_session_and_holds_no_lock_during_the_call(api: Any) -> None:
    """Files of other workers end while the server is slow to answer."""
    session, answers = a_session(), list[object]()
    threads = [in_thread(lambda: session.renew(api, "first"), answers) for _ in range(3)]
    assert api.called.wait(PATIENCE)
    ended = in_thread(lambda: session.over(api, 1, failed=0), [])
    ended.join(PATIENCE)
    assert not ended.is_alive()
    assert answers == []
    api.answer.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == [True, True, True]
    assert (session.id, api.calls) == ("second", 1)
    assert session.renew(api, "first"), "renewed already"


def test_interrupt_ends_the_wait_for_anothers_renewal(api: Any) -> None:
    stop, answers = Stop(), list[object]()
    session = a_session(stop)
    leader = in_thread(lambda: session.renew(api, "first"), [])
    assert api.called.wait(PATIENCE)
    follower = in_thread(lambda: session.renew(api, "first"), answers)
    stop.set()
    follower.join(PATIENCE)
    assert [type(answer) for answer in answers] == [errors.Interrupted]
    api.answer.set()
    leader.join(PATIENCE)


def test_session_that_is_lost_twice_is_not_renewed(api: Any) -> None:
    session = a_session()
    api.answer.set()
    assert session.renew(api, "first")
    assert not session.renew(api, "second")
    assert api.calls == 1


@pytest.mark.parametrize(("left", "finished"), [(True, []), (False, ["first"])])
def test_session_that_was_left_is_not_finished_by_a_late_outcome(api: Any, left: bool, finished: list[str]) -> None:
    """A resumed run continues it."""
    session = a_session()
    session.over(api, 2)
    if left:
        session.abandon("cancelled")
    session.over(api, 1)
    assert api.finished == finished
