"""Three `watch` processes follow one upload while the server's realtime side goes down and up."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from command import ended, read_until, start
from serving import server_process

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
FILES, WATCHERS = 40, 3


@pytest.mark.acceptance
@pytest.mark.timeout(300)
def test_three_watchers_of_a_flapping_server(tmp_path: Path) -> None:
    """Four seconds up, four down. The upload waits until all watch; each sees all of it and exits with 0."""
    top = tmp_path / "files"
    top.mkdir()
    for number in range(FILES):
        (top / f"{number}.mp4").write_bytes(b"x" * MIB)
    with server_process("--realtime", "flap:4", "--root", str(tmp_path / "root")) as server:
        to = ("-s", server.url, "--json")
        upload = start("upload", top, *to, "--limit-rate", "1M", home=tmp_path)
        seen = read_until(upload, "session.created")
        session = json.loads(seen.splitlines()[-1])["session"]
        upload.send_signal(signal.SIGSTOP)
        watchers = [start("watch", session, *to, home=tmp_path) for _ in range(WATCHERS)]
        began = [
            read_until(watcher, "channel.changed", lambda event: bool(event["to"] == "live")) for watcher in watchers
        ]
        upload.send_signal(signal.SIGCONT)
        watched = [ended(watcher, begun) for watcher, begun in zip(watchers, began, strict=True)]
        uploaded = ended(upload, seen)
    assert (uploaded.code, uploaded.finished["completed"]) == (0, FILES)
    for done in watched:
        states = [event["to"] for event in done.of("channel.changed")]
        print(states, done.finished)
        assert done.code == 0, done.err
        assert {event["path"] for event in done.of("file.completed")} == {f"files/{n}.mp4" for n in range(FILES)}
        assert done.finished["completed"] == FILES
        assert [(end["session"], end["status"]) for end in done.of("session.finished")] == [(session, "completed")]
        assert states.count("live") > 1
