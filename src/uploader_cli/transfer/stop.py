"""How a run is told to stop, seen by everything that waits or sends."""

from __future__ import annotations

import threading

from uploader_cli.errors import Interrupted


class Stop:
    """Set once, from any thread or a signal handler's loop; never cleared."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Stop at the next resumable point."""
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Interrupted` once stopped."""
        if self._event.is_set():
            raise Interrupted("interrupted")

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`, or raise `Interrupted` as soon as stopped: what tenacity is given to sleep with."""
        if self._event.wait(min(seconds, threading.TIMEOUT_MAX)):  # a server may ask for any number of years
            raise Interrupted("interrupted")
