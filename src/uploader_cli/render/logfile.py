"""`--log-file`: one JSON object a line with time, level and what happened; never a header, never a token."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from uploader_cli.core import events as ev

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.state import ProgressState

_LEVELS: dict[type[ev.Event], str] = {
    ev.FileFailed: "error",
    ev.RunWarning: "warning",
    ev.FileRetry: "warning",
    ev.ServerMessage: "debug",
    ev.FileProgress: "debug",
}


class LogFile:
    """Appends to a file that the caller opened; progress is left out, a log is not a meter."""

    def __init__(self, stream: TextIO, wall_clock: Callable[[], float]) -> None:
        """`wall_clock` answers unix seconds."""
        self._stream, self._wall_clock = stream, wall_clock

    def handle(self, event: ev.Event, state: ProgressState, now: float) -> None:  # noqa: ARG002 - the protocol's signature
        """One line for each public event but progress."""
        if isinstance(event, ev.FileProgress) or not event.type:
            return
        at = datetime.fromtimestamp(self._wall_clock(), UTC).isoformat(timespec="milliseconds")
        level = _LEVELS.get(type(event), "info")
        line = {"time": at.replace("+00:00", "Z"), "level": level, "type": event.type, **ev.as_fields(event)}
        self._stream.write(json.dumps(line) + "\n")  # ASCII: whatever is in a name can't break the log

    def refresh(self, state: ProgressState, now: float) -> None:
        """Nothing to draw."""

    def close(self, state: ProgressState, now: float) -> None:  # noqa: ARG002 - the protocol's signature
        """Everything is on disk afterwards."""
        self._stream.close()
