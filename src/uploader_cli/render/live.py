"""The live view: draws `frame` on a terminal, below what is there, and obeys keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Literal, TextIO

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style

from uploader_cli.core.state import Observer, ProgressState
from uploader_cli.outputs import is_unicode
from uploader_cli.render import overview
from uploader_cli.render.frame import Frame
from uploader_cli.render.keyboard import Keyboard
from uploader_cli.render.words import Row, Span, ascii_only, fit, width_of

_SPACING = 0.1
_SOON = 0.5  # seconds until the first frame
_LONGER = 4  # most cells by which a row becomes longer in ASCII
_NOTED = 3.0  # seconds for which the note of a key is shown
_SYNC_ON, _SYNC_OFF = "\x1b[?2026h", "\x1b[?2026l"
"""Synchronised output: terminals that support it show the frame at once, others ignore it."""

_ERASE, _ERASE_LINE = "\x1b[J", "\x1b[K"
_ERASE_VIEW = f"\r{_ERASE_LINE}\x1b[C{_ERASE}\r"
"""From the first cell of a row on. What is erased from the first cell of the screen on goes to the history of tmux."""
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_CUT, _WRAP = "\x1b[?7l", "\x1b[?7h"
"""Cut rows that are longer than the terminal, or wrap them: it may be narrower than it has told."""
_SAVE_PLACE, _RESTORE_PLACE = "\x1b7", "\x1b8"
_NEXT_ROW, _SCROLLING = "\r\x1b[B", "\x1bD"  # one row down; only the second scrolls in the last row
_LAST_ROW = "\x1b[999B"
_TALL = 16  # least rows of a terminal in which the cursor has a row of its own
_SAVE_TITLE, _RESTORE_TITLE = "\x1b[22;2t", "\x1b[23;2t"


class LiveView(Observer):
    """Redraws at most ten times a second and erases itself at the end. Runs of less than half a second show no view.

    The cursor is hidden only while a frame is written, and the alternate screen is not used: no `kill -9` leaves a
    terminal without a cursor, or one that does not scroll.

    Between two frames the cursor is where the view begins. A terminal that is resized wraps and joins rows in its own
    way, tells the program later, and keeps the cursor at its place in the text: the next frame begins there, and erases
    everything below, whatever became of the last one.

    In tmux the view is at the bottom of the screen. When wrapped rows need more lines, tmux moves as many from the top
    of the screen to its history, also where lines at the bottom are empty: no row of the view may be among them.
    """

    def __init__(
        self,
        stream: TextIO | Console,
        *,
        color: bool = True,
        run: str = "",
        messages: bool = False,
        keys: Mapping[str, Callable[[], str]] | None = None,
    ) -> None:
        """`stream` is a terminal or a ready console; `run` is the id of a run that can be resumed.
        `messages`: also show those of the server.

        `keys` are what keys do in the run; each function returns a note to be shown.
        """
        if not isinstance(stream, Console):
            system: Literal["standard"] | None = "standard" if color else None
            stream = Console(file=stream, force_terminal=True, color_system=system, no_color=not color)
        self._console = stream
        self._frame = Frame(run, messages=messages)
        self._keyboard = Keyboard(self._console.file)
        self._keys: Mapping[str, Callable[[], str]] = {} if keys is None else keys
        self._title = _Title(self._console.file, os.environ)
        self._has_signs = is_unicode(self._console.encoding)
        self._at_bottom = "TMUX" in os.environ or os.environ.get("TERM", "").startswith(("tmux", "screen"))
        self._size = (0, 0)  # columns and lines of the terminal at the last frame; (0, 0) without one
        self._room = 0  # rows of the largest frame of that size; 0 where nothing is drawn
        self._help = False
        self._due = float("-inf")
        self._note, self._note_until = "", float("-inf")

    def refresh(self, state: ProgressState, now: float) -> None:
        """Draw, unless the last frame is less than 0.1 s old; do what the keys ask for."""
        if self._keyboard.stopping:
            self.close(state, now)
            self._keyboard.stop()
        if now < self._due - 0.02:  # tolerate jitter of a caller with the same rate
            return
        first = self._due == float("-inf")
        self._due = max(self._due, now) + _SPACING
        if not self._keyboard.take():
            return
        if first and self._console.file.isatty():
            self._due = now + _SOON
            return
        for key in self._keyboard.read():
            self._press(key, now)
        width, height = size = self._terminal_size()
        own = height >= _TALL
        rows = [*([[]] if own else []), *self._rows(state, now, width, height - own)]
        begin, end = _SYNC_ON + _HIDE_CURSOR + _CUT, _WRAP + self._title.change(state, now) + _SHOW_CURSOR + _SYNC_OFF
        self._write(begin + self._place(size, len(rows)) + self._text(rows, width) + end)

    def close(self, _state: ProgressState, _now: float) -> None:
        """Erase the view and discard typed input. Can be called twice."""
        if self._room:
            self._write(_ERASE_VIEW + self._title.restore())
            self._size, self._room = (0, 0), 0
        self._keyboard.give_back()

    def _terminal_size(self) -> tuple[int, int]:
        """Ask the terminal itself: COLUMNS in the environment, as readline exports it, does not follow a resize."""
        with suppress(OSError, ValueError, AttributeError):  # not every stream has a descriptor
            columns, lines = os.get_terminal_size(self._console.file.fileno())
            if columns and lines:
                return columns, lines
        return self._console.size

    def _rows(self, state: ProgressState, now: float, width: int, height: int) -> list[Row]:
        """Return the rows of the view, in ASCII where the terminal has no UTF-8."""
        if self._has_signs:
            return [*self._frame.rows(state, now, width, height), fit(self._last_row(state, now), width - 1)]
        rows = [*self._frame.rows(state, now, max(1, width - _LONGER), height), self._last_row(state, now)]
        cut = [fit([(ascii_only(text), style) for text, style in row], width - 3) for row in rows]
        return [[(ascii_only(text), style) for text, style in row] for row in cut]  # its end may have a sign

    def _press(self, key: str, now: float) -> None:
        if key == "f":
            self._frame.expanded = not self._frame.expanded
        elif key == "?":
            self._help = not self._help
        elif (action := self._keys.get(key)) is not None:
            self._note, self._note_until = action(), now + _NOTED

    def _last_row(self, state: ProgressState, now: float) -> Row:
        """Return a note, the keys, or how to show them."""
        if now < self._note_until and self._note:
            return [(self._note, "bold")]
        if not self._keyboard.reads:
            return []
        if not self._help:
            return [("? keys", "dim")]
        paused, expanded = state.held is not None, self._frame.expanded
        keys = {"p": "p resume" if paused else "p pause", "+": "+/- jobs", "q": "q stop"}
        known = {key: text for key, text in keys.items() if key in self._keys}
        known["f"] = "f files" if expanded else "f failures"
        return [("  ".join(known[key] for key in "p+fq" if key in known), "dim")]

    def _place(self, size: tuple[int, int], rows: int) -> str:
        """Return the control sequences from the cursor to the first row; scroll where there is less room than needed.

        Where the size has changed, everything is erased: a terminal remembers which lines it has wrapped, also below
        new text, and joins them when it becomes wider.
        """
        forget = _ERASE_VIEW if self._room and size != self._size else ""
        self._room = rows if size != self._size else max(rows, self._room)
        self._size = size
        up = f"\x1b[{self._room - 1}A" if self._room > 1 else ""
        room = forget + "\r" + _SCROLLING * (self._room - 1) + up + _SAVE_PLACE
        return room + _LAST_ROW + up if self._at_bottom else room

    def _text(self, rows: list[Row], width: int) -> str:
        """Return the rows as they are written, and the way back to the place that was saved.

        The rest of each line and everything below are erased; right after the last column some terminals would erase
        the character in it.
        """
        ends = (_ERASE_LINE if width_of(row) < width else "" for row in rows)
        drawn = ("".join(map(self._styled, row)) + end for row, end in zip(rows, ends, strict=True))
        return _NEXT_ROW.join(drawn) + _ERASE + _RESTORE_PLACE

    def _styled(self, part: Span) -> str:
        text, style = part
        system = ColorSystem.STANDARD if self._console.color_system and not self._console.no_color else None
        return Style.parse(style).render(text, color_system=system) if style else text

    def _write(self, output: str) -> None:
        self._console.file.write(output)
        self._console.file.flush()


class _Title:
    """The window's title, and the progress that some terminals show in the task bar (OSC 9;4)."""

    def __init__(self, stream: IO[str], env: Mapping[str, str]) -> None:
        terminal = _is_emulator(stream, env)
        self._title, self._bar = terminal, terminal and shows_progress(env)
        self._last = ""

    def change(self, state: ProgressState, now: float) -> str:
        """Return the control sequences for the state; nothing where they are those of the last frame."""
        if not self._title:
            return ""
        percent = overview.share(state).strip()
        doing = "waiting" if state.waiting else overview.processing(state, now) or percent or "uploading"
        words = f"\x1b]2;{doing} {overview.what(state)} – uploader\x1b\\"
        if self._bar:
            kind = _PAUSED if state.paused(now) else _BROKEN if state.failed else _NORMAL if percent else _ENDLESS
            words += f"\x1b]9;4;{kind};{percent.removesuffix(' %') or 0}\x1b\\"
        if words == self._last:
            return ""
        before, self._last = self._last, words
        return words if before else _SAVE_TITLE + words

    def restore(self) -> str:
        """Return the control sequences that undo all others."""
        bar = "\x1b]9;4;0\x1b\\" if self._bar else ""
        last, self._last = self._last, ""
        return _RESTORE_TITLE + bar if last else ""


def _is_emulator(stream: IO[str], env: Mapping[str, str]) -> bool:
    """Return whether the stream is a terminal with a title."""
    return stream.isatty() and env.get("TERM", "") not in ("", "dumb", "linux")


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
