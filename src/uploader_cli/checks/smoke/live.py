"""Checks of the live connection: one upload is watched in several ways at once.

A single upload saves requests: the reference backend allows 100 in 15 minutes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.checks.smoke.assertions import answered, quoted, same, shaped
from uploader_cli.checks.smoke.batches import stored_of
from uploader_cli.checks.smoke.listener import DIAL_LIMIT, Listener, best_transport, over_polling, over_websocket
from uploader_cli.checks.smoke.sending import file_of, open_session, send
from uploader_cli.checks.smoke.verdicts import Prevented, Violation
from uploader_cli.core.events import ChannelReason, Transport
from uploader_cli.core.protocol import parse_progress
from uploader_cli.render.words import plural

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.checks.smoke.site import Site
    from uploader_cli.core.protocol import JsonObject
    from uploader_cli.transfer.http import Answer

_EVENT = {
    "sessionId": "text",
    "timestamp": "time",
    "overallStatus": "session status",
    "totalProgress?": "percent",
    "completedFiles": "count",
    "failedFiles": "count",
    "totalFiles?": "count",
    "currentFile?": "object",
    "message": "words",
}
_CURRENT = {"id": "text", "originalName": "text", "status": "file status", "uploadSpeed?": "number", "error?": "words"}
_PROGRESS = {
    "sessionId": "text",
    "overallStatus": "session status",
    "totalProgress": "percent",
    "completedFiles": "count",
    "failedFiles": "count",
    "totalFiles": "count",
    "files": "list",
    "lastUpdate": "time",
}


@dataclass
class Watched:
    """An upload of one file with its listeners; None for one that did not connect."""

    session: str
    name: str
    listeners: dict[Transport, Listener] = field(default_factory=dict)
    """Joined before the first byte."""
    late: Listener | None = None
    """Joined when half of the body was sent."""
    again: Listener | None = None
    """Connected and joined again when half of the body was sent, after its first connection was cut."""
    polled: Answer | None = None
    """`/progress` right after the response."""

    def got_end(self, listener: Listener | None) -> bool:
        """Return whether this listener got the completion of the session."""
        return listener is not None and any(
            event.get("overallStatus") == "completed" and event.get("sessionId") == self.session
            for event in listener.events
        )

    @property
    def end_seen(self) -> bool:
        """Whether a listener that was there from the start got the completion."""
        return any(self.got_end(listener) for listener in self.listeners.values())


def websocket(site: Site) -> str:
    """Check the websocket transport."""
    _connects(site.once(over_websocket), Transport.WEBSOCKET)
    return ""


def long_polling(site: Site) -> str:
    """Check the polling transport."""
    _connects(site.once(over_polling), Transport.POLLING)
    return ""


def _connects(reason: ChannelReason | None, transport: Transport) -> None:
    if reason is not None:
        got = (
            f"no answer within {DIAL_LIMIT:.0f} s" if reason is ChannelReason.TIMEOUT else f"{reason.replace('_', ' ')}"
        )
        raise Violation(f"a connection over {transport}", expected="connected", got=got)


def watched(site: Site) -> Watched:
    """Make the one upload. Use with `once`. Raises `Prevented` if it fails."""
    best = best_transport(site)
    seen = Watched(open_session(site), file_of(site, "watched")[0])
    for transport, way in ((Transport.WEBSOCKET, over_websocket), (Transport.POLLING, over_polling)):
        if site.once(way) is None:
            listener = _joined(site, transport, seen.session)
            if listener is not None:
                seen.listeners[transport] = listener
    lost = _joined(site, best, seen.session)

    def midway() -> None:
        if lost is not None:
            lost.cut()
            seen.again = _joined(site, best, seen.session)
        seen.late = _joined(site, best, seen.session)

    try:
        content = file_of(site, "watched")[1]
        stored_of(_sent(site, seen.session, (seen.name, content), midway))
        seen.polled = site.call("GET", f"/api/upload/progress/{seen.session}")
        _wait(seen, site.patience)
    finally:
        for listener in _all(seen):
            listener.leave()
    return seen


def _wait(seen: Watched, patience: float) -> None:
    """Wait until all listeners got the end, or none did for `patience` seconds."""
    until = time.monotonic() + patience
    for listener in _all(seen):
        if listener.until(partial(seen.got_end, listener), until - time.monotonic()):
            until = time.monotonic() + patience


def _sent(site: Site, session: str, file: tuple[str, bytes], midway: Callable[[], None]) -> Answer:
    try:
        return send(site, session, [file], midway=midway)
    except errors.UploaderError as error:
        raise Prevented(str(error), "batch-one") from error


def _joined(site: Site, transport: Transport, session: str) -> Listener | None:
    listener = Listener(site, transport)
    if listener.dial() is not None:
        listener.cut()
        return None
    listener.join(session)
    return listener


def _all(seen: Watched) -> list[Listener]:
    return [listener for listener in (*seen.listeners.values(), seen.again, seen.late) if listener is not None]


def events(site: Site) -> str:
    """Check the events of an upload (docs/protocol.md section 2)."""
    seen = site.once(watched)
    if not seen.listeners:
        raise Prevented("there is no live connection", "websocket", "long-polling")
    count = 0
    for transport, listener in seen.listeners.items():
        for event in listener.events:
            _judge(event, seen)
        count = max(count, len(listener.events))
        if not seen.got_end(listener):
            heard = quoted(listener.events[-1]) if listener.events else "no event at all"
            raise Violation(f"the last event over {transport}", expected="overallStatus completed", got=heard)
    if not any(_is_progress(event) for listener in seen.listeners.values() for event in listener.events):
        expected = "an event with overallStatus uploading and a currentFile"
        raise Violation("the events during an upload", expected=expected, got="none")
    return plural(count, "event")


def _is_progress(event: JsonObject) -> bool:
    return event.get("overallStatus") == "uploading" and "currentFile" in event


def _judge(event: JsonObject, seen: Watched) -> None:
    shaped(event, "an event", _EVENT)
    same(event["sessionId"], seen.session, "sessionId in an event")
    if "currentFile" in event:
        current = shaped(event["currentFile"], "currentFile in an event", _CURRENT)
        same(current["originalName"], seen.name, "originalName in an event")


def polling(site: Site) -> str:
    """Check that `/progress` agrees with the events (docs/protocol.md sections 1 and 3.6)."""
    seen = site.once(watched)
    answer = seen.polled
    if answer is None:
        raise Prevented("the progress was not requested")
    body = shaped(answered(answer, "progress right after an upload", 200).body, "the progress", _PROGRESS)
    same(body["sessionId"], seen.session, "sessionId in the progress")
    if not seen.end_seen:
        raise Prevented("there is no event to compare it with", "events", "websocket", "long-polling")
    same(body["overallStatus"], "completed", "overallStatus in the progress after the completed event")
    polled = parse_progress(answer.body, Transport.HTTP)
    files = polled.files if polled is not None else ()
    reported = [(file.name, file.status, file.percent) for file in files]
    same(reported, [(seen.name, "completed", 100)], "files in the progress (name, status, percent)")
    return ""


def join_late(site: Site) -> str:
    """Check that a client that joins during an upload gets the following events (docs/protocol.md section 2)."""
    seen = site.once(watched)
    _rests_on_events(seen)
    if seen.late is None:
        raise Violation("a connection during an upload", expected="connected", got="not connected")
    if not seen.got_end(seen.late):
        got = f"{len(seen.late.events)} events, not the last"
        raise Violation("the events after joining during the upload", expected="the completed event", got=got)
    return ""


def reconnect(site: Site) -> str:
    """Check that a cut connection can be restored and its room joined again (docs/protocol.md section 2)."""
    seen = site.once(watched)
    _rests_on_events(seen)
    if seen.again is None:
        raise Violation("a new connection after a cut", expected="connected", got="not connected")
    if not seen.got_end(seen.again):
        got = f"{len(seen.again.events)} events, not the last"
        raise Violation("the events after reconnecting", expected="the completed event", got=got)
    return ""


def _rests_on_events(seen: Watched) -> None:
    if not seen.end_seen:
        raise Prevented("no listener got the end of the upload", "events", "websocket", "long-polling")
