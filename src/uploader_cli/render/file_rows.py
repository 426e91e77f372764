"""Draw a file: one row (two in a narrow terminal) while it is running, one when it has ended."""

from __future__ import annotations

from uploader_cli.core.events import FileEnded, FileFailed, FileSelected, Phase
from uploader_cli.core.state import FileState, ProgressState, file_fraction
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
PAUSED = ("paused", "yellow")  # the status of a file in a pause; its percentage stays
UNCONFIRMED = 1.0
"""Seconds without confirmation after the last byte before that is shown, so that small files don't flicker."""
ONE_ROW = 60  # minimum width for one row per file
REASON_ROWS = 4  # maximum rows of a failure, also of one whose reason is a page of text
_LEFT_WIDTH = len("59:59 left")
_BLOCK = 5 + 2 + SIZE_WIDTH + 2 + RATE_WIDTH + 2 + _LEFT_WIDTH
"""Cells right of a file's bar: percent, size, rate and time left, or a status text."""


def rows_each(width: int) -> int:
    return 1 if width >= ONE_ROW else 2


def name_cells(file: FileState, state: ProgressState) -> int:
    """Return the cells of a file's name with its tag."""
    name = cells(overview.short(file.path, state))
    return name + len(_tag(file, name + 26))


def running(file: FileState, state: ProgressState, now: float, width: int, names: int) -> list[Row]:
    """Draw one row, or two in a narrow terminal. A status text replaces the numbers while a file doesn't send.

    `names` are the cells of the longest name that is shown: the bars take what the names leave, within limits.

    The only file of a run has the bar of the run: a row has its status, if there is one.
    """
    words, mark, percent = _words(file, state, now), _GLYPHS[file.phase], _percent(file)
    if state.measurable and state.selected == 1 and not state.watched:
        tag = _tag(file, width)
        name = overview.short(file.path, state)
        return (
            [[mark, (elide(name, width // 2), ""), (tag, "yellow"), ("  ", ""), words or ("", "")]]
            if words or tag
            else []
        )
    if width < ONE_ROW:
        shown = " " * 5 if words and words != PAUSED else percent
        first = [mark, *_name(file, state, width - 8), (f" {shown}", "")]
        return [first, [("  ", ""), *_second(file, words, now, width - 2)]]
    length = min(40, max(6, width - _BLOCK - 4 - names))
    row = [mark, *_name(file, state, width - _BLOCK - 4 - length), (" ", "")]
    if words and words != PAUSED and file.phase is Phase.QUEUED:
        room = max(width // 2, width - 4 - cells(words[0]))
        return [[mark, (elide(overview.short(file.path, state), room), ""), ("  ", ""), words]]
    full, speed, left = _numbers(file, now)
    numbers = (f"{percent}  {full:>{SIZE_WIDTH}}  {speed:>{RATE_WIDTH}}  {left:>{_LEFT_WIDTH}}", "")
    if words == PAUSED:
        return [[*row, *_file_bar(file, length), (f" {percent}  ", ""), PAUSED]]
    return [[*row, *_file_bar(file, length), (" ", ""), words or numbers]]


def _second(file: FileState, words: Span | None, now: float, width: int) -> Row:
    if words and ((file.phase is Phase.QUEUED and words != PAUSED) or width < 38):
        return [words]
    full, _, left = _numbers(file, now)
    tail = f"{full:>{SIZE_WIDTH}}" if width < 38 else f"{full:>10}  {left:>{_LEFT_WIDTH}}"
    if words:
        tail = words[0].ljust(22)
    return [*_file_bar(file, width - 1 - len(tail)), (" ", ""), (tail, words[1] if words else "")]


def _words(file: FileState, state: ProgressState, now: float) -> Span | None:
    """Return the status of a file that isn't sending, None for one that is."""
    match file.phase:
        case Phase.QUEUED | Phase.SENDING if state.still(now) and not _is_sent(file):
            return PAUSED
        case Phase.QUEUED:
            due, reason = file.retry_at or now, file.retry_reason
            wait = f" in {clock(due - now + 0.5)}" if due > now else ""
            why = f" · {overview.reason(reason, state)}" if reason else ""
            return f"retry {file.attempt}{wait}{why}", "yellow"
        case Phase.PROCESSING if file.server_percent is None and state.foreign and file.meter.idle(now) >= UNCONFIRMED:
            return f"the server is finishing{_since(file, now)}", "dim"
        case Phase.PROCESSING if file.server_percent is None and file.meter.idle(now) < UNCONFIRMED:
            return None
        case Phase.PROCESSING if file.server_percent is None:
            return f"waiting for the server{_since(file, now)}", "dim"
        case Phase.PROCESSING:
            return f"processing{_server_percent(file)}{_since(file, now)}", PROCESSING
        case _ if file.size is None and not file.sent:
            return f"{safe(file.server_status[:20]) or 'uploading'}{_server_percent(file)}", ""
        case _ if _is_sent(file) and file.meter.idle(now) >= UNCONFIRMED:
            return "the server is finishing" if state.foreign else "sent, not confirmed", "dim"
    return None


def _since(file: FileState, now: float) -> str:
    """Format how long the server has been processing the file; empty in the first second."""
    took = 0.0 if file.processing is None else now - file.processing
    return f" {clock(took)}" if took >= 1 else ""


def _is_sent(file: FileState) -> bool:
    return file.size is not None and file.sent >= file.size


def _name(file: FileState, state: ProgressState, width: int) -> Row:
    name, tag = overview.short(file.path, state), _tag(file, width)
    return [(pad(name, width - len(tag)), ""), (tag, "yellow")]


def _tag(file: FileState, width: int) -> str:
    """Return the number of the retry or where the file was resumed, if there is room beside its name."""
    if file.attempt > 1 and file.phase is not Phase.QUEUED and width >= 20:
        return f" retry {file.attempt - 1}"
    if file.attempt == 1 and file.offset and file.size and width >= 26:
        return f" resumed at {overview.percent(file.offset / file.size).strip()}"
    return ""


def _numbers(file: FileState, now: float) -> tuple[str, str, str]:
    """Return size, rate and time left: of a stream, the bytes sent so far; of a watched file, what the server tells."""
    if file.size is None and not file.sent:
        return "", "", ""
    speed = file.meter.rate(now)
    measured = file.sent > file.offset and (speed or file.meter.idle(now) >= overview.UNMEASURED)
    left = clock((file.size - file.sent) / speed + 0.5) if file.size is not None and measured and speed else ""
    words = f"{left} left" if 0 < len(left) <= _LEFT_WIDTH - len(" left") else left
    return size(file.sent if file.size is None else file.size), rate(speed) if measured else "–", words


def _percent(file: FileState) -> str:
    """Format the percentage in five cells, `–` for a stream, whose size is unknown."""
    return "–".rjust(5) if file.size is None and file.sent else overview.percent(file_fraction(file))


def _server_percent(file: FileState) -> str:
    """Format the server's percentage, at most 99: only the confirmation counts as 100."""
    return "" if file.server_percent is None else overview.percent(min(0.99, file.server_percent / 100))


def _file_bar(file: FileState, width: int) -> Row:
    """Draw the sent bytes; while the server processes the file, its percentage in another line style."""
    if file.phase is Phase.PROCESSING and file.server_percent is not None:
        return bar(min(0.99, (file.server_percent or 0) / 100), width, PROCESSING, "═")
    sure, reached = (file.confirmed / file.size, file.reached / file.size) if file.size else (1.0, 0.0)
    return bar(file_fraction(file), width, SENDING, confirmed=sure, reached=min(1.0, reached))


def next_up(file: FileSelected, state: ProgressState, width: int) -> Row:
    """Draw a file that will be sent soon."""
    numbers = _columns(file.size, "", width)
    return [(f"  {pad(overview.short(file.path, state), width - 2 - len(numbers))}{numbers}", "dim")]


def _columns(count: int | None, took: str, width: int) -> str:
    """Return size and time below those of running files."""
    numbers = f" {size(count) if count else '':>{SIZE_WIDTH}}"
    return numbers if width < ONE_ROW else f"{numbers}  {took:>{RATE_WIDTH}}" + " " * (_LEFT_WIDTH + 2)


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
    numbers = _columns(done.size, span(done.seconds), width)
    return [(f"{glyph} ", style), (pad(name, width - 2 - len(numbers)), ""), (numbers, "dim")]


def failure(failed: FileFailed, state: ProgressState, width: int, most: int = REASON_ROWS) -> list[Row]:
    """Draw a failure in one row, or in up to `most` if its reason does not fit beside its name."""
    (glyph, style), name = MARKS[Phase.FAILED], overview.short(failed.path, state)
    why = overview.reason(failed.message, state)
    if most < 2 or cells(name) + cells(why) + 4 <= width:
        return [_beside_name(glyph, style, name, why, width)]
    name = elide(name, width // 2)
    beside = cells(name) + 4
    first, *rest = wrap(why, width, first=" " * beside, rest="    ")
    if len(rest) >= most:
        rest[most - 2 :] = ["    " + " ".join(line.strip() for line in rest[most - 2 :])]  # is cut to the width
    below: list[Row] = [[(line, style.removeprefix("bold "))] for line in rest]
    return [_beside_name(glyph, style, name, first[beside:], width), *below]


def _beside_name(glyph: str, style: str, name: str, why: str, width: int) -> Row:
    colour = style.removeprefix("bold ")
    room = width - 4 - cells(why)
    return [(f"{glyph} ", style), (elide(name, max(8, room, width // 2 - 2)), ""), (f"  {why}", colour)]
