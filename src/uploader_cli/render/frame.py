"""Draw the state as rows of styled text for a terminal of a given size.

From the top: header, totals, one row reserved for an alert, the running files, and the latest messages and finished
files. A running file keeps its row; the next file reuses it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from uploader_cli.core.events import ChannelState, Phase, WarningCode
from uploader_cli.render import overview, stages
from uploader_cli.render.file_rows import MARKS, SENDING, finished, rows_each, running, trouble
from uploader_cli.render.rows import bar, fit, width_of
from uploader_cli.render.words import RATE_WIDTH, clock, rate, safe, size_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uploader_cli.core.events import FileEnded
    from uploader_cli.core.state import FileState, ProgressState
    from uploader_cli.render.rows import Row

FAILURES, FINISHED = 3, 6  # maximum rows for the newest failures and for the latest finished files
SETTLE = 2.0  # seconds before the rows below a free row move up
LATELY = 0.5  # seconds between two updates of those rows


class Frame:
    """Draws the state; stores only the row of each file."""

    def __init__(self, run: str = "") -> None:
        self._run = run
        self._slots = Slots()
        self._lately: list[FileEnded] = []
        self._lately_due = float("-inf")

    def rows(self, state: ProgressState, now: float, width: int, height: int) -> list[Row]:
        """Return fewer than `height` rows of at most `width` cells each."""
        space = max(1, height - 1)
        top = [_header(state, self._run, width), *_whole(state, now, width)]
        alert = overview.alert(state, now)
        if alert or space >= len(top) + 4:
            top.insert(min(len(top), space - 1), [("! ", "bold yellow"), (alert, "bold")] if alert else [])
        top = top[:space]
        files = self._running(state, now, width, space - len(top))
        if state.analysis is not None:
            files += stages.rows(state.analysis, now, width, space - len(top) - len(files))
        tail = _tail(state, self._last(state, now), width, space - len(top) - len(files) - 1)
        rows = [*top, *files, *([[]] if tail else []), *tail]
        return [fit(row, width) for row in rows]

    def _last(self, state: ProgressState, now: float) -> list[FileEnded]:
        """Return the latest finished files, updated twice a second so that they can be read."""
        if now >= self._lately_due or len(state.finished) <= FINISHED:
            self._lately = [done for done in state.finished if done.outcome is not Phase.FAILED]
            self._lately_due = now + LATELY
        return self._lately

    def _running(self, state: ProgressState, now: float, width: int, space: int) -> list[Row]:
        """Draw the running files and the number of those that don't fit; a third of the space stays empty."""
        each = rows_each(width)
        space -= space // 3
        capacity = space // each
        if len(state.running) > capacity:
            capacity = max(0, (space - 1) // each)
        numbers = self._slots.assign(state.running, capacity, now)
        rows: list[Row] = []
        for number in numbers:
            if number is None:
                rows += [[] for _ in range(each)]
            else:
                rows += running(state.running[number], now, width)
        more = len(state.running) - sum(number is not None for number in numbers)
        if more and space > 0:
            rows.append([(f"  … and {more:,} more", "dim")])
        return rows


class Slots:
    """The rows of the running files; each file keeps its row to its end, so that rows don't jump."""

    def __init__(self) -> None:
        self._rows: list[int | None] = []
        self._free_since: float | None = None

    def assign(self, running: Mapping[int, FileState], capacity: int, now: float) -> list[int | None]:
        """Return file numbers by row, None for a free row; at most `capacity`."""
        rows = [number if number in running else None for number in self._rows[:capacity]]
        shown = set(rows)
        hidden = deque(sorted((n for n in running if n not in shown), key=lambda n: not _busy(running[n])))
        rows = [hidden.popleft() if n is None and hidden else n for n in rows]
        rows += [hidden.popleft() for _ in range(min(len(hidden), capacity - len(rows)))]
        moving = deque(n for n in hidden if _busy(running[n]))  # a batch may have more files than there are rows
        rows = [moving.popleft() if moving and n is not None and not _busy(running[n]) else n for n in rows]
        if None not in rows:
            self._free_since = None
        elif self._free_since is None:
            self._free_since = now
        elif now - self._free_since >= SETTLE:
            rows = [n for n in rows if n is not None]
        self._rows = rows
        return rows


def _busy(file: FileState) -> bool:
    if file.phase is Phase.SENDING and file.size:
        return file.offset < file.sent < file.size
    return 0 < (file.server_percent or 0) < 100


# --- the top rows -----------------------------------------------------------------------------------------------------


def _header(state: ProgressState, run: str, width: int) -> Row:
    """Return the longest header that fits: the latency is dropped first, then run, session, and the program's name."""
    server = overview.host(state.server) or "…"
    title: Row = [("uploader", "bold"), (" → ", "dim"), (server, "bold")]
    session: Row = []
    active = sum(not session.over for session in state.sessions.values())
    if active > 1:
        session = [(f" · {active} sessions", "dim")]
    elif state.session:
        session = [(" · session ", "dim"), (safe(state.session[:8]), "")]
    named: Row = [(" · run ", "dim"), (run[:8], "")] if run else []
    dot = (" · ", "dim")
    glyph, words, style = overview.channel(state.channel, latency=False)
    short: Row = [(f"{glyph} ", style), (words, style)]
    full: Row = [short[0], (overview.channel(state.channel)[1], style)]
    rows = (
        [*title, *named, *session, dot, *full],
        [*title, *named, *session, dot, *short],
        [*title, *session, dot, *full],
        [*title, *session, dot, *short],
        [*title, dot, *short],
        [title[2], dot, *short],
    )
    return next((row for row in rows if width_of(row) <= width), short)


def _whole(state: ProgressState, now: float, width: int) -> list[Row]:
    """Draw bar and percent, bytes with rate and time left, and file counts in two rows, three in a narrow terminal."""
    fraction = state.fraction
    percent = (" " + overview.percent(fraction, at_most=state.walking and not state.watched), "bold")
    numbers: Row = []
    if not state.watched:
        total = size_of(
            state.bytes_through, state.total_bytes, sep=" / " if width >= 72 else "/", at_least=state.walking
        )
        left = overview.eta(state, now)
        numbers = [(f"{total}  {rate(state.rate(now)):>{RATE_WIDTH}}  ", ""), (left.ljust(9), "")]
        if width < 36:
            numbers = [(total, "")]
    if width >= 72 and numbers:
        beside = [percent, ("  ", ""), *numbers]
        return [[*bar(fraction, width - width_of(beside), SENDING), *beside], _counts(state, now, width)]
    first: Row = [*bar(fraction, width - 6, SENDING), percent]
    return [first, *([numbers] if numbers else []), _counts(state, now, width)]


def _counts(state: ProgressState, now: float, width: int) -> Row:
    row: Row = [(overview.files(state), "bold")]
    if state.failed:
        row += [(", ", ""), (f"{state.failed:,} failed", "bold red")]
    for count, word, style in (
        (state.skipped, "skipped", ""),
        (state.cancelled, "cancelled", "yellow"),
        (state.retries, "retried", "yellow"),
    ):
        if count:
            row += [(" · ", "dim"), (f"{count:,} {word}", style)]
    elapsed = clock(now - state.started)
    free = width - width_of(row) - len(elapsed)
    return [*row, (" " * free + elapsed, "dim")] if free >= 2 else row


# --- messages and finished files --------------------------------------------------------------------------------------


def _tail(state: ProgressState, last: list[FileEnded], width: int, space: int) -> list[Row]:
    """Draw the newest warning or recovery, the newest failures, the last server message, and the `last` finished files.

    Failures have rows of their own, so that finished files don't scroll them away.
    """
    if space <= 0:
        return []
    rows: list[Row] = []
    if state.news is not None and space >= 2:
        mark = ("✓ ", "green") if state.news.code is WarningCode.RECOVERED else ("! ", "bold yellow")
        rows.append([mark, (safe(state.news.text[:500]), "")])
    failures = list(state.last_failures)[-min(FAILURES, max(1, (space - len(rows)) // 3)) :]
    rows += [trouble(*MARKS[Phase.FAILED], failed.path, failed.message, width) for failed in failures]
    if state.messages and state.channel.state is ChannelState.LIVE and space - len(rows) >= 3:
        rows.append([("» " + safe(state.messages[-1][:500]), "dim")])
    space = min(FINISHED, space - len(rows))
    return rows + [finished(done, width) for done in last[-space:] if space > 0]
