"""The event stream: one JSON object a line, as `events.schema.json` describes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any, TextIO

from uploader_cli.core import events as ev
from uploader_cli.core.names import as_base64, escaped

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.state import ProgressState

VERSION = 1
_SPACING = 0.34
"""Seconds between two lines of progress of a file: three a second, so that the last word, which is never dropped, is
the fourth at most."""


def schema_text() -> str:
    """The JSON Schema (draft 2020-12) of one line."""
    return resources.files("uploader_cli").joinpath("events.schema.json").read_text(encoding="utf-8")


@dataclass(slots=True)
class _Throttle:
    """A file's progress: when a line may come again, and the newest fact that waits for it."""

    due: float
    held: ev.FileProgress | None = None


class NdjsonView:
    """Writes and flushes each line at once, in UTF-8. A closed pipe raises BrokenPipeError: the run's to handle."""

    def __init__(self, stream: TextIO, run_id: str, wall_clock: Callable[[], float]) -> None:
        """`wall_clock` answers unix seconds; a stream with a `buffer` gets bytes, whatever its encoding."""
        self._stream = stream
        self._buffer = getattr(stream, "buffer", None)
        self._run = run_id
        self._wall_clock = wall_clock
        self._seq = 0
        self._files: dict[int, _Throttle] = {}
        self._ended = False

    def handle(self, event: ev.Event, state: ProgressState, now: float) -> None:  # noqa: ARG002 - the protocol's signature
        """Write the event's line; progress of a file that just had one is held back until it may come."""
        match event:
            case ev.CallMade():
                return
            case ev.FileProgress() if not event.phase.terminal:
                self._progress(event, now)
                return
            case ev.FileProgress() | ev.FileSkipped():
                self._files.pop(event.file, None)
            case ev.FileStarted() | ev.FileRetry():
                self._drop(event.file)
            case ev.FileCompleted() | ev.FileFailed():
                self._flush(event.file)
            case ev.RunFinished():
                for file in list(self._files):
                    self._flush(file)
        self._write(event)
        self._ended = self._ended or isinstance(event, ev.RunFinished)

    def refresh(self, state: ProgressState, now: float) -> None:  # noqa: ARG002 - the protocol's signature
        """Write what was held back and is due: the newest fact is never lost."""
        for throttle in self._files.values():
            if throttle.held is not None and now >= throttle.due:
                held, throttle.held, throttle.due = throttle.held, None, now + _SPACING
                self._write(held)

    def close(self, state: ProgressState, now: float) -> None:
        """Nothing to undo: every line is out already."""

    def _progress(self, event: ev.FileProgress, now: float) -> None:
        throttle = self._files.setdefault(event.file, _Throttle(now))
        if now < throttle.due:
            throttle.held = event
            return
        throttle.held, throttle.due = None, now + _SPACING
        self._write(event)

    def _drop(self, file: int) -> None:
        """What was held is of an attempt that is over: it would be a step back."""
        if file in self._files:
            self._files[file].held = None

    def _flush(self, file: int) -> None:
        """The last word of a file that is over, which is forgotten then."""
        throttle = self._files.pop(file, None)
        if throttle is not None and throttle.held is not None:
            self._write(throttle.held)

    def _write(self, event: ev.Event) -> None:
        if self._ended or type(event) not in ev.PUBLIC:
            return
        stamp = datetime.fromtimestamp(self._wall_clock(), UTC).isoformat(timespec="milliseconds")
        line = {
            "v": VERSION,
            "seq": self._seq + 1,
            "run": self._run,
            "ts": stamp.replace("+00:00", "Z"),
            "type": event.type,
            **_fields(event),
        }
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"
        if self._buffer is not None:
            self._buffer.write(text.encode())
            self._buffer.flush()
        else:
            self._stream.write(text)
            self._stream.flush()
        self._seq += 1


def _fields(event: ev.Event) -> dict[str, Any]:
    """The event's fields as JSON may carry them; an undecodable path comes in its bytes too."""
    out: dict[str, Any] = {}
    for name, value in ev.as_fields(event).items():
        out[name] = escaped(value) if isinstance(value, str) else value
        if name == "path" and (raw := as_base64(value)) is not None:
            out["path_b64"] = raw
    return out
