"""What SIGINT, SIGTERM and SIGHUP do, by one rule from the start of the process to its end.

A signal ends the process with 130 or 143: at once as long as nothing is to be put away, through the code that puts it
away in `unwinding`, and in order where a run counts the signals (`run.views.interruptible`). Once the exit code is
certain no signal changes it.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

TYPE_CHECKING = False  # without an import of typing, as in `__main__`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    Handler = Callable[[int, FrameType | None], object]

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""The signals that are handled, and the exit codes that they ask for."""
if hasattr(signal, "SIGHUP"):  # not on Windows
    CODES[signal.SIGHUP] = 143

_pending: list[int] = []
"""The exit code of the first signal in `unwinding`. Signals belong to the process, and so does this."""


def install() -> None:
    """Handle the signals in this process from now on."""
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup has it
        CODES.pop(signal.SIGHUP, None)
    for number in CODES:
        signal.signal(number, _leave)


def installed() -> bool:
    """True where signals are handled by this rule and nobody counts them; a program that imports us has its own."""
    return signal.getsignal(signal.SIGTERM) in (_leave, _raise)


def settle(code: int) -> None:
    """End the process with `code` at the next signal: nothing is left but its end."""
    for number in CODES:
        signal.signal(number, lambda *_: os._exit(code))


def pending() -> int | None:
    """Return the exit code that a signal in `unwinding` asked for."""
    return _pending[0] if _pending else None


@contextmanager
def unwinding() -> Iterator[None]:
    """Raise SystemExit in the block at a signal, so that it puts away what it made; a second signal ends the process.

    Also raise it at the end of the block, where something in it (an import, a destructor) dropped the exception.
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
