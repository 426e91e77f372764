"""The live view: draws `frame` on a terminal, always in the same place."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, TextIO

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style

from uploader_cli.core.observer import Observer
from uploader_cli.render import overview
from uploader_cli.render.frame import Frame
from uploader_cli.render.rows import width_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uploader_cli.core.state import ProgressState
    from uploader_cli.render.rows import Row, Span

_SPACING = 0.1
_SYNC_ON, _SYNC_OFF = "\x1b[?2026h", "\x1b[?2026l"
"""Synchronised output: terminals that support it show the frame at once, others ignore it."""

_ERASE, _ERASE_LINE = "\x1b[J", "\x1b[K"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_SAVE_TITLE, _RESTORE_TITLE = "\x1b[22;2t", "\x1b[23;2t"

_LOCAL = 3  # index of the local modes in the result of `tcgetattr`


class LiveView(Observer):
    """Redraws at most ten times a second and erases itself at the end."""

    def __init__(self, stream: TextIO | Console, *, color: bool = True, run: str = "") -> None:
        """`stream` is a terminal or a ready console; `run` is the id of a run that can be resumed."""
        self._console = stream if isinstance(stream, Console) else _console(stream, color=color)
        self._frame = Frame(run)
        self._place = _Place()
        self._keys = _Keys(self._console.file)
        self._title = _Title(self._console.file, os.environ)
        self._due = float("-inf")

    def refresh(self, state: ProgressState, now: float) -> None:
        """Draw, unless the last frame is less than 0.1 s old."""
        if now < self._due - 0.02:  # tolerate jitter of a caller with the same rate
            return
        self._due = max(self._due, now) + _SPACING
        self._keys.set_echo(on=False)
        width, height = self._console.size
        # The last row is empty: the terminal echoes ^C there.
        rows = [*self._frame.rows(state, now, width, height), []]
        start = self._place.top(width, height) if self._place.rows else _HIDE_CURSOR
        self._place.rows = rows
        self._write(_SYNC_ON + start + self._drawn(rows) + self._title.change(state, now) + _SYNC_OFF)

    def close(self, _state: ProgressState, _now: float) -> None:
        """Erase the view, show the cursor and discard typed input. Can be called twice."""
        if self._place.rows:
            width, height = self._console.size
            self._write(self._place.top(width, height) + _ERASE + _SHOW_CURSOR + self._title.restore())
            self._place.rows = []
        self._keys.set_echo(on=True)

    def _drawn(self, rows: list[Row]) -> str:
        """Return the rows as they are written; the rest of each line and everything below are erased."""
        return "\n".join("".join(map(self._styled, row)) + _ERASE_LINE for row in rows) + _ERASE

    def _styled(self, part: Span) -> str:
        text, style = part
        system = ColorSystem.STANDARD if self._console.color_system and not self._console.no_color else None
        return Style.parse(style).render(text, color_system=system) if style else text

    def _write(self, output: str) -> None:
        self._console.file.write(output)
        self._console.file.flush()


class _Place:
    """Where the last frame is: the cursor is in its last row."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._size = (0, 0)
        self._scrolled: list[Row] = []  # rows that a terminal that became lower has scrolled off its screen

    def top(self, width: int, height: int) -> str:
        """Return the control sequence to the frame's first row, of which a narrower terminal has wrapped some."""
        before, self._size = self._size, (width, height)
        above = _lines(self.rows, width) - 1
        if before[1] and height > before[1]:  # scrolled rows come back
            above += min(_lines(self._scrolled, width), height - before[1])
            self._scrolled = []
        elif before != self._size:
            kept = list(self.rows)
            while _lines(kept[1:], width) >= height:
                self._scrolled.append(kept.pop(0))
        return f"\r\x1b[{above}A" if above else "\r"


def _lines(rows: list[Row], width: int) -> int:
    return sum(max(1, -(-width_of(row) // width)) for row in rows)


class _Title:
    """The window's title, and the progress that some terminals show in the task bar (OSC 9;4)."""

    def __init__(self, stream: IO[str], env: Mapping[str, str]) -> None:
        terminal = stream.isatty() and env.get("TERM", "") not in ("", "dumb", "linux")
        self._title, self._bar = terminal, terminal and shows_progress(env)
        self._last = ""

    def change(self, state: ProgressState, now: float) -> str:
        """Return the control sequences for the state; nothing where they are those of the last frame."""
        if not self._title:
            return ""
        percent = overview.share(state).strip()
        words = f"\x1b]2;{percent} {overview.what(state)} – uploader\x1b\\"
        if self._bar:
            kind = _PAUSED if state.paused(now) else _BROKEN if state.failed else _ENDLESS if state.unsized else _NORMAL
            words += f"\x1b]9;4;{kind};{percent.removesuffix(' %').replace('–', '0')}\x1b\\"
        if words == self._last:
            return ""
        before, self._last = self._last, words
        return words if before else _SAVE_TITLE + words

    def restore(self) -> str:
        """Return the control sequences that undo all others."""
        bar = "\x1b]9;4;0\x1b\\" if self._bar else ""
        return _RESTORE_TITLE + bar if self._last else ""


_NORMAL, _BROKEN, _ENDLESS, _PAUSED = 1, 2, 3, 4  # states of OSC 9;4


def shows_progress(env: Mapping[str, str]) -> bool:
    """Return True for terminals that are known to show OSC 9;4; others may print a notification for each."""
    vte = env.get("VTE_VERSION", "")
    return (
        "WT_SESSION" in env
        or env.get("ConEmuANSI") == "ON"
        or env.get("TERM_PROGRAM") in ("ghostty", "WezTerm")
        or (vte.isdecimal() and int(vte) >= 7900)
    )


def _console(stream: TextIO, *, color: bool) -> Console:
    return Console(
        file=stream,
        force_terminal=True,
        color_system="standard" if color else None,
        no_color=not color,
        markup=False,
        emoji=False,
        highlight=False,
    )


class _Keys:
    """The keys of a stream's terminal, if it is one. Ctrl-C and similar keys still work. Does nothing on Windows.

    After `kill -9` the shell restores the terminal; another process would change it under the shell's prompt.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._terminal: int | None = None
        self._before: list[Any] | None = None
        if sys.platform != "win32":
            with suppress(OSError, ValueError, AttributeError):  # not every stream has a descriptor
                self._terminal = stream.fileno() if stream.isatty() else None

    def set_echo(self, *, on: bool) -> None:
        """Switch the echo off, repeatedly, because a shell switches it on again (Ctrl-Z); or restore the terminal.

        Input that was typed meanwhile is discarded.
        """
        if self._terminal is None:
            return
        import termios

        with suppress(OSError, termios.error):  # the terminal was closed
            if os.tcgetpgrp(self._terminal) != os.getpgrp():
                return  # a background process that changes its terminal is stopped
            if on:
                before, self._before = self._before, None
                if before is not None:
                    termios.tcflush(self._terminal, termios.TCIFLUSH)
                    termios.tcsetattr(self._terminal, termios.TCSANOW, before)
            elif (modes := termios.tcgetattr(self._terminal))[_LOCAL] & termios.ECHO:
                self._before = self._before or termios.tcgetattr(self._terminal)
                modes[_LOCAL] &= ~termios.ECHO
                termios.tcsetattr(self._terminal, termios.TCSANOW, modes)
