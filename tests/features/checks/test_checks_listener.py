"""`Listener`: what it records of a live connection."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from uploader_cli.core.events import Transport
from uploader_cli.features.checks import target
from uploader_cli.features.checks.target import CheckedServer, Listener
from uploader_cli.settings import Settings

if TYPE_CHECKING:
    import pytest


def test_listener_records_upload_events_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session's room may get messages of analyses as well (docs/protocol.md, section 4)."""
    connections: list[dict] = []
    monkeypatch.setattr(target, "Connection", lambda *_, **how: connections.append(how))
    listener = Listener(CheckedServer(Settings(server="http://localhost:1")), Transport.WEBSOCKET, 1.0)
    heard = connections[0]["heard"]
    heard("analysis:progress", {"percent": 10})
    heard("upload-progress", {"sessionId": "s"})
    assert listener.events == [{"sessionId": "s"}]


def test_listener_leaves_interrupts_to_the_command() -> None:
    """The library would handle them where its client is made in the main thread."""
    before = signal.getsignal(signal.SIGINT)
    Listener(CheckedServer(Settings(server="http://localhost:1")), Transport.WEBSOCKET, 1.0)
    assert signal.getsignal(signal.SIGINT) is before
