"""The clients of one run: how long they wait at its end, and that they leave no thread."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from client.realtime.realtime_bench import wait_until
from serving import running_server
from time_limits import SLACK

from uploader_cli.core.alarms import Alarms
from uploader_cli.core.events import (
    BytesSent,
    ChannelChanged,
    ChannelState,
    Event,
    FileSelected,
    FileStarted,
    RunStarted,
    SessionCreated,
    SessionFinished,
)
from uploader_cli.run.connections import DRAIN, Connections
from uploader_cli.run.loop import Loop
from uploader_cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def connections(url: str) -> Iterator[tuple[Loop, Connections]]:
    """Start connections, and check that they leave no thread."""
    before = set(threading.enumerate())
    loop = Loop([], Alarms(stall=30.0))
    made = Connections(Settings(server=url), loop, "cafe")
    loop.apply(RunStarted(url, None, None, 1, "tus"))
    made.start()
    yield loop, made
    began = time.monotonic()
    made.close()
    assert time.monotonic() - began < SLACK * 1.0

    def left() -> list[str]:
        names = [thread.name for thread in threading.enumerate() if thread not in before]
        return [name for name in names if name.startswith("uploader-") and not name.startswith("uploader-server")]

    wait_until(lambda: not left(), told=left)


@pytest.mark.parametrize("faults", [{}, {"websocket": "off"}], ids=["websocket", "polling"])
def test_run_waits_for_last_messages_of_a_live_channel(faults: dict[str, str]) -> None:
    with running_server(port=0, **faults) as server, connections(server.url) as (loop, made):
        assert made.drain_seconds() == 0.0
        made.follow("2ba25c4c-a0ea-4983-89fc-cf63711e7de2")
        wait_until(lambda: loop.turn() or loop.state.channel.state is ChannelState.LIVE)
        assert made.drain_seconds() == DRAIN


def test_run_does_not_wait_where_the_channel_was_never_live() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # and never an answer
        with connections(f"http://127.0.0.1:{silent.getsockname()[1]}") as (loop, made):
            wait_until(lambda: loop.turn() or loop.state.channel.state is ChannelState.CONNECTING)
            assert made.drain_seconds() == 0.0


def is_dialled(*, sent: int = 0, at_once: bool = False) -> bool:
    """Whether an upload connects in the frame after its start, with so many of 100 bytes sent in a second before."""
    ago, heard = 1.0, list[Event]()
    loop = Loop([], Alarms(stall=30.0), lambda: time.monotonic() - ago)
    loop.listeners.append(heard.extend)
    made = Connections(Settings(server="http://127.0.0.1:1"), loop)
    loop.apply(RunStarted("http://127.0.0.1:1", 1, 100, 1, "tus"))
    loop.apply(FileSelected(0, "a.bin", 100))
    loop.apply(FileStarted(0, "a.bin", 100, "", 0, 1, "a.bin"))
    ago = 0.0
    loop.apply(BytesSent(0, 1, sent))
    made.start_soon(at_once=at_once)
    made.tend(loop.state)
    made.close()
    loop.flush()
    return any(isinstance(event, ChannelChanged) for event in heard)


def test_upload_that_lasts_opens_a_realtime_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uploader_cli.run.connections.DIAL_AFTER", 3600.0)
    assert not is_dialled()
    assert is_dialled(at_once=True)
    monkeypatch.setattr("uploader_cli.run.connections.DIAL_AFTER", 0.0)
    assert is_dialled()  # nobody knows how long it takes
    monkeypatch.setattr("uploader_cli.run.connections.SHORT", 3600.0)
    assert not is_dialled(sent=90)
    monkeypatch.setattr("uploader_cli.run.connections.SHORT", 0.05)
    assert is_dialled(sent=50)


def test_session_whose_end_is_queued_is_not_left_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uploader_cli.run.connections.DRAIN", 0.0)
    loop = Loop([], Alarms(stall=30.0))
    made = Connections(Settings(server="http://127.0.0.1:1"), loop)
    loop.apply(RunStarted("http://127.0.0.1:1", None, None, 1, "tus"))
    loop.apply(SessionCreated("session", "personal", 1))
    loop.emit(SessionFinished("session", "completed"))
    made.leave("session")
    made.tend(loop.state)
    loop.flush()
    made.close()
    assert (loop.state.sessions_done, loop.state.sessions) == (1, {})


def test_tus_endpoint_has_no_channel_to_wait_for() -> None:
    made = Connections(Settings(tus_endpoint="http://127.0.0.1:1/files"), Loop([], Alarms(stall=30.0)))
    made.start()
    assert made.drain_seconds() == 0.0
    made.close()
