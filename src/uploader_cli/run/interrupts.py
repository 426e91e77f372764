"""Interrupts of a run: signals, a key, a program that cancels, or the deadline. The loop stops in order."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct, field

from uploader_cli import signals
from uploader_cli.core import events as ev
from uploader_cli.core.incidents import duration
from uploader_cli.exit_status import Exit
from uploader_cli.transfer.pacer import Stop


class Interrupts(Struct):
    """Counts interrupts. `code` is the exit code of the first one."""

    count: int = 0
    code: Exit = Exit.SIGINT
    began: float = field(default_factory=time.monotonic)
    """When the command, or the call of the library, began."""
    finished: bool = False
    """True once the run has reported its exit code."""
    cancel: threading.Event | None = None
    """Counts as an interrupt once it is set: a program has no signal handler for each run."""
    deadline: float = math.inf
    """Seconds that the run may take, counted by `begin`; then this counts as an interrupt with exit code 3."""
    error: Callable[[Exit], BaseException] = SystemExit
    """What `checkpoint` raises."""
    keys: dict[str, Callable[[], str]] = field(default_factory=dict)
    """What keys of the live view do in the run; each function returns a note to be shown."""
    _raises: bool = False
    _until: float = math.inf

    def __post_init__(self) -> None:
        self.keys["q"] = self._quit

    def _quit(self) -> str:
        if not self.count:
            self.raise_(Exit.SIGINT)
        return "stopping"

    def pending(self) -> int:
        if not self.count and self.cancel is not None and self.cancel.is_set():
            self.raise_(Exit.SIGINT)
        if not self.count and time.monotonic() > self._until:
            self.raise_(Exit.RETRY_MAY_HELP)
        return self.count

    @property
    def late(self) -> bool:
        """True if the deadline was the first interrupt."""
        return bool(self.count) and self.code is Exit.RETRY_MAY_HELP

    def begin(self, deadline: float | None) -> None:
        """Count the deadline from now."""
        self.deadline = math.inf if deadline is None else deadline
        self._until = time.monotonic() + self.deadline

    def stop(self, stop: Stop, emit: Callable[[ev.Event], None]) -> None:
        """Stop a run at its next resumable point, after an interrupt."""
        if self.late:
            text = f"stopped at the deadline of {duration(self.deadline)} (--deadline)"
            emit(ev.RunWarning(ev.WarningCode.DEADLINE, text))
        stop.set(late=self.late)

    def raise_(self, code: Exit) -> None:
        """Count an interrupt, in a signal handler in the main thread; the first one determines the exit code."""
        if not self.count:
            self.code = code
        self.count += 1
        signals.note()
        if self._raises:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Raise `error` with the interrupt's exit code, where there was one: before a run there is nothing to end."""
        if self.pending() and not self.finished:
            raise self.error(self.code)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Raise `error` on an interrupt within the block, which may wait for long (a token command)."""
        self._raises = True
        try:
            self.checkpoint()
            yield
        finally:
            self._raises = False


@contextmanager
def interruptible(interrupts: Interrupts | None = None) -> Iterator[Interrupts]:
    """Count signals in `interrupts`, or a new one; a loop that looks at them stops in order."""
    interrupts = Interrupts(began=signals.command_began()) if interrupts is None else interrupts
    signals.forget()
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
