"""Interrupts of a run: signals, or a program that cancels. The loop checks them every frame and stops in order."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uploader_cli import signals
from uploader_cli.exit_status import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(slots=True)
class Interrupts:
    """Counts interrupts. `code` is the exit code of the first one."""

    count: int = 0
    code: Exit = Exit.SIGINT
    finished: bool = False
    """True once the run has reported its exit code."""
    cancel: threading.Event | None = None
    """Counts as an interrupt once it is set: a program has no signal handler for each run."""
    error: Callable[[Exit], BaseException] = SystemExit
    """What is raised where there is no run to end."""
    _raises: bool = False

    def pending(self) -> int:
        """Return the number of interrupts until now."""
        if not self.count and self.cancel is not None and self.cancel.is_set():
            self.raise_(Exit.SIGINT)
        return self.count

    def raise_(self, code: Exit) -> None:
        """Count an interrupt, in a signal handler in the main thread; the first one determines the exit code."""
        if not self.count:
            self.code = code
        self.count += 1
        if self._raises:
            self.check()

    def check(self) -> None:
        """Raise `error` with the interrupt's exit code, where there was one: before a run there is nothing to end."""
        if self.pending() and not self.finished:
            raise self.error(self.code)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Exit on an interrupt within the block, which may wait for long (a token command)."""
        self._raises = True
        try:
            self.check()
            yield
        finally:
            self._raises = False


@contextmanager
def interruptible(interrupts: Interrupts | None = None) -> Iterator[Interrupts]:
    """Count signals in `interrupts`, or a new one, instead of raising, so that the loop stops in order."""
    interrupts = Interrupts() if interrupts is None else interrupts
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    if (code := signals.pending()) is not None:
        raise SystemExit(code)

    def count(number: int, _frame: Any) -> None:
        interrupts.raise_(Exit(signals.CODES[signal.Signals(number)]))

    ours = signals.installed()
    before = {number: signal.signal(number, count) for number in signals.CODES}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():  # the process ends right after
            signal.signal(number, signal.SIG_IGN if ours else handler)
