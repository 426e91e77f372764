"""The account of the server's rate limit, with a fake clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from fakes import Clock, golden
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli.transfer.answers import Answer
from uploader_cli.transfer.budget import RateBudget

WALL = 1_795_564_000.0


class Account(RateBudget):
    """A budget whose wall clock follows its monotonic clock."""

    def __init__(self) -> None:
        self.at = Clock()
        super().__init__(self.at, lambda: WALL + self.at.now - 1000.0)

    def left(self, remaining: object, reset: object = None) -> None:
        headers = {"X-RateLimit-Remaining": str(remaining)}
        if reset is not None:
            headers["X-RateLimit-Reset"] = str(reset)
        self.note(headers)


# --- how often a poll may come ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remaining", "sessions", "reset", "interval"),
    [
        (100, 0, 900, 1.0),  # calls left: every second, never more often
        (65, 0, 900, 1.0),
        (100, 17, 900, 1.0),  # 61 calls to spare
        (64, 0, 900, 60 / 59),  # below 60 to spare it stretches
        (35, 0, 900, 2.0),
        (35, 5, 900, 3.0),  # two calls for each session to come, and five
        (11, 0, 900, 10.0),
        (6, 0, 900, 60.0),
        (6, 0, 20, 20.0),  # …but not beyond the reset
        (5, 0, 900, 900.0),  # no call left: not before the reset
        (0, 0, 900, 900.0),
        (20, 10, 900, 900.0),
        (0, 0, None, 60.0),  # no call left, and no reset announced
        (0, 0, 0, 1.0),
    ],
)
def test_poll_interval_leaves_calls_for_the_upload(
    remaining: int, sessions: int, reset: int | None, interval: float
) -> None:
    account = Account()
    account.sessions_to_come = sessions
    account.left(remaining, reset)
    assert account.poll_interval() == pytest.approx(interval)


def test_where_calls_are_not_counted_polls_come_every_second() -> None:
    account = Account()
    assert not account.metered
    assert account.poll_interval() == 1.0
    account.note({})
    account.note({"X-RateLimit-Reset": "10"})
    assert not account.metered
    account.left(50)
    assert account.metered


def test_poll_interval_shrinks_until_the_reset() -> None:
    account = Account()
    account.left(0, 30)
    account.at.pass_(10)
    assert account.poll_interval() == pytest.approx(20.0)
    account.at.pass_(100)
    assert account.poll_interval() == 1.0


def test_a_reset_in_unix_seconds_is_counted_from_now() -> None:
    account = Account()
    account.left(0, int(WALL) + 30)
    assert account.poll_interval() == pytest.approx(30.0)
    account.left(0, int(WALL) - 30)
    assert account.poll_interval() == 1.0


def test_headers_of_the_reference_backend() -> None:
    headers = golden("rate-limited")["headers"]
    titled = {"-".join(part.capitalize() for part in name.split("-")): value for name, value in headers.items()}
    named = {name.replace("X-Ratelimit", "X-RateLimit"): value for name, value in titled.items()}
    account = Account()
    account.note(named)
    assert account.poll_interval() == pytest.approx(1_795_564_737 - WALL)
    assert retry_after(named["Retry-After"]) == 886.0


@pytest.mark.parametrize("junk", ["", "many", "-1", "1.5", "\xb2", "9" * 5000, "0x10", "1 2"])
def test_non_numeric_headers_are_ignored(junk: str) -> None:
    account = Account()
    account.left(11, 900)
    account.left(junk, 5)
    assert account.poll_interval() == pytest.approx(10.0)
    account.left(5, junk)
    assert account.poll_interval() == pytest.approx(900.0)
    assert retry_after(junk) is None


# --- 429 -------------------------------------------------------------------------------------------------------------


def test_pause_of_a_poll_delays_polls_and_never_the_upload() -> None:
    account = Account()
    account.pause_polls(86_400)
    assert account.pause_left() == 0.0
    assert account.poll_interval() == 86_400.0
    account.at.pass_(86_399.5)
    assert account.poll_interval() == 1.0


def test_polls_wait_for_the_longer_of_both_pauses() -> None:
    account = Account()
    account.pause(30)
    account.pause_polls(10)
    assert account.pause_left() == account.poll_interval() == 30.0
    account.pause_polls(50)
    account.pause_polls(5)  # a second 429 takes nothing of the wait away
    assert account.pause_left() == 30.0
    assert account.poll_interval() == 50.0


def test_no_call_during_a_pause() -> None:
    account = Account()
    assert account.pause_left() == 0.0
    account.pause(30)
    account.pause(5)  # a second 429 takes nothing of the wait away
    assert account.pause_left() == account.poll_interval() == 30.0
    account.at.pass_(29.5)
    assert account.pause_left() == 0.5
    assert account.poll_interval() == 1.0
    account.at.pass_(10)
    assert account.pause_left() == 0.0


def test_poll_waits_for_a_pause_longer_than_the_interval() -> None:
    account = Account()
    account.left(35, 900)
    account.pause(7)
    assert account.poll_interval() == 7.0
    account.left(0, 900)
    assert account.poll_interval() == 900.0


@given(st.integers(0, 200), st.integers(0, 100), st.none() | st.integers(0, 2000), st.floats(0, 2000))
def test_poll_interval_is_at_least_a_second_and_bounded(
    remaining: int, sessions: int, reset: int | None, pause: float
) -> None:
    account = Account()
    account.sessions_to_come = sessions
    account.left(remaining, reset)
    account.pause(pause)
    interval = account.poll_interval()
    assert interval >= 1.0
    assert interval <= max(1.0, account.pause_left(), 60.0 if reset is None else float(reset)) + 1e-6


# --- Retry-After -----------------------------------------------------------------------------------------------------


def retry_after(value: str, came: float = 0.0) -> float | None:
    """Return the seconds that an answer asks for which `came` at a unix time."""
    return Answer(429, {"Retry-After": value}, None, "", came=came).retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("886", 886.0), (" 5 ", 5.0), ("", None), ("soon", None), ("-5", None), ("1.5", None)],
)
def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    assert retry_after(value) == seconds


def test_retry_after_may_be_missing() -> None:
    assert Answer(429, {}, None, "").retry_after is None


def test_retry_after_may_be_a_date() -> None:
    """It counts from the time of the answer; a past date is 0 seconds."""
    came = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after(format_datetime(came + timedelta(hours=1), usegmt=True), came.timestamp()) == 3600.0
    assert retry_after(format_datetime(came - timedelta(hours=1), usegmt=True), came.timestamp()) == 0.0


@pytest.mark.parametrize("date", ["1 Jan 99999999999999999 00:00:00 GMT", "1 Jan 2020 00:00:00 +99999999999999"])
def test_retry_after_date_out_of_range_is_none(date: str) -> None:
    assert retry_after(date) is None


@given(st.text(max_size=40) | st.from_regex(r"\w{3}, \d{1,3} \w{3} \d{1,6} \d\d:\d\d:\d\d [+-]?\w{0,6}"))
def test_no_retry_after_raises(value: str) -> None:
    seconds = retry_after(value)
    assert seconds is None or seconds >= 0
