"""Draw a file: one row (two in a narrow terminal) while it is running, one when it has ended."""

from __future__ import annotations

from uploader_cli.core.events import FileEnded, Phase
from uploader_cli.core.state import BRIEF, FileState, ProgressState, file_fraction
from uploader_cli.core.tree import Directory
from uploader_cli.render import overview
from uploader_cli.render.words import (
    RATE_WIDTH,
    SIZE_WIDTH,
    Row,
    Span,
    bar,
    clock,
    elide,
    pad,
    plural,
    rate,
    safe,
    size,
    span,
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
_BLOCK = 5 + 2 + SIZE_WIDTH + 2 + RATE_WIDTH
"""Cells right of a file's bar: percent, size and rate, or a status text."""


def rows_each(width: int) -> int:
    return 1 if width >= ONE_ROW else 2


def running(file: FileState, state: ProgressState, now: float, width: int) -> list[Row]:
    """Draw one row, or two in a narrow terminal. A status text replaces the numbers while a file doesn't send."""
    words, mark, percent = _words(file, state, now), _GLYPHS[file.phase], _percent(file)
    if width < ONE_ROW:
        first = [mark, *_name(file, state, width - 8), (" " + (" " * 5 if words else percent), "")]
        return [first, [("  ", ""), *_second(file, words, now, width - 2)]]
    length = min(40, max(8, (width - _BLOCK - 4) // 3))
    row = [mark, *_name(file, state, width - _BLOCK - 4 - length), (" ", "")]
    if words and file.phase is Phase.QUEUED:
        return [[*row, words]]
    full, speed = _numbers(file, now)
    numbers = (f"{percent}  {full:>{SIZE_WIDTH}}  {speed:>{RATE_WIDTH}}", "")
    return [[*row, *_file_bar(file, length), (" ", ""), words or numbers]]


def _second(file: FileState, words: Span | None, now: float, width: int) -> Row:
    if words and (file.phase is Phase.QUEUED or width < 38):
        return [words]
    full, speed = _numbers(file, now)
    tail = f"{full:>{SIZE_WIDTH}}" if width < 38 else f"{full:>10} {speed:>{RATE_WIDTH}}"
    if words:
        tail = words[0].ljust(22)
    return [*_file_bar(file, width - 1 - len(tail)), (" ", ""), (tail, words[1] if words else "")]


def _words(file: FileState, state: ProgressState, now: float) -> Span | None:
    """Return the status of a file that isn't sending, None for one that is."""
    match file.phase:
        case Phase.QUEUED:
            due, reason = file.retry_at or now, file.retry_reason
            wait = f" in {clock(due - now + 0.5)}" if due > now else ""
            return f"retry {file.attempt}{wait}" + (f" · {safe(reason[:200])}" if reason else ""), "yellow"
        case Phase.PROCESSING if file.server_percent is None:
            return "waiting for the server", "dim"
        case Phase.PROCESSING:
            return f"processing{_server_percent(file)}", PROCESSING
        case _ if file.size is None and not file.sent:
            return f"{safe(file.server_status[:20]) or 'uploading'}{_server_percent(file)}", ""
        case _ if file.size is not None and file.sent >= file.size and file.meter.idle(now) >= UNCONFIRMED:
            return "sent, not confirmed", "dim"
        case _ if state.held is not None and now - state.advanced >= BRIEF:
            return "paused", "yellow"
    return None


def _name(file: FileState, state: ProgressState, width: int) -> Row:
    name, tag = overview.short(file.path, state), ""
    if file.attempt > 1 and file.phase is not Phase.QUEUED and width >= 20:
        tag = f" retry {file.attempt - 1}"
    elif file.attempt == 1 and file.offset and file.size and width >= 28:
        tag = f" resumed at {overview.percent(file.offset / file.size).strip()}"
    return [(pad(name, width - len(tag)), ""), (tag, "yellow")]


def _numbers(file: FileState, now: float) -> tuple[str, str]:
    """Return size and rate: of a stream, the bytes sent so far; of a watched file, nothing is known."""
    if file.size is None and not file.sent:
        return "", ""
    speed = file.meter.rate(now)
    measured = file.sent > file.offset and (speed or file.meter.idle(now) >= 1.0)
    return size(file.sent if file.size is None else file.size), rate(speed) if measured else "–"


def _percent(file: FileState) -> str:
    """Format the percentage in five cells, `–` for a stream, whose size is unknown."""
    return "–".rjust(5) if file.size is None and file.sent else overview.percent(file_fraction(file))


def _server_percent(file: FileState) -> str:
    """Format the server's percentage, at most 99: only the confirmation counts as 100."""
    return "" if file.server_percent is None else overview.percent(min(0.99, file.server_percent / 100))


def _file_bar(file: FileState, width: int) -> Row:
    """Draw the sent bytes; while the server processes the file, its percentage in another line style."""
    if file.phase is Phase.PROCESSING:
        return bar(min(0.99, (file.server_percent or 0) / 100), width, PROCESSING, "═")
    return bar(file_fraction(file), width, SENDING)


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
        return trouble(glyph, style, name, done.message or done.reason or done.outcome.value, width)
    numbers = f" {size(done.size) if done.size else '':>{SIZE_WIDTH}}"
    if width >= ONE_ROW:
        numbers += f"  {span(done.seconds):>{RATE_WIDTH}}"
    return [(f"{glyph} ", style), (pad(name, width - 2 - len(numbers)), ""), (numbers, "dim")]


def trouble(glyph: str, style: str, name: str, why: str, width: int) -> Row:
    return [
        (f"{glyph} ", style),
        (elide(name, max(8, width // 2 - 2)), ""),
        (f"  {safe(why[:500])}", style.removeprefix("bold ")),
    ]
