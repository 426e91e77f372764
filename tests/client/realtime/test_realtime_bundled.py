"""The channel against the bundled server, with every fault of its realtime side."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import requests
from client.realtime.realtime_bench import SCALED, SILENT_SERVER, SILENT_WEBSOCKET, Bench, wait_until
from serving import running_server
from time_limits import PATIENCE, SLACK

from uploader_cli.core.events import Transport
from uploader_cli.core.protocol import parse_progress
from uploader_cli.realtime.channel import EARLY
from uploader_cli.realtime.policy import Policy

if TYPE_CHECKING:
    from uploader_cli.core.events import SessionProgress


def follow_one(server: Any, policy: Policy = SCALED) -> tuple[Bench, str]:
    """A session on the server, and a channel that follows it."""
    answer = requests.post(
        f"{server.url}/api/upload/session", json={"category": "personal", "expectedFiles": 1}, timeout=PATIENCE
    )
    session = answer.json()["sessionId"]
    bench = Bench(server.url, policy)

    def fetch(asked: str) -> SessionProgress | None:
        found = requests.get(f"{server.url}/api/upload/progress/{asked}", timeout=PATIENCE)
        return parse_progress(found.json(), Transport.HTTP) if found.ok else None

    bench.answer = fetch
    return bench.start(session), session


def close(bench: Bench) -> None:
    """The channel closes within a second; thread names distinguish its threads from the server's."""
    began = time.monotonic()
    bench.channel.close()
    wait_until(
        lambda: not [name for name in bench.left_running() if name.startswith("uploader")],
        SLACK * 1.0 - (time.monotonic() - began),
        bench.left_running,
    )


def without_dials(bench: Bench) -> list[str]:
    """Return the story without the end of a dial, which may come before or after the deadline for all dials."""
    return [state for state in bench.story() if not state.startswith("reconnecting timeout")]


RETRIES = ["reconnecting refused 1", "reconnecting refused 2", "reconnecting refused 3"]

LIMITS = {"websocket hangs": SILENT_WEBSOCKET, "all hangs": SILENT_SERVER}
LATER = {"websocket lost": "websocket", "all lost": "realtime"}
"""What refuses all connections once the channel is live."""
STORIES: dict[str, tuple[dict[str, str], list[str]]] = {
    "nothing broken": ({}, ["live websocket connected"]),
    "websocket off": ({"websocket": "off"}, ["live polling connected"]),
    "websocket refused": ({"websocket": "refuse"}, ["live polling connected"]),
    "websocket hangs": ({"websocket": "hang"}, ["live polling connected"]),
    "websocket lost": ({}, ["live websocket connected", "reconnecting lost 1", "live polling recovered"]),
    "all off": ({"realtime": "off"}, [*RETRIES, "polling http retries_exhausted"]),
    "all refused": ({"realtime": "refuse"}, [*RETRIES, "polling http retries_exhausted"]),
    "all hangs": ({"realtime": "hang"}, ["polling http deadline"]),
    "all lost": (
        {},
        [
            "live websocket connected",
            "reconnecting lost 1",
            "reconnecting refused 2",
            "reconnecting refused 3",
            "polling http retries_exhausted",
        ],
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_channel_states_after_each_fault(name: str) -> None:
    """Each fault, with shortened policy times; the session's status arrives in any case."""
    config, story = STORIES[name]
    with running_server(port=0, **config) as server:
        bench, session = follow_one(server, LIMITS.get(name, SCALED))

        if name in LATER:
            bench.reach("live")
            getattr(server.faults, f"set_{LATER[name]}")("refuse")
        wait_until(lambda: len(without_dials(bench)) > len(story), told=bench.story)
        assert without_dials(bench)[: len(story) + 1] == ["connecting start", *story]
        if story[-1].startswith("polling"):
            wait_until(lambda: len(bench.fetched) >= 2)
        else:
            wait_until(bench.heard)
            assert bench.heard()[0].session == session
        close(bench)


def test_hung_connection_is_polled_each_second_after_five_seconds() -> None:
    """The numbers of docs/protocol.md, and the server's log as the witness."""
    with running_server(port=0, realtime="hang") as server:
        bench, session = follow_one(server, Policy())
        bench.reach("polling")
        assert bench.when("polling") >= 5.0 - EARLY
        wait_until(lambda: len(bench.fetched) >= 3)
        close(bench)
        polls = [entry.time for entry in server.faults.requests if entry.path.endswith(f"/progress/{session}")]
        assert len(polls) >= 3
        assert all(later - earlier >= 1.0 for earlier, later in pairwise(polls))
        assert without_dials(bench) == ["connecting start", "polling http deadline", "closed finished"]


def test_channel_is_live_again_once_the_server_stops_refusing() -> None:
    """The server refuses until the channel polls: it may come up again before that with `flap` on a slow machine."""
    with running_server(port=0) as server:
        bench, session = follow_one(server, SCALED)
        bench.reach("live")
        server.faults.set_realtime("refuse")
        bench.reach("polling")
        server.faults.set_realtime(None)
        bench.reach("live", times=2)
        assert bench.story() == [
            "connecting start",
            "live websocket connected",
            "reconnecting lost 1",
            "reconnecting refused 2",
            "reconnecting refused 3",
            "polling http retries_exhausted",
            "live websocket recovered",
        ]
        wait_until(bench.heard)
        assert bench.heard()[0].session == session
        close(bench)


def test_server_that_is_back_is_live_again_and_not_polled() -> None:
    """It goes down and comes back during the polls that begin meanwhile."""
    with running_server(port=0) as server:
        bench, _ = follow_one(server, replace(SCALED, poll=0.3))
        bench.reach("live")
        server.faults.set_realtime("refuse")
        bench.reach("polling")
        server.faults.set_realtime(None)
        bench.reach("live", times=2)
        back = time.monotonic() - bench.began
        time.sleep(1.2)
        assert len([at for _, at in bench.fetched if at > back]) <= 2, "one may have begun before"
        story = bench.story()
        assert story[1:3] == ["live websocket connected", "reconnecting lost 1"]
        assert "polling http retries_exhausted" in story[3:]
        close(bench)
