"""Watching sessions of other users: one or many, early or late, by every transport, to every end."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cli.watch.watch_bench import UNKNOWN, Watching, cancel, open_session, rooms, send, wait_until
from server.batches import HalfSent, body_of, file, text
from serving import closed_port, inside, running_server
from time_limits import PATIENCE

from uploader_cli import Settings, upload
from uploader_cli.exit_status import Exit
from uploader_server.config import ServerConfig
from uploader_server.serving import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_cli.core.state import ProgressState

WAYS: dict[str, dict[str, str]] = {
    "websocket": {},
    "long polling": {"websocket": "off"},
    "http": {"realtime": "off"},
}
by_every_way = pytest.mark.parametrize("way", WAYS)


def sockets(server: EmbeddedServer) -> int:
    return sum(not one.closed for one in inside(server).realtime.server.eio.sockets.values())


def polls(server: EmbeddedServer, session: str) -> list[float]:
    """The times at which it was polled."""
    return [entry.time for entry in server.faults.requests if entry.path.endswith(f"/progress/{session}")]


# --- several ---------------------------------------------------------------------------------------------------------


def test_several_sessions_are_followed_over_one_connection() -> None:
    """Each session is joined, and left at its end, while the others continue."""
    with running_server() as server:
        first, second, third = (open_session(server.url, 2) for _ in range(3))
        with Watching(server.url, first, second, third) as watching:
            wait_until(lambda: len(rooms(server)) == 3)
            assert sockets(server) == 1
            send(server.url, second, "c.mp4", "d.mp4")
            watching.until("session.finished", session=second)
            wait_until(lambda: len(rooms(server)) == 2)
            send(server.url, first, "a.mp4", "b.mp4")
            send(server.url, third, "e.mp4", "f.mp4")
            assert watching.end() is Exit.OK
        assert watching.ends == dict.fromkeys([first, second, third], "completed")
        assert watching.files == dict.fromkeys([f"{letter}.mp4" for letter in "abcdef"], "completed")
        assert watching.outcome is not None
        assert watching.outcome.completed == 6
        wait_until(lambda: not rooms(server) and not sockets(server))


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ("completed completed", Exit.OK),
        ("completed partial", Exit.FAILED_FOR_GOOD),
        ("cancelled completed", Exit.FAILED_FOR_GOOD),
        ("completed unknown", Exit.NO_SERVER),
        ("unknown cancelled completed", Exit.NO_SERVER),
    ],
)
def test_watch_exit_code_is_that_of_the_worst_session(ends: str, code: Exit) -> None:
    """One session's end does not end the watch of the others; each is reported."""
    with running_server(fail_files=("bad*",)) as server:
        sessions = {}
        for number, end in enumerate(ends.split()):
            session = UNKNOWN if end == "unknown" else open_session(server.url)
            sessions[session] = end
            if end == "cancelled":
                cancel(server.url, session)
            elif end != "unknown":
                send(server.url, session, f"{'bad' if end == 'partial' else 'good'}{number}.mp4")
        with Watching(server.url, *sessions, wait=0.5) as watching:
            assert watching.end() is code
        assert watching.ends == sessions


# --- early and late --------------------------------------------------------------------------------------------------


@by_every_way
def test_watch_from_before_the_first_file(way: str) -> None:
    with running_server(processing_seconds=0.2, **WAYS[way]) as server:
        session = open_session(server.url, 2)
        with Watching(server.url, session) as watching:
            wait_until(lambda: polls(server, session))
            send(server.url, session, "a.mp4", "b.mp4")
            assert watching.end() is Exit.OK
        assert watching.files == {"a.mp4": "completed", "b.mp4": "completed"}


@by_every_way
def test_watch_started_in_the_middle_gets_earlier_files(way: str) -> None:
    """Earlier events are not replayed; a poll returns their files."""
    with running_server(**WAYS[way]) as server:
        session = open_session(server.url, 3)
        send(server.url, session, "a.mp4", "b.mp4")
        with Watching(server.url, session) as watching:
            watching.until("file.completed", path="b.mp4")
            send(server.url, session, "c.mp4")
            assert watching.end() is Exit.OK
        assert watching.files == dict.fromkeys(["a.mp4", "b.mp4", "c.mp4"], "completed")


def test_files_of_equal_name_in_different_directories_are_two(make_files: Callable[..., Path]) -> None:
    """By events and by polls: the path distinguishes them, and neither is counted twice."""
    top = make_files(**{"a/x.mp4": 10, "b/x.mp4": 20})
    with running_server(processing_seconds=0.5) as server:
        uploading = threading.Thread(target=upload, args=(top, Settings(server=server.url, protocol="batch")))
        uploading.start()
        known: Any = inside(server).backend.sessions
        wait_until(lambda: known.known)
        with Watching(server.url, *known.known) as early:
            assert early.end() is Exit.OK
        uploading.join()
        with Watching(server.url, *known.known) as late:
            assert late.end() is Exit.OK
        for watching in (early, late):
            assert watching.files == dict.fromkeys(["files/a/x.mp4", "files/b/x.mp4"], "completed")
            assert {event["path"]: event["size"] for event in watching.of("file.completed")} == {
                "files/a/x.mp4": 10,
                "files/b/x.mp4": 20,
            }


class Bar:
    """A view that keeps the fraction that the bar shows."""

    fraction = 0.0

    def handle(self, _event: object, state: ProgressState, _now: float) -> None:
        self.fraction = state.fraction

    def refresh(self, state: ProgressState, _now: float) -> None:
        self.fraction = state.fraction

    def close(self, state: ProgressState, now: float) -> None:
        pass


def test_percentage_falls_where_a_batch_broke_off() -> None:
    """It was at 68 %, nothing of it is stored, and the next request is at 38 %."""
    parts = [file(f"{n}.mp4", bytes(50_000), length=50_000) for n in range(2)]
    bar = Bar()
    with running_server() as server:
        session = open_session(server.url, 2)
        body = body_of([text("sessionId", session), text("category", "personal"), *parts])
        with Watching(server.url, session, views=[bar]) as watching:
            for percent in (68, 38):
                with HalfSent(server.url, body) as request:
                    for _ in range(percent):
                        request.send(len(body) // 100)
                        time.sleep(0.01)
                    wait_until(lambda: rooms(server))
                    while abs(bar.fraction - percent / 100) > 0.04:
                        request.send(1)  # an event needs a byte, and the bar may be late
                        time.sleep(0.12)
                wait_until(lambda: bar.fraction < 0.03)
            send(server.url, session, "0.mp4", "1.mp4")
            assert watching.end() is Exit.OK
        assert watching.of("file.completed")[0]["attempts"] > 1


@by_every_way
def test_watch_of_an_ended_session_has_full_numbers(way: str) -> None:
    """With complete numbers."""
    with running_server(fail_files=("bad*",), **WAYS[way]) as server:
        session = open_session(server.url, 3)
        send(server.url, session, "a.mp4", "b.mp4", "bad.mp4")
        with Watching(server.url, session) as watching:
            assert watching.end() is Exit.FAILED_FOR_GOOD
        assert watching.files == {"a.mp4": "completed", "b.mp4": "completed", "bad.mp4": "failed"}
        assert watching.ends == {session: "partial"}


def test_watch_waits_for_a_session_that_is_not_known_yet() -> None:
    """The reference backend answers 404 until the body is complete: that is what --wait is for."""
    with running_server(flavour="reference", processing_seconds=0.3) as server:
        session = open_session(server.url)
        with Watching(server.url, session) as watching:
            wait_until(lambda: len(polls(server, session)) >= 2)
            assert watching.of("file.started") == []
            send(server.url, session, "a.mp4")
            assert watching.end() is Exit.OK
        assert watching.files == {"a.mp4": "completed"}


def test_watch_with_wait_0_makes_one_call() -> None:
    """A session that is there is followed also with `--wait 0`, one that is not costs one call."""
    with running_server(realtime="off") as server:
        session = open_session(server.url)
        send(server.url, session, "a.mp4")
        with Watching(server.url, session, wait=0.0) as known, Watching(server.url, UNKNOWN, wait=0.0) as unknown:
            assert known.end() is Exit.OK
            assert unknown.end() is Exit.NO_SERVER
        assert len(polls(server, UNKNOWN)) == 1


# --- transports and outages


@pytest.mark.thorough
def test_watch_without_realtime_polls_at_most_once_per_second() -> None:
    with running_server(realtime="off") as server:
        sessions = [open_session(server.url) for _ in range(2)]
        with Watching(server.url, *sessions) as watching:
            watching.until("channel.changed", to="polling")
            before = len(polls(server, sessions[0]))
            wait_until(lambda: all(len(polls(server, session)) >= before + 2 for session in sessions))
            for session in sessions:
                send(server.url, session, "a.mp4")
            assert watching.end() is Exit.OK
        for session in sessions:
            asked = polls(server, session)
            assert all(later - earlier >= 0.99 for earlier, later in pairwise(asked))


@pytest.mark.thorough
def test_many_watchers_of_a_flapping_server() -> None:
    """Each comes to the end with full numbers, whatever was said while its connection was down.

    Short form of tests/acceptance/test_acceptance_watch.py.
    """
    with running_server(realtime="flap:1.5", processing_seconds=0.5) as server, ExitStack() as stack:
        session = open_session(server.url, 8)
        watchers = [stack.enter_context(Watching(server.url, session)) for _ in range(3)]
        for watcher in watchers:
            watcher.until("channel.changed", to="live")
        names = [f"{number}.mp4" for number in range(8)]
        send(server.url, session, *names)
        for watcher in watchers:
            assert watcher.end() is Exit.OK
            assert watcher.files == dict.fromkeys(names, "completed")
            assert any(event["from"] == "live" for event in watcher.of("channel.changed"))


# --- a server that goes away -----------------------------------------------------------------------------------------


def test_watch_of_a_lost_server_ends_after_max_wait() -> None:
    """Exit code 3, without a reported end."""
    with running_server() as server:
        session = open_session(server.url)
        with Watching(server.url, session, max_wait=1.0) as watching:
            watching.until("channel.changed", to="live")
            server.stop()
            assert watching.end() is Exit.RETRY_MAY_HELP
        assert watching.ends == {}


def test_watch_continues_after_an_outage(tmp_path: Path) -> None:
    config = ServerConfig(root=tmp_path / "root")
    with EmbeddedServer(config) as server:
        url, port = server.url, int(server.url.rpartition(":")[2])
        session = open_session(url, 2)
        send(url, session, "a.mp4")
        with Watching(url, session) as watching:
            watching.until("file.completed", path="a.mp4")
            server.stop()
            watching.until("channel.changed", to="reconnecting")
            with EmbeddedServer(config, port=port):
                send(url, session, "b.mp4")
                assert watching.end() is Exit.OK
        assert watching.files == {"a.mp4": "completed", "b.mp4": "completed"}


def test_watch_of_a_forgotten_session_cancels_its_file_and_exits_4() -> None:
    """The session existed, and its end is unknown, as is that of the file that was being sent."""
    with running_server() as server:
        port = int(server.url.rpartition(":")[2])
        session = open_session(server.url)
        body = body_of([text("sessionId", session), file("a.mp4", bytes(50_000), length=50_000)])
        with Watching(server.url, session) as watching:
            watching.until("channel.changed", to="live")
            with HalfSent(server.url, body) as request:
                request.send(len(body) // 2)
                watching.until("file.started", path="a.mp4")
                server.stop()
            with EmbeddedServer(ServerConfig(), port=port):
                assert watching.end() is Exit.FAILED_FOR_GOOD
        assert watching.ends == {session: "unknown"}
        assert watching.of("file.progress")[-1]["phase"] == "cancelled"
        assert watching.outcome is not None
        assert watching.outcome.cancelled == 1


def test_watch_without_a_server_exits_6() -> None:
    with running_server() as server:
        url = server.url
    with closed_port(url), Watching(url, UNKNOWN, wait=0.5) as watching:
        assert watching.end() is Exit.NO_SERVER


# --- who may ---------------------------------------------------------------------------------------------------------

TOKEN = "the-token-of-the-watchers"
WITH = {"authorization": f"Bearer {TOKEN}"}


@by_every_way
def test_watch_with_the_token_sees_everything(way: str) -> None:
    with running_server(auth_token=TOKEN, **WAYS[way]) as server:
        session = open_session(server.url, **WITH)
        with Watching(server.url, session, token=TOKEN) as watching:
            wait_until(lambda: polls(server, session))
            send(server.url, session, "a.mp4", **WITH)
            assert watching.end() is Exit.OK
        assert watching.files == {"a.mp4": "completed"}


@by_every_way
@pytest.mark.parametrize("token", [None, "wrong"])
def test_watch_without_the_token_exits_5_and_sees_nothing(way: str, token: str | None) -> None:
    """Exit 5 at once, not an unknown session after a wait."""
    with running_server(auth_token=TOKEN, **WAYS[way]) as server:
        session = open_session(server.url, **WITH)
        send(server.url, session, "secret-name.mp4", **WITH)
        with Watching(server.url, session, **({"token": token} if token else {})) as watching:
            assert watching.end() is Exit.NOT_AUTHORISED
        assert watching.files == {}
        assert "secret-name" not in str(watching.events)
        assert TOKEN not in str(watching.events)


def test_watch_reports_insecure_settings() -> None:
    """As in an upload: it explains why the given token is not enough."""
    with running_server(auth_token=TOKEN) as server:
        with Watching(server.url, UNKNOWN, token=TOKEN, distrust="nobody named it") as watching:
            assert watching.end() is Exit.NOT_AUTHORISED
        assert [warning["code"] for warning in watching.of("warning")] == ["token_withheld"]
        assert TOKEN not in str(watching.events)


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [Exit.SIGINT, Exit.SIGTERM])
def test_interrupt_ends_the_watch_and_not_the_upload(code: Exit) -> None:
    """The upload continues, and no thread, join or connection of the watch is left."""
    before = set(threading.enumerate())
    with running_server() as server:
        session = open_session(server.url)
        during = set(threading.enumerate())
        with Watching(server.url, session) as watching:
            wait_until(lambda: rooms(server))
            watching.interrupts.raise_(code)
            assert watching.end() is code
        wait_until(lambda: not rooms(server) and not sockets(server))
        wait_until(lambda: not [t for t in threading.enumerate() if t not in during and t.name.startswith("uploader-")])
        answer: dict[str, Any] = requests.get(f"{server.url}/api/upload/progress/{session}", timeout=PATIENCE).json()
        assert answer["overallStatus"] == "pending"
    wait_until(lambda: not [t for t in threading.enumerate() if t not in before and t.name.startswith("uploader-")])
