"""Draw the state as rows of styled text for a terminal of a given size.

From the top: header, totals, one row reserved for an alert, the running files, failures and messages, and what ended
last. In a wide terminal failures and messages have a column of their own. A running file keeps its row; the next file
reuses it. Files that end within a second are only counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import zip_longest

from uploader_cli.analysis import timeline
from uploader_cli.core.events import ChannelState, Phase, WarningCode
from uploader_cli.core.state import BRIEF, FileState, ProgressState
from uploader_cli.render import overview
from uploader_cli.render.file_rows import MARKS, ONE_ROW, SENDING, finished, rows_each, running, trouble
from uploader_cli.render.words import RATE_WIDTH, Row, bar, clock, elide, fit, plural, rate, safe, width_of

FAILURE_ROWS, FINISHED_ROWS, MESSAGE_ROWS = 3, 6, 5
"""Maximum rows for the newest failures and for what ended last; and for messages beside them in a wide terminal."""
WIDE_VIEW = 110  # minimum width for a second column
FEW_ROWS = 8  # rows below the totals; where there are fewer, running files leave none to others
SMALL_FILE = 1 << 20  # bytes; a smaller file has no row before it was running for a while
STUCK = 5.0  # seconds after which a small file that doesn't move gets a row
_DOT = (" · ", "dim")


class Frame:
    """Draws the state; stores only the row of each file."""

    def __init__(self, run: str = "") -> None:
        self._run = run
        self.expanded = False  # whether failures have all rows below the totals
        self._slots = Slots()

    def rows(self, state: ProgressState, now: float, width: int, height: int) -> list[Row]:
        """Return fewer than `height` rows of at most `width` cells each."""
        space = max(1, height - 1)
        files = {n: file for n, file in state.running.items() if n in self._slots or _is_long(file, state, now)}
        top = [_header(state, self._run, now, width), *_whole(state, now, width, len(state.running) - len(files))]
        alert = overview.alert(state, now)
        if alert or space >= len(top) + 6:
            top.insert(min(len(top), space - 1), [("! ", "bold yellow"), (alert, "bold")] if alert else [])
        top = top[:space]
        space -= len(top)
        if self.expanded:
            return [fit(row, width) for row in [*top, *_failures(state, width, space)]]
        column = width * 3 // 5 if width >= WIDE_VIEW else width
        body = self._running(files, state, now, column, space - (space // 3 if space >= FEW_ROWS else 0))
        if state.analysis is not None:
            body += timeline.rows(state.analysis, now, column, space - len(body))
        if column < width:
            beside = _troubles(state, width - column - 2, space, failures=space - MESSAGE_ROWS, messages=MESSAGE_ROWS)
        else:
            beside = []
            free = space - len(body)
            body += _troubles(state, width, free, failures=min(FAILURE_ROWS, max(1, free // 3)), messages=1)
        free = max(0, min(FINISHED_ROWS, space - len(body)))
        body += [finished(done, state, column) for done in list(state.tree.latest)[::-1][:free][::-1]]
        rows = [*top, *(_beside(left, right, column) for left, right in zip_longest(body, beside))]
        return [fit(row, width) for row in rows]

    def _running(
        self, files: Mapping[int, FileState], state: ProgressState, now: float, width: int, space: int
    ) -> list[Row]:
        each = rows_each(width)
        capacity = space // each
        if len(files) > capacity:
            capacity = max(0, (space - 1) // each)
        numbers = self._slots.assign(files, capacity)
        rows = [row for number in numbers for row in running(files[number], state, now, width)]
        more = len(files) - len(numbers)
        if more and space > 0:
            rows.append([(f"  … and {more:,} more", "dim")])
        return rows


class Slots:
    """The rows of the running files; each file keeps its row while others take over those of ended files."""

    def __init__(self) -> None:
        self._rows: list[int] = []

    def __contains__(self, number: int) -> bool:
        return number in self._rows

    def assign(self, running: Mapping[int, FileState], capacity: int) -> list[int]:
        """Return file numbers by row, at most `capacity`."""
        rows = [number if number in running else None for number in self._rows[:capacity]]
        shown = set(rows)
        hidden = deque(sorted((n for n in running if n not in shown), key=lambda n: not _busy(running[n])))
        rows = [hidden.popleft() if n is None and hidden else n for n in rows]
        rows += [hidden.popleft() for _ in range(min(len(hidden), capacity - len(rows)))]
        moving = deque(n for n in hidden if _busy(running[n]))  # a batch may have more files than there are rows
        rows = [moving.popleft() if moving and n is not None and not _busy(running[n]) else n for n in rows]
        self._rows = [n for n in rows if n is not None]
        return self._rows


def _busy(file: FileState) -> bool:
    if file.phase is Phase.SENDING and file.size:
        return file.offset < file.sent < file.size
    return 0 < (file.server_percent or 0) < 100


def _is_long(file: FileState, state: ProgressState, now: float) -> bool:
    """Return whether the file gets a row: it takes more than a second, or is expected to."""
    if file.packed:
        return False
    if (
        file.size is None
        or file.phase is Phase.QUEUED
        or file.size >= max(SMALL_FILE, state.rate(now) / len(state.running) * BRIEF)
    ):
        return True
    return now - file.started >= (BRIEF if _busy(file) else STUCK)


# --- the top rows -----------------------------------------------------------------------------------------------------


def _header(state: ProgressState, run: str, now: float, width: int) -> Row:
    """Return the longest header that fits; run, session, the program's name and the time are dropped in this order."""
    source, place = overview.what(state), overview.destination(state) if state.server else "…"
    arrow: Row = [("→ ", "dim"), (place, "bold")]
    title: Row = [(f"{source} ", "bold"), *arrow] if source else arrow
    full: Row = [("uploader  ", "bold"), *title]
    glyph, words, style = overview.channel(state.channel, latency=width >= WIDE_VIEW)
    channel: Row = [(f"{glyph} {words if width >= WIDE_VIEW else words.removesuffix(' websocket')}", style)]
    timed: Row = [*channel, (f"{clock(now - state.started):>10}", "dim")]
    session = _session(state)
    named: Row = [_DOT, ("run ", "dim"), (run[:8], ""), *session] if run else session
    rows = ((full + named, timed), (full + session, timed), (full, timed), (title, timed), (title, channel))
    for left, right in (*rows, (arrow, channel)):
        free = width - width_of(left) - width_of(right)
        if free >= 2:
            return [*left, (" " * free, ""), *right]
    room = width - width_of(channel) - 3
    return [arrow[0], (elide(place, room), "bold"), (" ", ""), *channel] if room >= 8 else channel


def _session(state: ProgressState) -> Row:
    active = sum(not session.over for session in state.sessions.values())
    if active > 1:
        return [_DOT, (f"{active} sessions", "dim")]
    return [_DOT, ("session ", "dim"), (safe(state.session[:8]), "")] if state.session else []


def _whole(state: ProgressState, now: float, width: int, small: int) -> list[Row]:
    """Draw bar, percent, bytes and rate in a row, two in a narrow terminal, and the file counts."""
    if state.waiting:
        return [[(overview.waiting(state), "bold")], _counts(state, now, width, small)]
    fraction = state.fraction
    percent = (" " + overview.share(state), "bold")
    numbers: Row = []
    if not state.watched:
        total = overview.amount(state)
        numbers = [(total if width < 36 else f"{total}  {rate(state.rate(now)):>{RATE_WIDTH}}", "")]
    beside: Row = [percent, ("  ", ""), *numbers] if width >= ONE_ROW and numbers else [percent]
    first: Row = [*bar(fraction, width - width_of(beside), SENDING), *beside]
    counts = _counts(state, now, width, small)
    return [first, counts] if width >= ONE_ROW or not numbers else [first, numbers, counts]


def _counts(state: ProgressState, now: float, width: int, small: int) -> Row:
    """Return the longest counts that fit."""
    done, total = state.files_done
    least = "≥" if state.growing else ""
    pace = state.pace.rate(now) if state.held is None else 0.0
    speed = f"{pace:,.0f} files/s" if pace >= 1.5 else ""
    files = (f"{done:,} of {least}" + (f"{total:,}" if speed else plural(total, "file")), "bold")
    under_way = f"{plural(small, 'small file')} under way" if small else ""
    failed = (overview.failed(state), "bold red")
    eta = ("" if state.watched or state.waiting else overview.eta(state, now), "")
    others = [
        (f"{state.skipped:,} skipped" if state.skipped else "", ""),
        (f"{state.cancelled:,} cancelled" if state.cancelled else "", "yellow"),
        (f"{state.retries:,} retried" if state.retries else "", "yellow"),
    ]
    speeds = (", ".join(filter(None, [speed, under_way])), speed, "")
    row: Row = []
    for parts in (*([files, (text, ""), failed, *others, eta] for text in speeds), [files, failed, eta]):
        row = [span for part in parts if part[0] for span in (_DOT, part)][1:]
        if width_of(row) <= width:
            break
    return row


# --- failures and messages --------------------------------------------------------------------------------------------


def _failures(state: ProgressState, width: int, space: int) -> list[Row]:
    """Draw the newest failures, and the number of those that don't fit."""
    if not state.failed:
        return [[("no file has failed", "dim")]][:space]
    shown = min(len(state.last_failures), space)
    if shown < state.failed:
        shown = min(shown, max(0, space - 1))
    more = state.failed - shown
    last = list(state.last_failures)[len(state.last_failures) - shown :]
    rows = [trouble(*MARKS[Phase.FAILED], overview.short(one.path, state), one.message, width) for one in last]
    return [*([[(f"  … {more:,} earlier", "dim")]] if more else []), *rows][:space]


def _troubles(state: ProgressState, width: int, space: int, *, failures: int, messages: int) -> list[Row]:
    """Draw the newest failures, the newest warning or recovery, and the last server messages.

    Failures have rows of their own, so that finished files don't scroll them away.
    """
    if space <= 0:
        return []
    last = list(state.last_failures)[-max(1, failures) :]
    why = [trouble(*MARKS[Phase.FAILED], overview.short(one.path, state), one.message, width) for one in last]
    rows: list[Row] = why[:space]
    if state.news is not None and space - len(rows) >= 1:
        mark = ("✓ ", "green") if state.news.code is WarningCode.RECOVERED else ("! ", "bold yellow")
        rows.append([mark, (safe(state.news.text[:500]), "")])
    free = min(messages, space - len(rows) - 2)
    if state.channel.state is ChannelState.LIVE and free > 0:
        rows += [[("» " + safe(text[:500]), "dim")] for text in list(state.messages)[-free:]]
    return rows


def _beside(left: Row | None, right: Row | None, column: int) -> Row:
    """Return the row `right` in a second column."""
    left = fit(left or [], column)
    return [*left, (" " * (column - width_of(left) + 2), ""), *right] if right else left
