"""The event stream: one JSON object a line, as `events.schema.json` describes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, TextIO

from uploader_cli.core import events as ev
from uploader_cli.core.names import as_base64, escaped, inert

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.state import ProgressState

VERSION = 1
_SPACING = 0.34
"""Seconds between two progress lines of a file: three a second, and a fourth for the last, which is never dropped."""
_MOST = 1000
"""Lines kept back for one write."""
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


_TEXT: dict[type, Callable[[Any], str]] = {
    str: encode_basestring,
    int: str,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): lambda _value: "null",
}
"""How the values of most fields are written: an encoder for each line took half of the time of `--json`."""


def _object(fields: dict[str, Any]) -> str:
    """Return the fields of a JSON object, each with a comma before it."""
    return "".join([f',"{name}":{_TEXT.get(type(value), _encode)(value)}' for name, value in fields.items()])


def schema_text() -> str:
    """The JSON Schema (draft 2020-12) of one line."""
    return resources.files("uploader_cli").joinpath("events.schema.json").read_text(encoding="utf-8")


_PUBLIC = frozenset(ev.PUBLIC)


@dataclass(slots=True)
class _Throttle:
    """A file's progress: when the next line may be written, and the newest event that waits for it."""

    due: float
    held: ev.FileProgress | None = None


class NdjsonView:
    """Writes the lines of a frame at once, in UTF-8, and flushes them; the last line of a run or a plan immediately.

    A closed pipe raises BrokenPipeError.
    """

    def __init__(self, stream: TextIO, run_id: str, wall_clock: Callable[[], float]) -> None:
        """`wall_clock` returns unix seconds; a stream with a `buffer` gets bytes, whatever its encoding."""
        self._stream = stream
        self._buffer = getattr(stream, "buffer", None)
        self._run = run_id
        self._wall_clock = wall_clock
        self._seq = 0
        self._lines: list[str] = []
        self._head = ""
        """What all lines have in common that are written at once."""
        self._files: dict[int, _Throttle] = {}
        self._ended = False

    def handle(self, event: ev.Event, state: ProgressState, now: float) -> None:  # noqa: ARG002 - the protocol's signature
        """Make the event's line; progress of a file that just had one is held back."""
        match event:
            case ev.FileProgress() if not event.phase.terminal:
                self._progress(event, now)
                return
            case ev.FileProgress() | ev.FileSkipped():
                self._files.pop(event.file, None)
            case ev.FileStarted() | ev.FileRetry():
                self._drop(event.file)
            case ev.FileCompleted() | ev.FileFailed():
                self._flush(event.file)
            case ev.RunFinished() | ev.PlanFinished():
                for file in list(self._files):
                    self._flush(file)
                self._write(event)
                self._ended = True
                self._put()
                return
        self._write(event)

    def refresh(self, state: ProgressState, now: float) -> None:  # noqa: ARG002 - the protocol's signature
        """Write the lines since the last refresh, and progress that was held back and is due."""
        for throttle in self._files.values():
            if throttle.held is not None and now >= throttle.due:
                held, throttle.held, throttle.due = throttle.held, None, now + _SPACING
                self._write(held)
        self._put()

    def close(self, state: ProgressState, now: float) -> None:  # noqa: ARG002 - the protocol's signature
        """Write what is left, of a run that ended by an error."""
        self._put()

    def _progress(self, event: ev.FileProgress, now: float) -> None:
        throttle = self._files.setdefault(event.file, _Throttle(now))
        if now < throttle.due:
            throttle.held = event
            return
        throttle.held, throttle.due = None, now + _SPACING
        self._write(event)

    def _drop(self, file: int) -> None:
        """Forget what was held: it is of an attempt that is over, and would be a step back."""
        if file in self._files:
            self._files[file].held = None

    def _flush(self, file: int) -> None:
        """Write the last progress of a file that is over."""
        throttle = self._files.pop(file, None)
        if throttle is not None and throttle.held is not None:
            self._write(throttle.held)

    def _write(self, event: ev.Event) -> None:
        if self._ended or type(event) not in _PUBLIC:
            return
        self._seq += 1
        if not self._lines:
            self._head = f'"run":{_encode(self._run)},"ts":"{self._now()}","type":'
        fields = ev.as_fields(event)
        text = _object(fields)
        if not text.isascii():
            text = _object(_portable(fields))
        self._lines.append(f'{{"v":{VERSION},"seq":{self._seq},{self._head}"{event.type}"{text}}}')
        if len(self._lines) >= _MOST:
            self._put()

    def _now(self) -> str:
        """Return the time as RFC 3339, for all lines that are written at once."""
        return datetime.fromtimestamp(self._wall_clock(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _put(self) -> None:
        if not self._lines:
            return
        text = inert("\n".join([*self._lines, ""]))
        self._lines.clear()  # before the write: what a closed pipe refused is not tried again
        if self._buffer is not None:
            self._buffer.write(text.encode())
            self._buffer.flush()
        else:
            self._stream.write(text)
            self._stream.flush()


def _portable(fields: dict[str, Any]) -> dict[str, Any]:
    """Return an event's fields as JSON can carry them; an undecodable path also in its bytes."""
    out = dict(fields)
    for name, value in fields.items():
        if type(value) is not str or value.isascii():
            continue
        out[name] = escaped(value)
        if name == "path" and (raw := as_base64(value)) is not None:
            out["path_b64"] = raw
    return out
