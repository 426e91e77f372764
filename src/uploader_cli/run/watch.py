"""Watching a session that somebody else uploads: by its messages, and by `/progress` where none come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.state import SERVER_TERMINAL
from uploader_cli.exit_status import Exit
from uploader_cli.run.connections import DRAIN, Connections
from uploader_cli.run.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.render import Renderer
    from uploader_cli.run.upload import Interrupts
    from uploader_cli.settings import Settings

ASK_FIRST = 2.0
"""Seconds between two questions until the session is known: a join is not always acknowledged (wire contract 3.7)."""
ASK_LATER = 10.0
"""Seconds without a message after which it is asked whether the end was missed."""


def watch(
    settings: Settings, session: str, wait: float, observers: Sequence[Renderer], interrupts: Interrupts
) -> ev.RunFinished:
    """Follow `session` to its end. Exit 6 where the server does not know it after `wait` seconds."""
    loop = Loop(observers, settings.stall)
    connections = Connections(settings, loop)
    connections.api.authorization()
    with loop.observed():
        loop.apply(ev.RunStarted(settings.server, None, None, 0, "watch"))
        loop.apply(ev.SessionWatched(session))
        connections.start()
        connections.follow(session)
        connections.body_sent(session)
        try:
            code = _follow(loop, connections, session, wait, interrupts)
            loop.drain(DRAIN if not interrupts.count else 0.0)
        finally:
            connections.close()
        loop.flush()
        watched = loop.state.sessions[session]
        loop.apply(ev.SelectionEnded())
        loop.apply(ev.SessionFinished(session, watched.status))
        return loop.finish(code, connections.stats())


def _follow(loop: Loop, connections: Connections, session: str, wait: float, interrupts: Interrupts) -> Exit:
    watched = loop.state.sessions[session]
    give_up = time.monotonic() + wait
    ask = 0.0
    known = False
    while not interrupts.count:
        now = time.monotonic()
        heard = loop.state.channel.heard
        known = known or heard is not None
        if watched.status in SERVER_TERMINAL:
            return Exit.OK if watched.status == "completed" and not watched.failed else Exit.FAILED_FOR_GOOD
        if not known and now > give_up:
            return Exit.NO_SERVER
        if now >= ask and (not known or (heard is not None and now - heard >= ASK_LATER)):
            ask = now + (ASK_LATER if known else ASK_FIRST)
            gone = _ask(loop, connections, session)
            if gone and known:
                return Exit.FAILED_FOR_GOOD  # it ended while nobody told us how
        loop.turn()
    return interrupts.code


def _ask(loop: Loop, connections: Connections, session: str) -> bool:
    """One `/progress` call; True where the server does not know the session."""
    try:
        message = connections.api.progress(session)
    except errors.UploaderError as error:
        loop.apply(ev.PollFailed(session, str(error)))
        return False
    if message is not None:
        loop.apply(message)
    return message is None
