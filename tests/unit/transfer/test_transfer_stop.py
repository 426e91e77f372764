"""Stopping and trying again: what waits ends at once, and what can't pass is not repeated."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from patience import PATIENCE
from transfer_fakes import FakeStop, fault, lost, refused, session_lost, too_slow

from uploader_cli import errors
from uploader_cli.settings import Settings
from uploader_cli.transfer.retrying import retrying
from uploader_cli.transfer.stop import Stop


def test_a_stop_is_told_to_whoever_asks() -> None:
    stop = Stop()
    assert not stop
    stop.check()
    stop.sleep(0)
    stop.set()
    stop.set()
    assert stop
    with pytest.raises(errors.Interrupted):
        stop.check()
    with pytest.raises(errors.Interrupted):
        stop.sleep(0)


def test_a_sleep_may_be_longer_than_any_timer() -> None:
    """A server may ask for 99999999999 seconds by Retry-After."""
    stop = Stop()
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(errors.Interrupted):
        stop.sleep(99_999_999_999.0)


def test_a_stop_ends_a_sleep_from_another_thread() -> None:
    stop = Stop()
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    before = time.monotonic()
    with pytest.raises(errors.Interrupted):
        stop.sleep(10 * PATIENCE)
    assert time.monotonic() - before < PATIENCE
    timer.join()


def attempts(error: BaseException, **settings: Any) -> int:
    """How often a call that always fails is made; the error comes out as it is."""
    calls = []

    def call() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)) as caught:
        retrying(Settings(server="http://server.test", **settings), FakeStop())(call)
    assert caught.value is error
    return len(calls)


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (fault(500), 4),
        (lost(body_sent=False), 4),
        (errors.ConnectFailed("refused"), 4),
        (errors.TimedOut("late"), 4),
        (refused(400), 1),
        (errors.Unauthorized("no", status=401), 1),
        (errors.NotFound("no", status=404), 1),
        (too_slow(), 1),
        (session_lost(), 1),
        (errors.RateLimited("later", status=429), 1),
        (errors.NotAnUploadServer("no"), 1),
        (errors.Interrupted("stop"), 1),
        (ValueError("a bug"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_retries_go_by_the_class_of_the_error(error: BaseException, times: int) -> None:
    assert attempts(error, retries=3) == times


def test_no_retries_is_one_attempt() -> None:
    assert attempts(fault(500), retries=0) == 1
