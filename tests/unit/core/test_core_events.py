"""The names of events and their fields in the stream."""

from __future__ import annotations

from dataclasses import asdict, fields, is_dataclass, replace

import pytest

from uploader_cli.core import events as ev
from uploader_cli.core.events import PUBLIC, ChannelReason, ChannelState, Event, Transport, as_fields


def test_public_events_have_a_name_of_their_own_and_the_others_none() -> None:
    public = {kind.type for kind in PUBLIC}
    assert len(public) == len(PUBLIC)
    others = [
        kind for kind in vars(ev).values() if isinstance(kind, type) and issubclass(kind, Event) and kind not in PUBLIC
    ]
    assert others
    assert {kind.type for kind in others} == {""}


def test_events_are_frozen() -> None:
    event = ev.ServerMessage("hello")
    with pytest.raises(AttributeError):
        event.text = "bye"  # type: ignore[misc]


def test_functions_of_dataclasses_accept_events() -> None:
    event = ev.SessionFinished("s", "partial")
    assert is_dataclass(event)
    assert [spec.name for spec in fields(event)] == ["session", "status"]
    assert asdict(replace(event, status="completed")) == {"session": "s", "status": "completed"}


def test_internal_fields_are_neither_compared_nor_in_the_stream() -> None:
    started = ev.FileStarted(0, "a", 1, "s", 0, 1, wire_name="a%22")
    same = ev.FileStarted(0, "a", 1, "s", 0, 1)
    assert (started == same, len({started, same}), started == replace(same, path="b")) == (True, 1, False)
    assert as_fields(started) == {"file": 0, "path": "a", "size": 1, "session": "s", "offset": 0, "attempt": 1}


def test_optional_fields_are_left_out_and_required_ones_are_null() -> None:
    started = ev.RunStarted("http://x", None, None, 1, "batch")
    assert as_fields(started) == {"server": "http://x", "files": None, "bytes": None, "jobs": 1, "protocol": "batch"}
    assert as_fields(ev.RunStarted("x", 1, 1, 1, "batch", "old"))["resumed_from"] == "old"


def test_from_is_written_without_the_underscore() -> None:
    moved = ev.ChannelChanged(ChannelState.CONNECTING, ChannelState.LIVE, Transport.WEBSOCKET, ChannelReason.CONNECTED)
    assert as_fields(moved) == {"from": "connecting", "to": "live", "transport": "websocket", "reason": "connected"}


def test_the_channels_numbers_are_an_object() -> None:
    finished = ev.RunFinished(True, 1, 0, 0, 0, 1, 1.0, 1.0, 0, ev.ChannelStats(polls=2), 1)
    assert as_fields(finished)["channel"] == {
        "connect_ms": None,
        "events": 0,
        "polls": 2,
        "reconnects": 0,
        "fallbacks": 0,
    }
