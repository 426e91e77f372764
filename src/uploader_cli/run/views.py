"""The environment of a run: its views, its signal handlers and its summary."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from uploader_cli import signals
from uploader_cli.core.observer import Observer
from uploader_cli.exit_status import Exit
from uploader_cli.render import choose, use_color
from uploader_cli.run.logfile import open_log
from uploader_cli.run.upload import Interrupts
from uploader_cli.settings import DEFAULT, Layer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_cli.core.state import ProgressState
    from uploader_cli.settings import Settings


def observers(settings: Settings, run_id: str, *, resume_hint: str = "") -> list[Observer]:
    """Return the observers of a run, in closing order: the view is closed before the summary is printed.

    `resume_hint` is the command that resumes the run, if it can be resumed.
    """
    out: list[Observer] = []
    tty = sys.stderr.isatty()
    kind = choose(
        settings.progress,
        stderr_is_tty=tty,
        env=os.environ,
        quiet=settings.quiet,
        json_on_tty=settings.json and tty and sys.stdout.isatty(),
        encoding=sys.stderr.encoding or "ascii",
    )
    color = use_color(os.environ, is_tty=tty)
    if settings.json:
        from uploader_cli.render.ndjson import NdjsonView

        out.append(NdjsonView(sys.stdout, run_id, time.time))
    if kind == "live":
        from uploader_cli.render.live import LiveView

        out.append(LiveView(sys.stderr, color=color))
    elif kind == "plain":
        from uploader_cli.render.plain import PlainView

        out.append(PlainView(sys.stderr, verbose=settings.verbose, quiet=settings.quiet))
    log = open_log(settings, run_id)
    if log is not None:
        out.append(log)  # it may print a warning after the view is closed
    quiet = settings.quiet or (settings.json and kind == "none")
    out.append(Summary(quiet=quiet, color=color, resume_hint=resume_hint, verbose=settings.verbose > 0))
    return out


def resume_hint(settings: Settings) -> str:
    """Return the command that resumes an upload with these settings."""
    source = settings.sources.get("state_dir", DEFAULT)
    command = "uploader resume"
    if source.layer is Layer.FLAG:
        command += f" --state-dir {shlex.quote(str(settings.state_dir))}"
    elif source.layer is Layer.USER_PROFILE:
        command += f" --profile {shlex.quote(settings.profile or '')}"
    return f"{command}, or the same command again"


UNFOLDED = 100_000
"""Columns where there is no terminal, so that lines are not wrapped."""


class Summary(Observer):
    """Prints the summary on stderr after the run; with `quiet` only if something went wrong."""

    def __init__(self, *, quiet: bool, color: bool, resume_hint: str, verbose: bool) -> None:
        self._quiet, self._color, self._resume_hint, self._verbose = quiet, color, resume_hint, verbose

    def close(self, state: ProgressState, now: float) -> None:  # noqa: ARG002 - the protocol's signature
        """Print the summary."""
        outcome = state.outcome
        if outcome is None or (self._quiet and outcome.ok):
            return
        from uploader_cli.render.summary import summary

        width = width_of(sys.stderr)
        lines = summary(
            state,
            outcome,
            width=width,
            color=self._color,
            resume_hint=self._resume_hint,
            verbose=self._verbose,
        )
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()


def width_of(stream: TextIO) -> int:
    """Return the terminal's columns. Output to a pipe or file is not wrapped, so that paths can be searched."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or UNFOLDED
    except (OSError, ValueError):
        return UNFOLDED


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
