"""What the realtime channel tells the transfer, which knows nothing of it."""

from __future__ import annotations

import pytest

from uploader_cli.core import events as ev
from uploader_cli.core.alarms import Alarms
from uploader_cli.core.events import ChannelReason, ChannelState, Transport
from uploader_cli.run.connections import Connections
from uploader_cli.run.loop import Loop
from uploader_cli.settings import Settings


def live(reason: ChannelReason) -> ev.ChannelChanged:
    return ev.ChannelChanged(ChannelState.CONNECTING, ChannelState.LIVE, Transport.WEBSOCKET, reason)


FAILED = ev.PollFailed("s", "refused")
ANSWERED = ev.SessionProgress("s", Transport.HTTP, None, "uploading")


@pytest.mark.parametrize(
    ("events", "returns"),
    [
        ([live(ChannelReason.CONNECTED)], 0),
        ([live(ChannelReason.RECOVERED)], 1),
        ([ANSWERED], 0),
        ([FAILED, FAILED], 0),
        ([FAILED, ANSWERED, ANSWERED], 1),
        ([FAILED, ev.SessionMissing("s")], 1),
    ],
)
def test_return_of_the_channel_is_told_to_the_pacer(
    events: list[ev.Event], returns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[None] = []
    connections = Connections(Settings(server="http://127.0.0.1:9"), Loop([], Alarms()))
    monkeypatch.setattr(connections.api.pacer.delays, "channel_returned", lambda: told.append(None))
    for event in events:
        connections.heard(event)
    assert len(told) == returns
