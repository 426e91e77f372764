"""The only code that changes the state.

`reduce` applies an event and returns the resulting public events: the event itself if it changed anything, nothing if
it was stale, a duplicate or a step backwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uploader_cli.core import events as ev
from uploader_cli.core.recovery import track_incidents
from uploader_cli.core.reducer import analysis, files, run, sessions

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.state import ProgressState

_HANDLERS: dict[type[ev.Event], Callable[[ProgressState, Any, float], list[ev.Event]]] = {
    **run.HANDLERS,
    **files.HANDLERS,
    **sessions.HANDLERS,
    **analysis.HANDLERS,
    ev.AlarmOver: lambda _state, _event, _now: [],
}

_ADVANCES = {
    ev.SessionCreated,
    ev.FileStarted,
    ev.BytesSent,
    ev.BodySent,
    ev.FileCompleted,
    ev.FileFailed,
    ev.SessionProgress,
}
"""Events that end a stall if they change anything."""


def reduce(state: ProgressState, event: ev.Event, now: float) -> list[ev.Event]:
    """Apply `event`, which happened at `now` (run clock, seconds); return the events for observers and listeners.

    These are public events, `CallMade` and `FileCancelled`.
    """
    kind = type(event)
    handler = _HANDLERS.get(kind)
    if handler is None:
        return [event] if event.type else []
    out = handler(state, event, now)
    if out and kind in _ADVANCES:
        state.advanced = now
    return out + track_incidents(state, event, now)
