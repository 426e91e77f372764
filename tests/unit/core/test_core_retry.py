"""How long to wait and whether to: as values, without a wait."""

from __future__ import annotations

import pytest
from tenacity import Future, RetryCallState, Retrying

from uploader_cli import errors
from uploader_cli.core.retry import MAX_DELAY, wait_as_told, worth_retrying


def after(attempt: int, error: BaseException | None) -> RetryCallState:
    """The state of a call whose `attempt` ended with `error`."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    if error is not None:
        state.outcome = Future.construct(attempt, error, has_exception=True)
    return state


def limited(seconds: float | None) -> errors.RateLimited:
    return errors.RateLimited("slow down", status=429, retry_after=seconds)


@pytest.mark.parametrize("seconds", [0.0, 3.0, 886.0])
def test_retry_after_decides_the_delay(seconds: float) -> None:
    """Also 0, and also more than any backoff of ours."""
    assert wait_as_told()(after(1, limited(seconds))) == seconds


@pytest.mark.parametrize("error", [limited(None), errors.ConnectionLost("lost"), OSError("x"), None])
@pytest.mark.parametrize(
    ("attempt", "least"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (7, MAX_DELAY), (99, MAX_DELAY)]
)
def test_delays_without_retry_after_double_up_to_a_limit(
    error: BaseException | None, attempt: int, least: float
) -> None:
    delays = [wait_as_told()(after(attempt, error)) for _ in range(50)]
    assert all(least <= delay <= least + 0.5 for delay in delays)


def test_retry_delays_are_jittered() -> None:
    for attempt in (1, 3, 99):
        assert len({wait_as_told()(after(attempt, None)) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    ("error", "worth"),
    [
        (errors.ConnectFailed("x"), True),
        (errors.ConnectionLost("x", body_sent=True), True),
        (errors.TimedOut("x"), True),
        (errors.ServerFault("x", status=500), True),
        (errors.ServerFault("x", status=503), True),
        (limited(None), True),
        (errors.TooSlow("x", status=408), True),
        (errors.AnswerError("x", status=400), False),
        (errors.AnswerError("x", status=413), False),
        (errors.AnswerError("x", status=423), True),
        (errors.AnswerError("x", status=425), True),
        (errors.Unauthorized("x", status=401), False),
        (errors.NotFound("x", status=404), False),
        (errors.OutcomeUnknown("x"), False),
        (errors.Interrupted("x"), False),
        (errors.ProtocolError("x"), False),
        (KeyError("x"), False),
        (KeyboardInterrupt(), False),
    ],
    ids=repr,
)
def test_retryable_error_classes(error: BaseException, worth: bool) -> None:
    assert worth_retrying(error) is worth
