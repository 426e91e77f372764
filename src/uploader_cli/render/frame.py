"""Draw the state as rows of styled text for a terminal of a given size.

From the top: header, totals, one row reserved for an alert, rows of features, the running files, those that are
sent next, what ended last, failures and the newest notice. Width goes to the names first, then to the bars. A running
file keeps its row; the next file reuses it. Files that end within a second are only counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

from uploader_cli.core.events import ChannelState, Phase, WarningCode
from uploader_cli.core.state import BRIEF, HISTORY, FileState, ProgressState
from uploader_cli.render import overview
from uploader_cli.render.feature_views import views
from uploader_cli.render.file_rows import (
    ONE_ROW,
    REASON_ROWS,
    SENDING,
    failure,
    finished,
    next_up,
    row_shape,
    rows_each,
    running,
)
from uploader_cli.render.words import Row, bar, cells, clock, elide, fit, moving_bar, plural, safe, width_of, wrap

FINISHED_ROWS, MESSAGE_ROWS, NEXT_ROWS = 6, 5, 8
"""Maximum rows for what ended last, for messages of the server, and for files that are sent next."""
WIDE_VIEW = 110  # minimum width for the details of the channel, and for several messages of the server
FEW_ROWS = 8  # rows below the totals; where there are fewer, running files leave none to others
SMALL_FILE = 1 << 20  # bytes; a smaller file has no row before it was running for a while
STUCK = 5.0  # seconds after which a small file that doesn't move gets a row
WAITS = (WarningCode.UNREACHABLE, WarningCode.DISK_FULL, WarningCode.RATE_LIMITED)
"""Warnings that the alert counts down."""
_DOT = (" · ", "dim")


class Frame:
    """Draws the state; stores only the row of each file."""

    def __init__(self, run: str = "", *, messages: bool = False) -> None:
        """`messages`: also show those of the server."""
        self._run, self._messages = run, messages
        self.expanded = False  # whether failures have all rows below the totals
        self._slots = Slots()

    def rows(self, state: ProgressState, now: float, width: int, height: int) -> list[Row]:
        """Return fewer than `height` rows of at most `width` cells each."""
        space = max(1, height - 1)
        files = {n: file for n, file in state.running.items() if n in self._slots or _is_long(file, state, now)}
        top = [_header(state, self._run, now, width), *_whole(state, now, width, len(state.running) - len(files))]
        alert = overview.alert(state, now)
        if cells(alert) + 2 > width:
            alert = overview.alert(state, now, brief=True)
        if alert or space >= len(top) + 6:
            top.insert(min(len(top), space - 1), [("! ", "bold yellow"), (alert, "bold")] if alert else [])
        top = top[:space]
        space -= len(top)
        if self.expanded:
            return [fit(row, width) for row in [*top, *_failures(state, width, space)]]
        shown = MESSAGE_ROWS if self._messages else 0
        body: list[Row] = []
        for view, own in views(state):
            body += view.above(own, now, width, space // 2 - len(body), still=state.still(now))
        left = space - len(body)
        body += self._running(files, state, now, width, left - (left // 3 if left >= FEW_ROWS else 0))
        for view, own in views(state):
            body += view.rows(own, now, width, space - len(body))
        free = space - len(body)
        below = _troubles(state, now, width, free, max(1, free // 4), shown if width >= WIDE_VIEW else min(1, shown))
        free = max(0, min(FINISHED_ROWS, space - len(body) - len(below)))
        below += [finished(done, state, width) for done in list(state.tree.latest)[::-1][:free][::-1]]
        body += _next(state, now, width, space - len(body) - len(below))
        body += below
        return [fit(row, width) for row in [*top, *body]]

    def _running(
        self, files: Mapping[int, FileState], state: ProgressState, now: float, width: int, space: int
    ) -> list[Row]:
        each = rows_each(width)
        capacity = space // each
        if len(files) > capacity:
            capacity = max(0, (space - 1) // each)
        numbers = self._slots.assign(files, capacity)
        shown = [files[number] for number in numbers]
        shape = row_shape(shown, state, width)
        rows = [row for file in shown for row in running(file, state, now, width, shape)]
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
    if file.size is None or file.phase is Phase.QUEUED or file.size >= _least_size(state, now):
        return True
    return now - file.started >= (BRIEF if _busy(file) else STUCK)


def _least_size(state: ProgressState, now: float) -> float:
    """Return from which size on a file is expected to take longer than a second."""
    return max(SMALL_FILE, state.rate(now) / max(1, len(state.running)) * BRIEF)


def _next(state: ProgressState, now: float, width: int, space: int) -> list[Row]:
    """Draw the files that are sent next."""
    least, some = _least_size(state, now), islice(state.unstarted.values(), HISTORY)
    queued = [file for file in some if file.size is None or file.size >= least]
    return [next_up(file, state, width) for file in queued[: max(0, min(space, NEXT_ROWS))]]


# --- the top rows -----------------------------------------------------------------------------------------------------


def _header(state: ProgressState, run: str, now: float, width: int) -> Row:
    """Return the longest header that fits; run, session, the program's name and the time are dropped in this order."""
    source, place = overview.what(state), overview.destination(state) if state.server else "…"
    arrow: Row = [("→ ", "dim"), (place, "bold")]
    title: Row = [(f"{source} ", "bold"), *arrow] if source else arrow
    full: Row = [("uploader  ", "bold"), *title]
    glyph, words, style = overview.channel(state, now, latency=width >= WIDE_VIEW)
    channel: Row = [(f"{glyph} {words if width >= WIDE_VIEW else words.removesuffix(' websocket')}".strip(), style)]
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
    """Draw the bar with the percentage, and the totals in a row, two in a narrow terminal."""
    if state.waiting:
        return [[(overview.waiting(state), "bold")], *_totals(state, now, width, small)]
    if not (state.measurable or state.watched):
        return [moving_bar(now, width, SENDING), *_totals(state, now, width, small)]
    percent: Row = [(" " + overview.share(state), "bold")]
    total = state.total_bytes
    sure, reached = (state.bytes_confirmed / total, state.bytes_reached / total) if total else (1.0, 0.0)
    drawn = bar(state.fraction, width - width_of(percent), SENDING, confirmed=sure, reached=min(1.0, reached))
    first = [*drawn, *percent]
    return [first, *_totals(state, now, width, small)]


def _totals(state: ProgressState, now: float, width: int, small: int) -> list[Row]:
    """Draw `2 of 6 done (2 before) · 46.2 of 120.2 MiB · 4.0 MiB/s · 0:37 left`; what does not fit is left out.

    A narrow terminal has two rows, and a third one where failures do not fit beside what is done.
    """
    is_sending = not (state.waiting or (state.watched and not state.bytes_through))
    alone = state.measurable and state.selected == 1 and is_sending and not state.watched
    left_out = state.skipped - state.there
    files = [
        _Part("" if alone else overview.counts(state), "bold"),
        _Part(overview.failed(state), "bold red"),
    ]
    data = [
        _Part(overview.amount(state), rank=1),
        _Part(overview.speed(state, now), rank=2),
        _Part(overview.pace(state, now), rank=4),
    ]
    left = [_Part(overview.left(state, now), rank=1)]
    others = [
        _Part(f"{left_out:,} skipped" if left_out else "", rank=3),
        _Part(f"{state.cancelled:,} cancelled" if state.cancelled else "", "yellow", rank=3),
        _Part(f"{state.retries:,} retried" if state.retries else "", "yellow", rank=5),
        _Part(f"{plural(small, 'small file')} under way" if small else "", rank=6),
    ]
    if not is_sending:
        return [_fitting([*files, *others], width)]
    if width >= ONE_ROW:
        return [_fitting([*files, *data, *left, *others], width)]
    if cells(f"{files[0].text} · {files[1].text}") > width:
        return [_fitting([files[0], *left, *others], width), _fitting(files[1:], width), _fitting(data, width)]
    return [_fitting([*files, *left, *others], width), _fitting(data, width)]


class _Part(NamedTuple):
    """A part of the totals; those with the highest rank are left out first."""

    text: str
    style: str = ""
    rank: int = 0


def _fitting(parts: list[_Part], width: int) -> Row:
    """Return the parts that fit, with dots between them."""
    parts = [part for part in parts if part.text]
    while True:
        row: Row = [span for part in parts for span in (_DOT, (part.text, part.style))][1:]
        if width_of(row) <= width or len(parts) < 2:
            return row
        parts.remove(max(reversed(parts), key=lambda part: part.rank))


# --- failures and messages --------------------------------------------------------------------------------------------


def _failures(state: ProgressState, width: int, space: int) -> list[Row]:
    """Draw the newest failures, and the number of those that don't fit."""
    if not state.failed:
        return [[("no file has failed", "dim")]][:space]
    rows, shown = list[Row](), 0
    for one in reversed(state.last_failures):
        drawn = failure(one, state, width)
        if len(rows) + len(drawn) + (shown + 1 < state.failed) > space:
            break
        rows, shown = [*drawn, *rows], shown + 1
    more = state.failed - shown
    return [*([[(f"  … {more:,} earlier", "dim")]] if more else []), *rows][:space]


def _troubles(state: ProgressState, now: float, width: int, space: int, failures: int, messages: int) -> list[Row]:
    """Draw the newest failures, the newest warning or recovery, and the last server messages.

    Failures have rows of their own, so that finished files don't scroll them away.
    """
    if space <= 0:
        return []
    last = list(state.last_failures)[-max(1, failures) :]
    most = max(1, min(REASON_ROWS, (space - 2) // len(last))) if last else 1
    rows = [row for one in last for row in failure(one, state, width, most)][:space]
    if state.news is not None and not (state.paused(now) and state.news.code in WAITS) and space - len(rows) >= 1:
        mark = ("✓ ", "green") if state.news.code is WarningCode.RECOVERED else ("! ", "bold yellow")
        lines = wrap(overview.reason(state.news.text, state), width - 2)[: min(2, space - len(rows))]
        rows += [[mark if line is lines[0] else ("  ", ""), (line, "")] for line in lines]
    if (text := overview.resuming(state)) and space - len(rows) >= 1:
        rows.append([("↻ ", "yellow"), (text, "")])
    free = min(messages, space - len(rows) - 2)
    if state.channel.state is ChannelState.LIVE and free > 0:
        rows += [[("» " + safe(text[:500]), "dim")] for text in list(state.messages)[-free:]]
    return rows
