"""The results of `uploader check` as text: a line for each file that is not the same, and a summary."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from uploader_cli.core import events as ev
from uploader_cli.features.check.events import CheckFile, CheckFinished, CheckResult
from uploader_cli.render.words import clip, plural, safe, size, span, wrap

FRAME = 0.1  # seconds between two updates of the count


class ComparisonView:
    """Writes each line as soon as it is known; stores only counts."""

    def __init__(
        self,
        stream: TextIO,
        notes: TextIO,
        *,
        width: int,
        content: bool = False,
        verbose: bool = False,
        quiet: bool = False,
        moves: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Results go to `stream`, warnings and the count to `notes`. `width`: maximum cells per line.

        `content`: not only sizes are compared. `verbose` names every file; `quiet` omits the summary. `moves`: `notes`
        is a terminal, whose last line shows the number of compared files.
        """
        self._stream, self._notes, self._width, self._verbose, self._quiet = stream, notes, width, verbose, quiet
        self._moves, self._clock, self._due = moves and not quiet, clock, 0.0
        self._compared = self._read = 0
        self._content = content

    def tell(self, event: ev.Event) -> None:
        match event:
            case CheckFile():
                self._compared += 1
                if event.result not in (CheckResult.SAME, CheckResult.SAME_SIZE) or self._verbose:
                    self._line(f"{event.result.replace('_', ' ')}: {_described(event)}")
            case ev.FileFailed():
                self._line(f"failed: {safe(event.path)}: {safe(event.message[:500])}")
            case ev.RunWarning():
                self._line(f"warning: {safe(event.text)}", self._notes)
            case ev.FileSkipped() if self._verbose:
                self._line(f"skipped: {safe(event.path)} ({event.reason})")
            case CheckFinished() if not self._quiet:
                self._line(_summary(event, content=self._content))
                return
        self._count()

    def read(self, count: int) -> None:
        self._read += count
        self._count()

    def _count(self) -> None:
        if self._moves and self._clock() >= self._due:
            self._due = self._clock() + FRAME
            read = f", {size(self._read)} read" if self._read else ""
            line = clip(f"{plural(self._compared, 'file')} compared{read}", self._width - 1)
            self._notes.write(f"\r\x1b[K{line}")
            self._notes.flush()

    def close(self) -> None:
        """Remove the count from the terminal."""
        if self._moves:
            self._notes.write("\r\x1b[K")
            self._notes.flush()

    def _line(self, text: str, stream: TextIO | None = None) -> None:
        self.close()
        self._due, to = 0.0, stream or self._stream
        to.write("\n".join([*wrap(text, self._width, rest="  "), ""]))
        to.flush()


def _described(event: CheckFile) -> str:
    path = safe(event.path)
    if event.result is not CheckResult.DIFFERENT:
        return path
    if event.stored_size == event.size:
        return f"{path} (same size, other content)"
    return f"{path} ({event.size:,} bytes, on the server {event.stored_size:,})"


def _summary(event: CheckFinished, *, content: bool) -> str:
    others = ("different", "missing", "failed", "skipped")
    counts = [f"{event.same:,} {'same' if content else 'same size'}"]
    counts += [f"{getattr(event, name):,} {name}" for name in others if getattr(event, name)]
    how = "by content" if content else "by size only"
    return f"{', '.join(counts)} ({size(event.bytes)} in {span(event.seconds)}, {how})"
