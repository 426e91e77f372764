"""Handle SIGINT, SIGTERM and SIGHUP from the start of the process to its end, and know when a command began.

A signal ends the process with 130 or 143: at once by default, through SystemExit in `unwinding`, and in order where
a run counts the signals (`run.interrupts.interruptible`). Once the exit code is set no signal changes it.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager

TYPE_CHECKING = False  # without an import of typing, as in `__main__`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    Handler = Callable[[int, FrameType | None], object]

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
"""The handled signals and their exit codes."""

_pending: list[int] = []
"""The exit code of the first signal in `unwinding`."""
_began: list[float] = []
_noted: list[float] = []
"""When interrupts arrived that a run counts (seconds of the monotonic clock)."""


def install() -> None:
    """Set the handlers, and note that the command begins now."""
    # Not when the process began: a shell that replaces itself by its last command has begun earlier.
    _began[:] = [time.monotonic()]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # set by nohup
        CODES.pop(signal.SIGHUP, None)
    for number in CODES:
        signal.signal(number, _leave)


def command_began() -> float:
    """Return when the command began (seconds of the monotonic clock); now in a program that uses the library."""
    return _began[0] if _began else time.monotonic()


def installed() -> bool:
    """Return True where these handlers are active; a program that imports the library has its own."""
    return signal.getsignal(signal.SIGTERM) in (_leave, _raise)


def end_with(code: int) -> None:
    """End the process with `code` at the next signal."""
    for number in CODES:
        signal.signal(number, lambda *_: os._exit(code))


def note() -> None:
    """Note an interrupt: what waits for another process ends its wait."""
    _noted.append(time.monotonic())


def forget() -> None:
    """Forget the interrupts of an earlier run of this process."""
    _noted.clear()


def noted() -> float:
    """Return when the last interrupt arrived since `forget` (seconds of the monotonic clock); 0 if none did."""
    return _noted[-1] if _noted else 0.0


def pending() -> int | None:
    """Return the exit code of a signal that arrived in `unwinding`."""
    return _pending[0] if _pending else None


@contextmanager
def unwinding() -> Iterator[None]:
    """Raise SystemExit in the block on a signal, so that it can clean up; a second signal ends the process.

    Also raise it after the block, in case an import or a destructor swallowed the exception.
    """
    if not installed():
        yield
        return
    before = {number: signal.signal(number, _raise) for number in CODES}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is _raise:  # a run that counted signals leaves them ignored
                signal.signal(number, handler)
    if _pending:
        raise SystemExit(_pending[0])


def _leave(number: int, _frame: FrameType | None) -> None:
    os._exit(CODES[signal.Signals(number)])


def _raise(number: int, _frame: FrameType | None) -> None:
    for each in CODES:
        signal.signal(each, _leave)
    _pending.append(CODES[signal.Signals(number)])
    raise SystemExit(_pending[0])
