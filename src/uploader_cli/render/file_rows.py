"""Draw a file: one row (two in a narrow terminal) while it is running, one when it has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from uploader_cli.core.events import FileEnded, FileFailed, FileSelected, Phase
from uploader_cli.core.state import BRIEF, FileState, ProgressState, file_fraction
from uploader_cli.core.tree import Directory
from uploader_cli.render import overview
from uploader_cli.render.words import (
    RATE_WIDTH,
    SIZE_WIDTH,
    Row,
    Span,
    bar,
    cells,
    clock,
    elide,
    pad,
    plural,
    rate,
    safe,
    size,
    span,
    wrap,
)

SENDING, PROCESSING = "cyan", "magenta"
MARKS = {
    Phase.COMPLETED: ("✓", "green"),
    Phase.FAILED: ("✗", "bold red"),
    Phase.CANCELLED: ("■", "yellow"),
    Phase.SKIPPED: ("-", "dim"),
}
_GLYPHS = {Phase.QUEUED: ("↻ ", "yellow"), Phase.SENDING: ("↑ ", SENDING), Phase.PROCESSING: ("⋯ ", PROCESSING)}
UNCONFIRMED = 1.0
"""Seconds without confirmation after the last byte before that is shown, so that small files don't flicker."""
ONE_ROW = 60  # minimum width for one row per file
REASON_ROWS = 4  # maximum rows of a failure, also of one whose reason is a page of text
_LEFT_WIDTH = len("59:59 left")
_FIXED = 2 + 1 + 6 + 1 + 5 + 2 + _LEFT_WIDTH  # cells of a row without name, size and rate: the bar has at least 6
_FULL_NAME = 40  # cells that a name has before size and rate of the rows


def rows_each(width: int) -> int:
    return 1 if width >= ONE_ROW else 2


class RowShape(NamedTuple):
    """The cells of the columns of running files; size and rate are left out where names need their room."""

    name: int
    bar: int
    size: int
    rate: int


def row_shape(files: Sequence[FileState], state: ProgressState, width: int) -> RowShape:
    """Give the width to the names first, then to size and rate, tags of names, and the bars."""
    names = [cells(overview.short(file.path, state)) for file in files]
    tagged = max((name + len(_tag(file)) for name, file in zip(names, files, strict=True)), default=0)
    room = width - _FIXED - min(_FULL_NAME, max(names, default=0))
    speed = RATE_WIDTH + 2 if room >= RATE_WIDTH + 2 else 0
    total = SIZE_WIDTH + 2 if room >= speed + SIZE_WIDTH + 2 else 0
    room = width - _FIXED - total - speed
    longer = max(0, min(34, room - tagged))
    return RowShape(room - longer, 6 + longer, total, speed)


def running(file: FileState, state: ProgressState, now: float, width: int, shape: RowShape) -> list[Row]:
    """Draw one row, or two in a narrow terminal. A status replaces the numbers while a file doesn't send.

    The only file of a run has the bar of the run: a row has its status, if there is one.
    """
    held, mark = _held(file, state, now), _GLYPHS[file.phase]
    words, percent = held or _words(file, state, now), _percent(file)
    if state.measurable and state.selected == 1 and not state.watched:
        words = None if state.silent(now) else words  # the notice says so
        tag, status = _tag(file), words or ("", "")
        name = elide(overview.short(file.path, state), max(width // 2, width - 4 - len(tag) - cells(status[0])))
        return [[mark, (name, ""), (tag, "yellow"), ("  ", ""), status]] if words or tag else []
    if width < ONE_ROW:
        shown = f" {percent}" if held or not words else ""
        first = [mark, *_name(file, state, width - 2 - len(shown)), (shown, "")]
        return [first, [("  ", ""), *_second(file, words, now, width - 2, whole=held is None)]]
    if words and not held and file.phase is Phase.QUEUED:
        name = elide(overview.short(file.path, state), max(width // 2, width - 4 - cells(words[0])))
        return [[mark, (name, ""), ("  ", ""), words]]
    row = [mark, *_name(file, state, shape.name), (" ", ""), *_file_bar(file, shape.bar)]
    if held:
        return [[*row, (f" {percent}  ", ""), held]]
    full, speed, left = _numbers(file, now)
    numbers = f" {percent}{full:>{shape.size}}" if shape.size else f" {percent}"
    numbers += f"{speed:>{shape.rate}}" if shape.rate else ""
    return [[*row, *([(" ", ""), words] if words else [(f"{numbers}  {left:>{_LEFT_WIDTH}}", "")])]]


def _second(file: FileState, words: Span | None, now: float, width: int, *, whole: bool) -> Row:
    """Draw the second row in a narrow terminal; `whole`: the status has no percentage beside it."""
    if words and ((file.phase is Phase.QUEUED and whole) or width < 38):
        return [words]
    full, _, left = _numbers(file, now)
    tail = f"{full:>{SIZE_WIDTH}}" if width < 38 else f"{full:>10}  {left:>{_LEFT_WIDTH}}"
    if words:
        tail = words[0].ljust(22)
    return [*_file_bar(file, width - 1 - len(tail)), (" ", ""), (tail, words[1] if words else "")]


def _held(file: FileState, state: ProgressState, now: float) -> Span | None:
    """Return why the file does not move, beside its percentage, which stays; None where it does.

    Where all files begin to be silent, their rows say so together. One of which nothing has left, beside others that
    move, may wait for its turn: a batch is one request.
    """
    if file.phase in (Phase.QUEUED, Phase.SENDING) and state.halted(now) and not _is_sent(file):
        return "paused", "yellow"
    together = state.silent(now) or (state.meter.idle(now) < BRIEF and file.sent > file.offset)
    return (f"no progress {clock(file.meter.idle(now))}", "yellow") if file.silent(now) and together else None


def _words(file: FileState, state: ProgressState, now: float) -> Span | None:
    """Return the status of a file that isn't sending, None for one that is."""
    match file.phase:
        case Phase.QUEUED:
            due, reason = file.retry_at or now, file.retry_reason
            wait = f" in {clock(due - now + 0.5)}" if due - now >= 0.5 else ""
            why = f" · {overview.reason(reason, state)}" if reason else ""
            return f"retry {file.attempt}{wait}{why}", "yellow"
        case Phase.PROCESSING if _step(file) is not None:
            return f"processing{_server_percent(file)}{_since(file, now)}", PROCESSING
        case Phase.PROCESSING if file.meter.idle(now) < UNCONFIRMED:
            return None
        case Phase.PROCESSING if state.finishes_late:
            return f"the server is finishing{_since(file, now)}", "dim"
        case Phase.PROCESSING if file.server_status:
            return f"processing{_since(file, now)}", PROCESSING
        case Phase.PROCESSING:
            return f"waiting for the server{_since(file, now)}", "dim"
        case _ if file.size is None and not file.sent:
            return f"{safe(file.server_status[:20]) or 'uploading'}{_server_percent(file)}", ""
        case _ if _is_sent(file) and file.meter.idle(now) >= UNCONFIRMED:
            return "the server is finishing" if state.finishes_late else "sent, not confirmed", "dim"
    return None


def _since(file: FileState, now: float) -> str:
    """Format how long the server has been processing the file; empty in the first second."""
    took = 0.0 if file.processing is None else now - file.processing
    return f" {clock(took)}" if took >= 1 else ""


def _is_sent(file: FileState) -> bool:
    return file.size is not None and file.sent >= file.size


def _name(file: FileState, state: ProgressState, width: int) -> Row:
    """Draw the name, and its tag where there is room beside it."""
    name, tag = overview.short(file.path, state), _tag(file)
    if cells(name) + len(tag) > width:
        tag = ""
    return [(pad(name, width - len(tag)), ""), (tag, "yellow")]


def _tag(file: FileState) -> str:
    """Return the number of the retry, or where the file was resumed."""
    if file.attempt > 1 and file.phase is not Phase.QUEUED:
        return f" retry {file.attempt - 1}"
    if file.attempt == 1 and file.offset and file.size:
        return f" resumed at {overview.percent(file.offset / file.size).strip()}"
    return ""


def _numbers(file: FileState, now: float) -> tuple[str, str, str]:
    """Return size, rate and time left: of a stream, the bytes sent so far; of a watched file, what the server tells."""
    if file.size is None and not file.sent:
        return "", "", ""
    speed = file.meter.rate(now)
    measured = speed > 0 and file.sent > file.offset
    left = clock((file.size - file.sent) / speed + 0.5) if file.size is not None and measured else ""
    words = f"{left} left" if 0 < len(left) <= _LEFT_WIDTH - len(" left") else left
    return size(file.sent if file.size is None else file.size), rate(speed) if measured else "–", words


def _percent(file: FileState) -> str:
    """Format the percentage in five cells, `–` for a stream, whose size is unknown."""
    return "–".rjust(5) if file.size is None and file.sent else overview.percent(file_fraction(file))


def _server_percent(file: FileState) -> str:
    """Format the server's percentage, at most 99: only the confirmation counts as 100."""
    return "" if file.server_percent is None else overview.percent(min(0.99, file.server_percent / 100))


def _step(file: FileState) -> float | None:
    """Return the server's percentage of processing; None where it tells the bytes that it has instead."""
    return None if file.counts_bytes else file.server_percent


def _file_bar(file: FileState, width: int) -> Row:
    """Draw the sent bytes; while the server processes the file, its percentage in another line style."""
    if file.phase is Phase.PROCESSING and (step := _step(file)) is not None:
        return bar(min(0.99, step / 100), width, PROCESSING, "═")
    sure, reached = (file.confirmed / file.size, file.reached / file.size) if file.size else (1.0, 0.0)
    return bar(file_fraction(file), width, SENDING, confirmed=sure, reached=min(1.0, reached))


def next_up(file: FileSelected, state: ProgressState, width: int) -> Row:
    """Draw a file that will be sent soon."""
    name, numbers = _before_numbers(overview.short(file.path, state), file.size, "", width)
    return [(f"  {name}{numbers}", "dim")]


def _before_numbers(name: str, count: int | None, took: str, width: int) -> tuple[str, str]:
    """Return the name, and size and time: below those of running files, at the end, or none, as it leaves room."""
    total = size(count) if count is not None else ""
    ends = [f" {total:>{SIZE_WIDTH}}", f"  {total}"]
    if width >= ONE_ROW:
        ends[:0] = [f" {total:>{SIZE_WIDTH}}  {took:>{RATE_WIDTH}}" + " " * (_LEFT_WIDTH + 2), f"  {total}  {took}"]
    end = next((end for end in [*ends, ""] if 2 + cells(name) + len(end) <= width), ends[-1])
    return pad(name, width - 2 - len(end)), end


def finished(done: FileEnded | Directory, state: ProgressState, width: int) -> Row:
    """Draw a file that has ended with its size and time, or the reason; or a directory whose files have all ended."""
    name = overview.short(done.path, state)
    if not isinstance(done, FileEnded):
        numbers = plural(done.files, "file") + (f", {done.failed:,} failed" if done.failed else "")
        numbers = f"  {numbers}  {size(done.bytes)}"
        mark, style = MARKS[Phase.FAILED if done.failed else Phase.COMPLETED]
        return [(f"{mark} ", style), (elide(name[:-1], max(8, width - 2 - len(numbers))), ""), (numbers, "dim")]
    glyph, style = MARKS[done.outcome]
    if done.outcome is not Phase.COMPLETED:
        why = done.message or done.reason or done.outcome.value
        return _beside_name(glyph, style, name, overview.reason(why, state), width)
    name, numbers = _before_numbers(name, done.size, span(done.seconds), width)
    return [(f"{glyph} ", style), (name, ""), (numbers, "dim")]


def failure(failed: FileFailed, state: ProgressState, width: int, most: int = REASON_ROWS) -> list[Row]:
    """Draw a failure in one row, or in up to `most` if its reason does not fit beside its name.

    A name that takes more than half of the width has a row of its own.
    """
    (glyph, style), name = MARKS[Phase.FAILED], overview.short(failed.path, state)
    why = overview.reason(failed.message, state)
    if most < 2 or cells(name) + cells(why) + 4 <= width:
        return [_beside_name(glyph, style, name, why, width)]
    beside = cells(name) + 4 if cells(name) <= width // 2 else width
    first, *rest = wrap(why, width, first=" " * beside, rest="    ")
    if len(rest) >= most:
        rest[most - 2 :] = ["    " + " ".join(line.strip() for line in rest[most - 2 :])]  # is cut to the width
    below: list[Row] = [[(line, style.removeprefix("bold "))] for line in rest]
    if beside == width:
        return [[(f"{glyph} ", style), (elide(name, width - 2), "")], *below]
    return [_beside_name(glyph, style, name, first[beside:], width), *below]


def _beside_name(glyph: str, style: str, name: str, why: str, width: int) -> Row:
    colour = style.removeprefix("bold ")
    room = width - 4 - cells(why)
    return [(f"{glyph} ", style), (elide(name, max(8, room, width // 2 - 2)), ""), (f"  {why}", colour)]
