"""The stop flag ends every wait at once."""

from __future__ import annotations

import threading
import time

import pytest
from time_limits import PATIENCE

from uploader_cli import errors
from uploader_cli.transfer.pacer import Stop


def test_stop_makes_check_and_sleep_raise_interrupted() -> None:
    stop = Stop()
    assert not stop.is_set()
    stop.checkpoint()
    stop.sleep(0)
    stop.set()
    stop.set()
    assert stop.is_set()
    with pytest.raises(errors.Interrupted):
        stop.checkpoint()
    with pytest.raises(errors.Interrupted):
        stop.sleep(0)


def test_sleep_longer_than_any_timer_ends_with_the_stop() -> None:
    """A server may ask for 99999999999 seconds by Retry-After."""
    stop = Stop()
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(errors.Interrupted):
        stop.sleep(99_999_999_999.0)


def test_stop_from_another_thread_ends_the_sleep() -> None:
    stop = Stop()
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    before = time.monotonic()
    with pytest.raises(errors.Interrupted):
        stop.sleep(10 * PATIENCE)
    assert time.monotonic() - before < PATIENCE
    timer.join()
