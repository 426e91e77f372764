"""One picture of the state, as rows of styled text that fit a given terminal. It knows the layout and no terminal.

From the top: header, the whole, one row for what is wrong (kept free for it, so nothing moves when it comes), the
running files, and what was said and finished last. A running file keeps its row; the next one takes it over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.core.events import ChannelState, FileRetry, FileStarted, Phase
from uploader_cli.core.state import file_fraction
from uploader_cli.render import overview
from uploader_cli.render.words import (
    RATE_WIDTH,
    SIZE_WIDTH,
    cells,
    clip,
    clock,
    elide,
    pad,
    rate,
    safe,
    size,
    size_of,
    span,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uploader_cli.core.events import Event
    from uploader_cli.core.state import FileState, Finished, ProgressState

Span = tuple[str, str]
"""A text and its style (in words that rich understands: `bold cyan`)."""
Row = list[Span]

_CHANNEL_STYLE = {
    ChannelState.CONNECTING: "yellow",
    ChannelState.LIVE: "green",
    ChannelState.RECONNECTING: "bold yellow",
    ChannelState.POLLING: "yellow",
    ChannelState.CLOSED: "dim",
}
_MARKS = {
    Phase.COMPLETED: ("✓", "green"),
    Phase.FAILED: ("✗", "bold red"),
    Phase.CANCELLED: ("■", "yellow"),
    Phase.SKIPPED: ("-", "dim"),
}
_SENDING, _PROCESSING = "cyan", "magenta"
_BLOCK = 5 + 2 + SIZE_WIDTH + 2 + RATE_WIDTH
"""Cells right of a file's bar: percent, size and rate, or words in their place."""
_SETTLE = 3.0
"""Seconds that a row stays free before the rows below close up."""


class Slots:
    """Which running file is drawn in which row: each keeps its row until it is over."""

    def __init__(self) -> None:
        self._rows: list[int | None] = []
        self._free_since: float | None = None

    def assign(self, running: Mapping[int, FileState], capacity: int, now: float) -> list[int | None]:
        """File numbers by row, None for a free one; never more than `capacity`."""
        rows = [number if number in running else None for number in self._rows[:capacity]]
        shown = set(rows)
        hidden = sorted((n for n in running if n not in shown), key=lambda n: not _busy(running[n]))
        waiting = iter(hidden)
        rows = [next(waiting, None) if number is None else number for number in rows]
        rows += [number for number, _ in zip(waiting, range(capacity - len(rows)), strict=False)]
        self._rows = self._closed_up(self._busy_first(rows, running, hidden), now)
        return self._rows

    @staticmethod
    def _busy_first(rows: list[int | None], running: Mapping[int, FileState], hidden: list[int]) -> list[int | None]:
        """A file that moves takes the row of one that doesn't: a batch may have more files than there are rows."""
        shown = set(rows)
        moving = iter([n for n in hidden if n not in shown and _busy(running[n])])
        return [n if n is None or _busy(running[n]) else next(moving, n) for n in rows]

    def _closed_up(self, rows: list[int | None], now: float) -> list[int | None]:
        if None not in rows:
            self._free_since = None
        elif self._free_since is None:
            self._free_since = now
        elif now - self._free_since >= _SETTLE:
            return [number for number in rows if number is not None]
        return rows


class Frame:
    """Draws the state again and again; remembers only which file has which row, and when retries are due."""

    def __init__(self, *, stall: float = 30.0) -> None:
        """`stall`: seconds without progress after which the picture says so."""
        self._stall = stall
        self._slots = Slots()
        self._retries: dict[int, tuple[float, str]] = {}

    def note(self, event: Event, now: float) -> None:
        """Remember what the state does not hold: when a waiting file is tried again, and why it has to be."""
        match event:
            case FileRetry():
                self._retries[event.file] = (now + event.delay, event.message)
            case FileStarted():
                self._retries.pop(event.file, None)

    def rows(self, state: ProgressState, now: float, width: int, height: int) -> list[Row]:
        """Rows of at most `width` cells each, fewer than `height` of them."""
        room = max(1, height - 1)
        top = [_header(state, width), *_whole(state, now, width)]
        alert = overview.alert(state, now, self._stall)
        if alert or room >= len(top) + 4:
            top.insert(min(len(top), room - 1), [("! ", "bold yellow"), (alert, "bold")] if alert else [])
        top = top[:room]
        files = self._running(state, now, width, room - len(top))
        tail = _tail(state, width, room - len(top) - len(files) - 1)
        rows = [*top, *files, *([[]] if tail else []), *tail]
        return [_fit(row, width) for row in rows]

    def _running(self, state: ProgressState, now: float, width: int, room: int) -> list[Row]:
        """The running files and, where they don't all fit, how many more there are; a third of the room is left."""
        each = 2 if 24 <= width < 60 else 1
        room -= room // 3
        capacity = room // each
        if len(state.running) > capacity:
            capacity = max(0, (room - 1) // each)
        numbers = self._slots.assign(state.running, capacity, now)
        rows: list[Row] = []
        for number in numbers:
            file = None if number is None else state.running[number]
            rows += [[] for _ in range(each)] if file is None else self._file(file, now, width)
        more = len(state.running) - sum(number is not None for number in numbers)
        if more and room > 0:
            rows.append([(f"  … and {more:,} more", "dim")])
        return rows

    def _file(self, file: FileState, now: float, width: int) -> list[Row]:
        """One row, or two in a narrow terminal. Words stand where the numbers are while a file doesn't send."""
        words, mark, percent = self._words(file, now), _glyph(file), overview.percent(file_fraction(file))
        if width < 24:
            return [[mark, *_name(file, width - 8), (" " + percent, "")]]
        if width < 60:
            first = [mark, *_name(file, width - 8), (" " + (" " * 5 if words else percent), "")]
            return [first, [("  ", ""), *self._second(file, words, now, width - 2)]]
        bar = min(40, max(8, (width - _BLOCK - 4) // 3))
        row = [mark, *_name(file, width - _BLOCK - 4 - bar), (" ", "")]
        if words and file.phase is Phase.QUEUED:
            return [[*row, words]]
        numbers = (f"{percent}  {_size(file):>{SIZE_WIDTH}}  {_rate(file, now):>{RATE_WIDTH}}", "")
        return [[*row, *_file_bar(file, bar), (" ", ""), words or numbers]]

    def _second(self, file: FileState, words: Span | None, now: float, width: int) -> Row:
        if words and (file.phase is Phase.QUEUED or width < 38):
            return [words]
        if width < 38:
            tail = f"{_size(file):>{SIZE_WIDTH}}"
        else:
            tail = words[0].ljust(22) if words else f"{_size(file):>10} {_rate(file, now):>{RATE_WIDTH}}"
        return [*_file_bar(file, width - 1 - len(tail)), (" ", ""), (tail, words[1] if words else "")]

    def _words(self, file: FileState, now: float) -> Span | None:
        """What a file does that isn't sending, None for one whose bytes are on their way."""
        match file.phase:
            case Phase.QUEUED:
                due, reason = self._retries.get(file.file, (now, ""))
                wait = f" in {clock(due - now + 0.5)}" if due > now else ""
                return f"retry {file.attempt}{wait}" + (f" · {safe(reason[:200])}" if reason else ""), "yellow"
            case Phase.CHECKING:
                return "checking", ""
            case Phase.PROCESSING if file.server_percent is None:
                return "waiting for the server", "dim"
            case Phase.PROCESSING:
                return f"processing{_server_percent(file)}", _PROCESSING
            case _ if file.size is None:
                return f"{safe(file.server_status[:20]) or 'uploading'}{_server_percent(file)}", ""
            case _ if file.sent >= file.size:
                return "sent, not confirmed", "dim"
        return None


# --- the top ---------------------------------------------------------------------------------------------------------


def _header(state: ProgressState, width: int) -> Row:
    """The fullest header that fits: what goes first is the latency, then the session, then our own name."""
    server = overview.host(state.server) or "…"
    title: Row = [("uploader", "bold"), (" → ", "dim"), (server, "bold")]
    session: Row = []
    if len(state.sessions) > 1:
        session = [(f" · {len(state.sessions)} sessions", "dim")]
    elif state.session:
        session = [(" · session ", "dim"), (safe(state.session[:8]), "")]
    full, short = (_channel(state, latency=latency) for latency in (True, False))
    for row in (
        [*title, *session, (" · ", "dim"), *full],
        [*title, *session, (" · ", "dim"), *short],
        [*title, (" · ", "dim"), *short],
        [(server, "bold"), (" · ", "dim"), *short],
    ):
        if _cells(row) <= width:
            return row
    return short


def _channel(state: ProgressState, *, latency: bool) -> Row:
    glyph, words = overview.channel(state.channel, latency=latency)
    style = _CHANNEL_STYLE[state.channel.state]
    return [(f"{glyph} ", style), (words, style)]


def _whole(state: ProgressState, now: float, width: int) -> list[Row]:
    """Bar and percent, bytes with rate and time left, files: two rows, or three in a narrow terminal."""
    fraction = overview.fraction(state)
    percent = (" " + overview.percent(fraction, at_most=state.walking and not overview.watched(state)), "bold")
    numbers: Row = []
    if not overview.watched(state):
        total = size_of(
            state.bytes_through, state.selected_bytes, sep=" / " if width >= 72 else "/", at_least=state.walking
        )
        left = overview.eta(state, now)
        numbers = [(f"{total}  {rate(state.rate(now)):>{RATE_WIDTH}}  ", ""), (left.ljust(9), "")]
    if width >= 72 and numbers:
        beside = [percent, ("  ", ""), *numbers]
        return [[*_bar(fraction, width - _cells(beside), _SENDING), *beside], _counts(state, now, width)]
    bar = [*_bar(fraction, width - 6, _SENDING), percent]
    return [bar, *([numbers] if numbers else []), _counts(state, now, width)]


def _counts(state: ProgressState, now: float, width: int) -> Row:
    row: Row = [(overview.files(state), "bold"), (" files done" if width >= 30 else " done", "")]
    for count, word, style in (
        (state.failed, "failed", "bold red"),
        (state.skipped, "skipped", ""),
        (state.cancelled, "cancelled", "yellow"),
        (state.retries, "retried", "yellow"),
    ):
        if count:
            row += [(" · ", "dim"), (f"{count:,} {word}", style)]
    elapsed = clock(now - state.started)
    free = width - _cells(row) - len(elapsed)
    return [*row, (" " * free + elapsed, "dim")] if free >= 2 else row


# --- the files -------------------------------------------------------------------------------------------------------


def _busy(file: FileState) -> bool:
    """True for a file that can be seen to move."""
    if file.phase is Phase.SENDING and file.size:
        return file.offset < file.sent < file.size
    return 0 < (file.server_percent or 0) < 100


def _glyph(file: FileState) -> Span:
    match file.phase:
        case Phase.QUEUED:
            return "↻ ", "yellow"
        case Phase.PROCESSING:
            return "⋯ ", _PROCESSING
        case Phase.CHECKING:
            return "? ", "dim"
    return "↑ ", _SENDING


def _name(file: FileState, width: int) -> Row:
    name, tag = safe(file.path), ""
    if file.attempt > 1 and file.phase is not Phase.QUEUED and width >= 20:
        tag = f" retry {file.attempt - 1}"
    return [(pad(name, width - len(tag)), ""), (tag, "yellow")]


def _size(file: FileState) -> str:
    return "" if file.size is None else size(file.size)


def _rate(file: FileState, now: float) -> str:
    return "" if file.size is None else rate(file.meter.rate(now))


def _server_percent(file: FileState) -> str:
    """Never 100: that is for the answer that confirms the file."""
    return "" if file.server_percent is None else overview.percent(min(0.99, file.server_percent / 100))


def _file_bar(file: FileState, width: int) -> Row:
    """While it is sent, bytes; after that the server's own percentage starts at the left again, in another line."""
    if file.phase is Phase.PROCESSING:
        return _bar(min(0.99, (file.server_percent or 0) / 100), width, _PROCESSING, "═")
    return _bar(file_fraction(file), width, _SENDING)


def _bar(fraction: float, width: int, style: str, full: str = "━") -> Row:
    """Half cells make it smooth; the rest is a thin line, so that it reads without colour too."""
    width = max(0, width)
    whole, half = divmod(int(fraction * width * 2), 2)
    edge = "╸" if half and full == "━" else ""
    return [(full * whole + edge, style), ("─" * (width - whole - len(edge)), "dim")]


# --- what was said and finished last ---------------------------------------------------------------------------------


def _tail(state: ProgressState, width: int, room: int) -> list[Row]:
    """The last warning, the last messages, the last finished files; the newest failure stays in sight."""
    if room <= 0:
        return []
    rows: list[Row] = []
    if state.warnings and room >= 2:
        rows.append([("! ", "bold yellow"), (safe(state.warnings[-1].text[:500]), "")])
    said = min(len(state.messages), 0 if room < 3 else 1 if room < 12 else 3)
    rows += [[("» " + safe(text[:500]), "dim")] for text in list(state.messages)[len(state.messages) - said :]]
    last = list(state.finished)[-min(room - len(rows), 10) :]
    rows += [_over(done, width) for done in last]
    if state.failures and last and not any(done.phase is Phase.FAILED for done in last):
        failed = state.failures[-1]
        rows[-len(last)] = _trouble(*_MARKS[Phase.FAILED], failed.path, failed.message, width)
    return rows


def _over(done: Finished, width: int) -> Row:
    if done.phase is not Phase.COMPLETED:
        return _trouble(*_MARKS[done.phase], done.path, done.note or done.phase.value, width)
    glyph, style = _MARKS[done.phase]
    numbers = f" {size(done.size) if done.size else '':>{SIZE_WIDTH}}"
    if width >= 60:
        numbers += f"  {span(done.seconds):>{RATE_WIDTH}}"
    return [(f"{glyph} ", style), (pad(safe(done.path), width - 2 - len(numbers)), ""), (numbers, "dim")]


def _trouble(glyph: str, style: str, path: str, why: str, width: int) -> Row:
    name = elide(safe(path), max(8, width // 2 - 2))
    return [(f"{glyph} ", style), (name, ""), (" – ", "dim"), (safe(why[:500]), style.removeprefix("bold "))]


# --- rows ------------------------------------------------------------------------------------------------------------


def _cells(row: Row) -> int:
    return sum(cells(text) for text, _ in row)


def _fit(row: Row, width: int) -> Row:
    """The row without what does not fit, and without the spaces at its end."""
    out: Row = []
    for text, style in row:
        if cells(text) > width:
            text, width = clip(text, width), 0
        width -= cells(text)
        if text:
            out.append((text, style))
    while out and not out[-1][0].rstrip():
        out.pop()
    if out:
        out[-1] = (out[-1][0].rstrip(), out[-1][1])
    return out
