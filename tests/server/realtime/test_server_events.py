"""Events of the bundled server over both transports: joining, real progress, one end for each file and session."""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import requests
from server.batches import (
    DEADLINE,
    UNKNOWN,
    HalfSent,
    Listener,
    body_of,
    eventually,
    file,
    listening,
    new_session,
    progress,
    text,
    upload,
    watching,
)
from serving import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer

both_transports = pytest.mark.parametrize("transport", ["websocket", "polling"])


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server() as server:
        yield server


@both_transports
def test_join_is_acknowledged_with_a_snapshot(server: EmbeddedServer, transport: str) -> None:
    session = new_session(server.url, 2)
    upload(server.url, file(f"before {transport}", b"x"), session=session)
    with watching(server.url, transport, session) as watcher:
        (snapshot,) = watcher.wait(lambda events: events)
    assert (snapshot["sessionId"], snapshot["overallStatus"]) == (session, "uploading")
    assert (snapshot["totalProgress"], snapshot["completedFiles"], snapshot["totalFiles"]) == (50, 1, 2)


@pytest.mark.parametrize("bad", [UNKNOWN, "x", "", None, 7, {"a": 1}, "../../etc/passwd", ["a", "b"]])
def test_join_of_an_invalid_session_is_refused(server: EmbeddedServer, bad: object) -> None:
    with watching(server.url) as watcher:
        answer = watcher.join(bad)
    assert answer == {"ok": False, "error": "SESSION_NOT_FOUND" if bad == UNKNOWN else "INVALID_SESSION_ID"}


def test_no_event_after_leave(server: EmbeddedServer) -> None:
    session = new_session(server.url, 2)
    with watching(server.url, "websocket", session) as left, watching(server.url, "websocket", session) as stays:
        left.wait(lambda events: events)
        assert left.client.call("leave-session", session, timeout=DEADLINE) == {"ok": True}
        assert left.client.call("leave-session", "x", timeout=DEADLINE)["ok"] is False
        upload(server.url, file("left", b"x"), session=session)
        stays.wait(lambda events: any(e["completedFiles"] for e in events))
        assert left.join(UNKNOWN)["ok"] is False  # a round trip: everything sent before has arrived
        assert len(left.events) == 1


@both_transports
def test_progress_events_arrive_while_bytes_arrive(server: EmbeddedServer, transport: str) -> None:
    """With the part's own Content-Length the percentage of the file is exact."""
    session = new_session(server.url, 2)
    size = 1_000_000
    parts = [file("a.mp4", b"a" * size, length=size), file("b.mp4", b"b" * size, length=size)]
    body = body_of([text("sessionId", session), text("category", "personal"), *parts])
    with watching(server.url, transport, session) as watcher, HalfSent(server.url, body) as request:
        request.send(size // 2)
        eventually(lambda: progress(server.url, session).json()["totalProgress"] == 24, "half of the first of two")
        time.sleep(0.1)  # one event in so much time
        request.send(size)
        half = watcher.wait(lambda events: any(0 < e.get("currentFile", {}).get("progress", 0) < 100 for e in events))
        assert all(e["overallStatus"] in {"pending", "uploading"} for e in half)
        eventually(lambda: 70 <= progress(server.url, session).json()["totalProgress"] <= 75, "half of the second")
        request.send()
        assert request.status() == 200
        events = watcher.wait_for_end()
    ids = {f["originalName"]: f["id"] for f in progress(server.url, session).json()["files"]}
    for event in events:
        if "currentFile" in event:
            assert event["currentFile"]["id"] == ids[event["currentFile"]["originalName"]]
    totals = [event["totalProgress"] for event in events]
    assert totals == sorted(totals)
    assert [
        e["currentFile"]["originalName"] for e in events if e.get("currentFile", {}).get("status") == "completed"
    ] == [
        "a.mp4",
        "b.mp4",
    ]
    assert [e["overallStatus"] for e in events if "currentFile" not in e][1:] == ["completed"]
    assert [e["totalProgress"] for e in events if e["totalProgress"] == 100] == [100]


def test_without_lengths_of_parts_the_percentage_is_a_lower_bound(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    body = body_of([text("sessionId", session), text("category", "personal"), file("a", b"x" * 1_000_000)])
    with HalfSent(server.url, body) as request:
        request.send(500_000)
        eventually(lambda: 45 <= progress(server.url, session).json()["totalProgress"] <= 50, "about a half")


def test_events_are_throttled(server: EmbeddedServer) -> None:
    """At most ten byte events per second, for any number of pieces."""
    session = new_session(server.url)
    body = body_of([text("sessionId", session), text("category", "personal"), file("slow", b"x" * 600_000)])
    with watching(server.url, "websocket", session) as watcher, HalfSent(server.url, body) as request:
        began = time.monotonic()
        for seen in (1, 2):
            while len(request.rest) > 300_000 * (2 - seen) + 10_000:
                request.send(10_000)
                time.sleep(0.01)
            eventually(lambda seen=seen: request.send(1) or len(running(watcher.events)) >= seen, "the event")
        request.send()
        request.status()
        seconds = time.monotonic() - began
        events = running(watcher.wait_for_end())
    assert 2 <= len(events) <= seconds * 10 + 2
    assert any(e["currentFile"]["uploadSpeed"] > 0 for e in events)


def running(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [e for e in events if e.get("currentFile", {}).get("status") == "uploading"]


@both_transports
def test_burst_of_final_events_is_delivered(server: EmbeddedServer, transport: str) -> None:
    """A hundred files end together: more events than one polling payload takes by default."""
    session = new_session(server.url, 100)
    with watching(server.url, transport, session) as watcher:
        upload(server.url, *(file(f"{transport} {n}", b"x") for n in range(100)), session=session)
        events = watcher.wait_for_end()
        done = [e["currentFile"]["id"] for e in events if e.get("currentFile", {}).get("status") == "completed"]
    assert len(done) == len(set(done)) == 100


def test_relative_paths_are_shown(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    with watching(server.url, "websocket", session) as watcher:
        upload(server.url, file("x", b"1"), paths=("shown/x",), session=session)
        events = watcher.wait_for_end()
    assert {e["currentFile"]["relativePath"] for e in events if "currentFile" in e} == {"shown/x"}


def test_a_failed_file_ends_in_partial(server: EmbeddedServer) -> None:
    session = new_session(server.url, 2)
    with watching(server.url, "websocket", session) as watcher:
        upload(server.url, file("n" * 300, b"1"), file("fine", b"2"), session=session)
        events = watcher.wait_for_end()
    failed = [e["currentFile"] for e in events if e.get("currentFile", {}).get("status") == "failed"]
    assert len(failed) == 1
    assert failed[0]["error"]
    assert (events[-1]["overallStatus"], events[-1]["completedFiles"], events[-1]["failedFiles"]) == ("partial", 1, 1)


def test_cancel_and_finish_send_an_event(subtests: pytest.Subtests, server: EmbeddedServer) -> None:
    for call, status in (("cancel/{}", "cancelled"), ("session/{}/finish", "completed")):
        with subtests.test(call=call, status=status):
            session = new_session(server.url, 2)
            with watching(server.url, "websocket", session) as watcher:
                requests.post(f"{server.url}/api/upload/{call.format(session)}", timeout=DEADLINE)
                assert watcher.wait_for_end()[-1]["overallStatus"] == status


def test_total_progress_falls_only_after_an_aborted_request(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    body = body_of([text("sessionId", session), text("category", "personal"), file("again", b"x" * 1_000_000)])
    with watching(server.url, "websocket", session) as watcher:
        with HalfSent(server.url, body) as request:
            request.send(900_000)
            eventually(lambda: progress(server.url, session).json()["totalProgress"] > 80, "most of the file")
        eventually(lambda: progress(server.url, session).json()["files"] == [], "the end of the request")
        upload(server.url, file("again", b"x"), session=session)
        events = watcher.wait_for_end()
    ended_early = next(index for index, event in enumerate(events) if "ended early" in event["message"])
    assert events[ended_early]["totalProgress"] == 0
    for part in (events[:ended_early], events[ended_early:]):
        assert all(one["totalProgress"] <= two["totalProgress"] for one, two in itertools.pairwise(part))


@pytest.mark.thorough
def test_all_watchers_get_the_same_events(server: EmbeddedServer) -> None:
    """In the same order, on separate connections; one that does not read delays no other."""
    session = new_session(server.url, 3)
    with ExitStack() as stack:
        stack.enter_context(listening(server.url, session))
        watchers = [stack.enter_context(listening(server.url, session)) for _ in range(25)]
        for watcher in watchers:
            assert watcher.event()["overallStatus"] == "pending"  # it has joined
        upload(server.url, *(file(f"{letter}.mp4", b"x" * 1000) for letter in "abc"), session=session)
        heard = [events_until_the_end(watcher) for watcher in watchers]
    assert heard[0][-1]["completedFiles"] == 3
    assert all(events == heard[0] for events in heard)


def events_until_the_end(watcher: Listener) -> list[dict[str, Any]]:
    """The events up to the session's end."""
    events = [watcher.event()]
    while events[-1]["overallStatus"] != "completed":
        events.append(watcher.event())
    return events
