"""The last status of a file before its answer was lost, which a lookup before a retry needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fakes import captured

from uploader_cli.core.events import FileStatus, SessionProgress, Transport
from uploader_cli.core.last_heard import LastHeard
from uploader_cli.core.protocol import parse_progress

if TYPE_CHECKING:
    from collections.abc import Callable


def say(seen: LastHeard, *statuses: str, session: str = "s", name: str = "a.mp4") -> None:
    for status in statuses:
        seen.note(SessionProgress(session, Transport.WEBSOCKET, None, None, files=(FileStatus(name, status),)))


@pytest.mark.parametrize(
    ("heard", "known"),
    [
        (["uploading"], "uploading"),
        (["pending", "uploading"], "uploading"),
        (["uploading", "completed", "uploading"], "completed"),
        (["failed", "uploading", "completed"], "failed"),
    ],
)
def test_newest_status_counts_and_a_final_one_stays(heard: list[str], known: str) -> None:
    seen = LastHeard()
    say(seen, *heard)
    status = seen.of("s", "a.mp4")
    assert status is not None
    assert status.status == known


class Interrupted(str):
    """A status at whose first comparison another thread gets its turn."""

    __slots__ = ("others",)
    others: list[Callable[[], None]]
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        while self.others:
            self.others.pop()()
        return str.__eq__(self, other)


@pytest.mark.parametrize("interrupted", ["before", "now"])
def test_end_heard_in_another_thread_is_not_lost(interrupted: str) -> None:
    """The socket says "completed" while a poll's older answer is being noted."""
    seen = LastHeard()
    words = {"before": Interrupted("uploading"), "now": Interrupted("uploading")}
    for word in words.values():
        word.others = []
    say(seen, words["before"])
    waiting = words[interrupted].others
    waiting.append(lambda: say(seen, "completed"))
    say(seen, words["now"])
    for other in waiting:  # it was never compared
        other()
    status = seen.of("s", "a.mp4")
    assert status is not None
    assert status.status == "completed"


def test_status_is_kept_per_session_and_name() -> None:
    seen = LastHeard()
    say(seen, "completed")
    say(seen, "uploading", session="other")
    assert seen.of("s", "b.mp4") is None
    assert seen.of("none", "a.mp4") is None
    seen.forget("s")
    seen.forget("never heard of")
    assert seen.of("s", "a.mp4") is None
    assert seen.of("other", "a.mp4") is not None


def test_a_captured_stream_shows_which_file_was_stored() -> None:
    seen = LastHeard()
    for message in captured("events-one-failed"):
        parsed = parse_progress(message.data, Transport.WEBSOCKET)
        assert parsed is not None
        seen.note(parsed)
    names = {
        message.data["currentFile"]["originalName"]
        for message in captured("events-one-failed")
        if "currentFile" in message.data
    }
    session = captured("events-one-failed")[0].data["sessionId"]
    told = {name: seen.of(session, name) for name in names}
    assert sorted(status.status for status in told.values() if status) == ["completed", "failed"]
