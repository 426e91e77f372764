"""The founding document's table of recoveries: the action after each failure, and its report."""

from __future__ import annotations

import pytest
from cli.watch.watch_bench import Watching, open_session, send
from serving import running_server

from uploader_cli.exit_status import Exit
from uploader_cli.realtime.socket import Connection


def recovered(watching: Watching) -> list[str]:
    """Return the reported recoveries, one line each."""
    return [event["text"] for event in watching.of("warning") if event["code"] == "recovered"]


@pytest.mark.thorough
def test_timeout_leads_to_polling_and_failed_polls_keep_the_state() -> None:
    """No dial is answered. Then two polls fail: the known state is kept, and the third poll updates it."""
    with running_server(realtime="hang") as server:
        session = open_session(server.url)
        with Watching(server.url, session) as watching:
            watching.until("channel.changed", to="polling", reason="deadline")
            server.faults.next_answers("GET", "/api/upload/progress/*", [500, 500])
            watching.until("warning", code="recovered")
            send(server.url, session, "a.mp4")
            assert watching.end() is Exit.OK
        assert watching.files == {"a.mp4": "completed"}
        assert watching.outcome is not None
        assert watching.outcome.channel.fallbacks == 1
        assert watching.outcome.metrics.failed_polls == 2
        assert [text.partition(" after ")[0] for text in recovered(watching)] == ["progress is updated again"]


def test_disconnect_leads_to_three_retries_then_polling() -> None:
    """Each retry is reported. The first loss is restored by a retry, the second one during polling."""
    with running_server() as server:
        session = open_session(server.url)
        with Watching(server.url, session) as watching:
            watching.until("channel.changed", to="live", reason="connected")
            server.faults.cut_realtime()
            watching.until("warning", code="recovered")
            server.faults.set_realtime("refuse")
            watching.until("channel.changed", to="polling")
            server.faults.set_realtime(None)
            watching.until("channel.changed", **{"from": "polling", "to": "live"})
            send(server.url, session, "a.mp4")
            assert watching.end() is Exit.OK
        moves = watching.of("channel.changed")
        second = next(at for at, move in enumerate(moves) if move["reason"] == "recovered") + 1
        lost = [move.get("attempt") for move in moves[second:] if move["to"] == "reconnecting"]
        assert lost
        assert lost == [1, 2, 3][: len(lost)]  # polling begins at 5 s, at any retry
        told = recovered(watching)
        assert told[0].startswith("reconnected after ")
        assert told[-1].endswith(", progress was polled meanwhile")


def test_channel_without_a_thread_leads_to_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of the system is reached when it connects."""

    def refuse(_connection: Connection) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Connection, "start", refuse)
    with running_server() as server:
        session = open_session(server.url)
        with Watching(server.url, session) as watching:
            watching.until("channel.changed", to="polling", reason="lost")
            send(server.url, session, "a.mp4")
            assert watching.end() is Exit.OK
        assert watching.files == {"a.mp4": "completed"}
        assert [move["to"] for move in watching.of("channel.changed")] == ["connecting", "polling", "closed"]
