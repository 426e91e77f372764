"""The only code that changes the state.

`reduce` applies an event and returns the resulting public events: the event itself if it changed anything, nothing if
it was stale, a duplicate or a step backwards.
"""

from __future__ import annotations

from uploader_cli.core.events import Event
from uploader_cli.core.reducer.file_events import FILE_HANDLERS
from uploader_cli.core.reducer.run_events import RUN_HANDLERS
from uploader_cli.core.reducer.session_events import SESSION_HANDLERS
from uploader_cli.core.state import FeatureEvent, ProgressState

_HANDLERS = {**RUN_HANDLERS, **FILE_HANDLERS, **SESSION_HANDLERS}


def reduce(state: ProgressState, event: Event, now: float) -> list[Event]:
    """Apply `event`, which happened at `now` (run clock, seconds); return the events for observers and listeners.

    These are public events, `CallMade` and `FileEnded`.
    """
    handler = _HANDLERS.get(type(event))
    if handler is not None:
        return handler(state, event, now) or []
    if isinstance(event, FeatureEvent):
        return [public for follows in event.apply(state, now) for public in reduce(state, follows, now)]
    return [event] if event.type else []
