"""The event stream: one JSON object per line, see `event_schema`."""

from __future__ import annotations

import secrets
import select
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from msgspec import Struct
from msgspec.json import Encoder

from uploader_cli.core import events as ev
from uploader_cli.core.names import inert, portable, rfc3339
from uploader_cli.core.state import Observer, ProgressState

STREAM_VERSION = 1
_SPACING = 0.34
"""Seconds between two progress lines of a file: at most four a second with the last one, which is never dropped."""
_MOST = 1000  # maximum lines buffered for one write
_encode = Encoder().encode


class _Throttle(Struct):
    """The progress of one file: when the next line is due, and the newest pending event."""

    due: float
    pending: ev.FileProgress | None = None


class NdjsonView(Observer):
    """Writes the lines of a frame together, in UTF-8, and flushes them; the last line at once.

    A closed pipe raises BrokenPipeError.
    """

    def __init__(self, stream: TextIO, run_id: str = "", wall_clock: Callable[[], float] = time.time) -> None:
        """`wall_clock` returns unix seconds; a stream with a `buffer` gets bytes, whatever its encoding.

        A command without a run gets a random `run_id`.
        """
        self._stream = stream
        self._buffer = getattr(stream, "buffer", None)
        self._run = run_id or secrets.token_hex(8)
        self._wall_clock = wall_clock
        self._seq = 0
        self._lines: list[bytes] = []
        self._head = b""  # the common part of the lines of one write
        self.files: dict[int, _Throttle] = {}
        self._ended = False

    def tell(self, event: ev.Event) -> None:
        """Write one event at once, in a command without a run."""
        self.handle(event, ProgressState(), 0.0)
        self._put()

    def handle(self, event: ev.Event, _state: ProgressState, now: float) -> None:
        """Format the event's line; progress is throttled per file."""
        if self._ended or not event.type:
            return
        match event:
            case ev.FileProgress() if not event.phase.terminal:
                self._progress(event, now)
                return
            case ev.FileProgress() | ev.FileSkipped():
                self.files.pop(event.file, None)
            case ev.FileStarted() | ev.FileRetry() if event.file in self.files:
                self.files[event.file].pending = None  # of an earlier attempt
            case ev.FileCompleted() | ev.FileFailed():
                self._flush(event.file)
            case ev.Event(ends=True):
                for file in list(self.files):
                    self._flush(file)
                self._write(event)
                self._ended = True
                self._put()
                return
        self._write(event)

    def refresh(self, _state: ProgressState, now: float) -> None:
        """Write the buffered lines and the pending progress that is due."""
        for throttle in self.files.values():
            if throttle.pending is not None and now >= throttle.due:
                pending, throttle.pending, throttle.due = throttle.pending, None, now + _SPACING
                self._write(pending)
        self._put()

    def close(self, _state: ProgressState, _now: float) -> None:
        """Write the rest, of a run that ended with an error."""
        self._put()

    def _progress(self, event: ev.FileProgress, now: float) -> None:
        throttle = self.files.setdefault(event.file, _Throttle(now))
        if now < throttle.due:
            throttle.pending = event
            return
        throttle.pending, throttle.due = None, now + _SPACING
        self._write(event)

    def _flush(self, file: int) -> None:
        throttle = self.files.pop(file, None)
        if throttle is not None and throttle.pending is not None:
            self._write(throttle.pending)

    def _write(self, event: ev.Event) -> None:
        self._seq += 1
        if not self._lines:
            self._head = b'"run":%b,"ts":"%b",' % (_encode(self._run), rfc3339(self._wall_clock()).encode())
        try:
            text = _encode(event.public)
        except UnicodeEncodeError:  # a name that is no UTF-8
            text = _encode({"type": event.type, **portable(ev.as_fields(event))})
        self._lines.append(b'{"v":%d,"seq":%d,%b%b' % (STREAM_VERSION, self._seq, self._head, text[1:]))
        if len(self._lines) >= _MOST:
            self._put()

    def _put(self) -> None:
        if not self._lines:
            return
        text = inert(b"\n".join([*self._lines, b""]).decode())
        self._lines.clear()  # before the write: lines are not written again after a failure
        if self._buffer is not None:
            for piece in _pieces(text.encode()):
                self._buffer.write(piece)
                self._buffer.flush()
        else:
            self._stream.write(text)
            self._stream.flush()


def _pieces(data: bytes) -> Iterator[bytes]:
    """Yield whole lines in pieces that a pipe takes as a whole: the reader of a killed run gets no part of a line.

    In a file, `kill -9` can cut the last line at the end of a page.
    """
    start = 0
    while len(data) - start > select.PIPE_BUF:  # a pipe takes as many bytes as a whole
        end = data.rfind(b"\n", start, start + select.PIPE_BUF) + 1 or data.find(b"\n", start) + 1
        yield data[start:end]
        start = end
    yield data[start:]
