"""Rows of styled text that fit a width."""

from __future__ import annotations

from uploader_cli.render.words import cells, clip

Span = tuple[str, str]  # a text and its rich style, as `bold cyan`
Row = list[Span]


def width_of(row: Row) -> int:
    """Return the width of a row in terminal cells."""
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


def bar(fraction: float, width: int, style: str, full: str = "━") -> Row:
    """Draw a bar with a resolution of half a cell; the rest is a thin line, readable without colour."""
    width = max(0, width)
    whole, half = divmod(int(fraction * width * 2), 2)
    edge = "╸" if half and full == "━" else ""
    return [(full * whole + edge, style), ("─" * (width - whole - len(edge)), "dim")]
