"""Format sizes, times and names for display, and fit rows of styled text into a width.

Names are untrusted: characters that move the cursor, hide or reorder text are shown as escapes. Widths are in terminal
cells; where terminals differ the larger width is used, so that a line never wraps.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from uploader_cli.core.names import escaped
from uploader_cli.outputs import ascii_signs

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_PRESENTATION = frozenset("\ufe0e\ufe0f" + "".join(map(chr, range(0x1F3FB, 0x1F400))))
"""Emoji style and skin tone: omitted, because terminals differ in their width."""
_WIDE_SINCE_UNICODE_16 = {*range(0x2630, 0x2638), *range(0x268A, 0x2690), *range(0x4DC0, 0x4E00)}
_WIDE_SINCE_UNICODE_16 |= {*range(0x1D300, 0x1D377)}
_INVISIBLE_LETTERS = {*range(0x115F, 0x1200), 0x3164, 0xFFA0}

SIZE_WIDTH = 9  # width of the longest `size()`: `999.9 MiB`
RATE_WIDTH = SIZE_WIDTH + 2


def size(count: float) -> str:
    """Format bytes as `310.0 MiB`, with at most three digits before the point."""
    value, unit = _scaled(count)
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def rate(count: float) -> str:
    return f"{size(count)}/s"


def size_of(done: float, total: float) -> str:
    """Format `12.4 of 310.0 MiB`: both in the unit of the total."""
    _, unit = _scaled(max(done, total))
    scale, digits = 1024**unit, 0 if unit == 0 else 1
    return f"{done / scale:.{digits}f} of {total / scale:.{digits}f} {_UNITS[unit]}"


def _scaled(count: float) -> tuple[float, int]:
    value, unit = max(0.0, float(count)), 0
    while value >= 999.95 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return value, unit


def clock(seconds: float) -> str:
    """Format a duration as `1:05`, `1:02:03` or, from 100 hours on, `4 d 4 h`."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 100:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def span(seconds: float) -> str:
    """Format a measured time as `40 ms`, `0.4 s`, `12.3 s`, from a minute on `1:05`."""
    if 0 < seconds < 0.095:
        return f"{max(1.0, seconds * 1000):.0f} ms"
    return f"{max(0.0, seconds):.1f} s" if seconds < 59.95 else clock(seconds + 0.5)


def plural(count: int, noun: str) -> str:
    """Format `1 file`, `20 files`, `5,000 files`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


# --- names -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2048)
def safe(text: str) -> str:
    r"""Return the text for display: one line, composed (NFC), with control characters, bidi marks, zero-width
    characters and undecodable bytes as escapes (`\n`, `\x1b`, `\u202e`, `\xff`).
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, unicodedata.normalize("NFC", escaped(text))))


def _visible(char: str) -> str:
    if char in _PRESENTATION:
        return ""
    if unicodedata.category(char) == "Zs":
        return " " * cell(char)
    if not char.isprintable() or ord(char) in _INVISIBLE_LETTERS:
        return char.encode("unicode_escape").decode("ascii")
    return char


# --- widths ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def cell(char: str) -> int:
    """Return the width of a character in cells: 0 for a combining mark, 2 for a wide one."""
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    wide = unicodedata.east_asian_width(char) in "WF" or ord(char) in _WIDE_SINCE_UNICODE_16
    return 2 if wide else 1


def cells(text: str) -> int:
    """Return the width in cells of a text from `safe`."""
    return len(text) if text.isascii() else sum(map(cell, text))


def clip(text: str, width: int) -> str:
    """Cut the text to `width` cells, at the end, with `…`."""
    if cells(text) <= width:
        return text
    return _head(text, width - 1) + "…" if width > 0 else ""


def elide(text: str, width: int) -> str:
    """Cut the text to `width` cells, in the middle, with `…`: a path keeps its start and its file name's end."""
    if cells(text) <= width:
        return text
    if width < 5:
        return clip(text, width)
    tail = (width - 1) * 3 // 5
    return _head(text, width - 1 - tail) + "…" + _head(text[::-1], tail)[::-1]


def ascii_only(text: str) -> str:
    """Return the text in ASCII: our signs by others, each other character by a `?` for each of its cells."""
    if text.isascii():
        return text
    return "".join(char if char.isascii() else "?" * cell(char) for char in ascii_signs(text))


def pad(text: str, width: int) -> str:
    """Elide or fill the text to exactly `width` cells."""
    text = elide(text, width)
    return text + " " * (width - cells(text))


def _head(text: str, width: int) -> str:
    used = 0
    for index, char in enumerate(text):
        used += cell(char)
        if used > width:
            return text[:index]
    return text


def wrap(text: str, width: int, *, first: str = "", rest: str = "") -> list[str]:
    """Break the text into lines of at most `width` cells, at spaces, and within words wider than a line.

    `first` and `rest` are prefixes of the first line and the others. No text is lost.
    """
    lines, line, empty = [], first, True
    for word in text.split(" "):
        if not empty and cells(line) + 1 + cells(word) > width:
            lines.append(line)
            line, empty = rest, True
        line += word if empty else " " + word
        empty = False
        while cells(line) > width:
            head = _head(line, max(width, cells(rest) + 2))
            lines.append(head)
            line = rest + line[len(head) :]
    return [*lines, line]


# --- rows of styled text ----------------------------------------------------------------------------------------------

Span = tuple[str, str]  # a text and its rich style, as `bold cyan`
Row = list[Span]


def width_of(row: Row) -> int:
    return sum(cells(text) for text, _ in row)


def fit(row: Row, width: int) -> Row:
    """Return the row cut to `width`, without trailing spaces."""
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


def bar(
    fraction: float, width: int, style: str, full: str = "━", *, confirmed: float = 1.0, reached: float = 0.0
) -> Row:
    """Draw a bar with a resolution of half a cell; the rest is a thin line, readable without colour.

    From the fraction `confirmed` on it is dim: that was sent, and nobody knows yet whether it arrived. Up to the
    fraction `reached` it is shaded: that was sent before, and must be sent again.
    """
    width = max(0, width)
    whole, half = divmod(int(fraction * width * 2), 2)
    edge = "╸" if half and full == "━" else ""
    sure = min(whole, int(confirmed * width))
    shaded = max(0, int(reached * width) - whole - len(edge))
    left = width - whole - len(edge) - shaded
    sent = full * (whole - sure) + edge
    if sure == whole:
        return [(full * whole + edge, style), ("╍" * shaded, f"dim {style}"), ("─" * left, "dim")]
    return [(full * sure, style), (sent, f"dim {style}"), ("╍" * shaded, f"dim {style}"), ("─" * left, "dim")]


def moving_bar(now: float, width: int, style: str) -> Row:
    """Draw the bar of something whose size is unknown: a segment that moves to and fro, a cell every tenth second."""
    width = max(0, width)
    segment = min(width, max(3, width // 6))
    way = width - segment
    at = abs(int(now * 10) % (2 * way) - way) if way else 0
    return [("─" * at, "dim"), ("━" * segment, style), ("─" * (way - at), "dim")]
