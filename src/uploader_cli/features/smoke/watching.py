"""Checks during an upload: the live connection, and cancelling. One upload is watched in several ways at once.

A single upload saves requests: the reference backend allows 100 in 15 minutes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial

from uploader_cli import errors
from uploader_cli.core.events import ChannelReason, Transport
from uploader_cli.core.protocol import parse_batch, parse_progress
from uploader_cli.features.checks.check import NotOffered, Prevented, Violation, check, precondition
from uploader_cli.features.checks.target import Listener
from uploader_cli.features.smoke.basics import stored_of, stored_one
from uploader_cli.features.smoke.expect import answered, quoted, refused, same, shaped
from uploader_cli.features.smoke.sending import file_of, open_session, send
from uploader_cli.features.smoke.site import Site
from uploader_cli.render.words import plural
from uploader_cli.transfer.answers import Answer

DIAL_LIMIT = 5.0  # maximum seconds to connect (docs/protocol.md section 2)
DIAL_GRACE = 1.0
CANCEL_WAITS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds before each attempt to cancel after the body: the server may take a moment to receive it."""
TRANSPORTS = ("websocket", "long-polling")  # the checks of the transports
NO_CONNECTION = "there is no live connection"
_EVENT = (
    "sessionId: text, timestamp: time, overallStatus: session status, totalProgress: percent?, completedFiles: count, "
    "failedFiles: count, totalFiles: count?, currentFile: object?, message: words"
)
_CURRENT = "id: text, originalName: text, status: file status, uploadSpeed: number?, error: words?"
_PROGRESS = (
    "sessionId: text, overallStatus: session status, totalProgress: percent, completedFiles: count, "
    "failedFiles: count, totalFiles: count, files: list, lastUpdate: time"
)


def dialled(site: Site, transport: Transport) -> ChannelReason | None:
    """Try to connect; return None, or the reason of a failure. Use with `once`."""
    with Listener(site, transport, DIAL_LIMIT) as listener:
        reason = listener.dial(DIAL_GRACE)
    if reason is ChannelReason.TIMEOUT or reason is None:
        return reason
    if site.call("GET", f"/socket.io/?EIO=4&transport={Transport.POLLING}", limit=DIAL_LIMIT).status == 404:
        raise NotOffered("there is no Socket.IO at /socket.io/ (404)")
    return reason


@check("websocket", "Socket.IO connects over websocket", "progress comes late: clients poll")
def websocket(site: Site) -> None:
    """See docs/protocol.md section 2."""
    _connects(site, Transport.WEBSOCKET)


@check(
    "long-polling",
    "Socket.IO connects over long polling",
    "behind proxies without websockets there is no live progress",
)
def long_polling(site: Site) -> None:
    """See docs/protocol.md section 2."""
    _connects(site, Transport.POLLING)


def _connects(site: Site, transport: Transport) -> None:
    reason = site.once(dialled, transport)
    if reason is not None:
        late = f"no answer within {DIAL_LIMIT:.0f} s"
        got = late if reason is ChannelReason.TIMEOUT else reason.replace("_", " ")
        raise Violation(f"a connection over {transport}", expected="connected", got=got)


@dataclass
class Watched:
    """An upload of one file with its listeners; None for one that did not connect."""

    session: str
    name: str
    listeners: dict[Transport, Listener] = field(default_factory=dict)  # joined before the first byte
    late: Listener | None = None  # joined when half of the body was sent
    again: Listener | None = None
    """Connected and joined again when half of the body was sent, after its first connection was cut."""
    polled: Answer = field(init=False)  # `/progress` right after the response

    def all(self) -> list[Listener]:
        """Return the listeners that should get the end."""
        return [listener for listener in (*self.listeners.values(), self.again, self.late) if listener is not None]

    def got_end(self, listener: Listener) -> bool:
        """Return whether this listener got the completion of the session."""
        return any(
            event.get("overallStatus") == "completed" and event.get("sessionId") == self.session
            for event in listener.events
        )

    def need_end(self, why: str) -> None:
        """Raise `Prevented` if no listener that was there from the start got the completion."""
        if not any(map(self.got_end, self.listeners.values())):
            raise Prevented(why, "events", *TRANSPORTS)


def watched(site: Site) -> Watched:
    """Make the one upload. Use with `once`. Raises `Prevented` if it fails."""
    transports = (Transport.WEBSOCKET, Transport.POLLING)
    usable = [transport for transport in transports if site.once(dialled, transport) is None]
    if not usable:
        raise Prevented(NO_CONNECTION, *TRANSPORTS)
    name, content = file_of(site, "watched")
    seen = Watched(open_session(site), name)
    for transport in usable:
        if (listener := _joined(site, transport, seen.session)) is not None:
            seen.listeners[transport] = listener
    lost = _joined(site, usable[0], seen.session)

    def midway() -> None:
        if lost is not None:
            lost.cut()
            seen.again = _joined(site, usable[0], seen.session)
        seen.late = _joined(site, usable[0], seen.session)

    try:
        with precondition("batch-one"):
            answer = send(site, seen.session, [(name, content)], midway=midway)
        stored_of(answer)
        seen.polled = site.call("GET", f"/api/upload/progress/{seen.session}")
        until = time.monotonic() + site.patience
        for listener in seen.all():
            if listener.until(partial(seen.got_end, listener), until - time.monotonic()):
                until = time.monotonic() + site.patience  # the others may follow
    finally:
        for listener in seen.all():
            listener.leave()
    return seen


def _joined(site: Site, transport: Transport, session: str) -> Listener | None:
    listener = Listener(site, transport, DIAL_LIMIT)
    if listener.dial(DIAL_GRACE) is not None:
        listener.cut()
        return None
    listener.join(session)
    return listener


@check("events", "a room gets the events of an upload to its end", "progress is missing or wrong")
def events(site: Site) -> str:
    """See docs/protocol.md section 2."""
    seen = site.once(watched)
    if not seen.listeners:
        raise Prevented(NO_CONNECTION, *TRANSPORTS)
    for transport, listener in seen.listeners.items():
        for event in listener.events:
            shaped(event, "an event", _EVENT)
            same(event["sessionId"], seen.session, "sessionId in an event")
            if "currentFile" in event:
                current = shaped(event["currentFile"], "currentFile in an event", _CURRENT)
                same(current["originalName"], seen.name, "originalName in an event")
        if not seen.got_end(listener):
            heard = quoted(listener.events[-1]) if listener.events else "no event at all"
            raise Violation(f"the last event over {transport}", expected="overallStatus completed", got=heard)
    heard_all = [event for listener in seen.listeners.values() for event in listener.events]
    if not any(event.get("overallStatus") == "uploading" and "currentFile" in event for event in heard_all):
        expected = "an event with overallStatus uploading and a currentFile"
        raise Violation("the events during an upload", expected=expected, got="none")
    return plural(max(len(listener.events) for listener in seen.listeners.values()), "event")


@check("polling", "/progress agrees with the events", "without a live connection the progress is wrong")
def polling(site: Site) -> None:
    """See docs/protocol.md sections 1 and 3.6."""
    seen = site.once(watched)
    answer = answered(seen.polled, "progress right after an upload", 200)
    body = shaped(answer.body, "the progress", _PROGRESS)
    same(body["sessionId"], seen.session, "sessionId in the progress")
    seen.need_end("there is no event to compare it with")
    same(body["overallStatus"], "completed", "overallStatus in the progress after the completed event")
    polled = parse_progress(answer.body, Transport.HTTP)
    reported = [(file.name, file.status, file.percent) for file in (polled.files if polled is not None else ())]
    same(reported, [(seen.name, "completed", 100)], "files in the progress (name, status, percent)")


@check("join-late", "a late client gets the remaining events", "a late `uploader watch` shows nothing")
def join_late(site: Site) -> None:
    """See docs/protocol.md section 2: a client that joins during an upload."""
    seen = site.once(watched)
    _follows(seen, seen.late, "a connection during an upload", "the events after joining during the upload")


@check("reconnect", "a cut connection can be restored", "after a short interruption clients get no events")
def reconnect(site: Site) -> None:
    """See docs/protocol.md section 2: the client joins the room again."""
    seen = site.once(watched)
    _follows(seen, seen.again, "a new connection after a cut", "the events after reconnecting")


def _follows(seen: Watched, listener: Listener | None, connecting: str, following: str) -> None:
    seen.need_end("no listener got the end of the upload")
    if listener is None:
        raise Violation(connecting, expected="connected", got="not connected")
    if not seen.got_end(listener):
        got = f"{len(listener.events)} events, not the last"
        raise Violation(following, expected="the completed event", got=got)


@check("cancel", "a running session can be cancelled", "`uploader cancel` has no effect, or none that shows")
def cancel(site: Site) -> str:
    """See docs/protocol.md sections 1, 3.1 and 3.9.

    The request is sent during the body, and again after it where the server does not know the session before.
    """
    stored_one(site)
    session = open_session(site)
    answers: list[Answer] = []
    progress: list[Answer] = []

    def attempt() -> None:
        answers.append(site.call("POST", f"/api/upload/cancel/{session}"))
        if answers[-1].ok:
            progress.append(site.call("GET", f"/api/upload/progress/{session}"))

    def repeat() -> None:
        for wait in CANCEL_WAITS:
            if answers and answers[-1].status != 404:
                return
            time.sleep(wait)
            attempt()

    stored = False
    try:
        answer = send(site, session, [file_of(site, "cancelled")], midway=attempt, after=repeat)
        stored = answer.ok and any(file.status == "completed" for file in parse_batch(answer.body) or ())
    except errors.ConnectionLost:  # the server may close the connection
        if not answers:
            raise
    what, where = "cancelling a running upload", "the progress of a cancelled session"
    if not answers:
        raise Violation(what, expected="no response before the end of the body", got="a response")
    body = answered(answers[-1], what, 200).body
    shaped(body, "the answer to cancelling", "success: true, message: text, timestamp: time")
    site.sessions.discard(session)
    if progress and progress[0].status == 404:
        refused(progress[0], where, 404, "SESSION_NOT_FOUND")
    elif progress:
        found = shaped(answered(progress[0], where, 200).body, "it")
        same(found.get("overallStatus"), "cancelled", "overallStatus after cancelling")
    return "the cancelled file was stored" if stored else ""
