"""The main job, end to end: real files through the installed command into a server, and failures."""

from __future__ import annotations

import hashlib
import os
import signal
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from command import QUICK_LOOKS, Done, ended, read_until, start, uploader
from proxy import Proxy
from serving import running_server, server_process
from time_limits import SLACK

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

NAMES = (
    "plain.mp4",
    "with space.mp4",
    'it\'s "quoted".mp4',
    "景区 视频.mp4",
    "emoji 🎉👍.mp4",
    "[red]markup[/red].mp4",
    "new\nline.mp4",
    "esc\x1b[31mred.mp4",
    "percent%20%22.mp4",
    "ünïcödé.mp4",
    "-dash.mp4",
    "semi;colon, comma.mp4",
    "back\\slash.mp4",
    "a" * 200 + ".mp4",
    "deep/er/a.mp4",
    "deep/er/b.mp4",
    "deep/a.mp4",
    ".hidden.mp4",
    "no extension",
    "UPPER.MP4",
)
MODES = ("off", "hang", "refuse", "flap:3", "kill-after:3")
ALL_MODES = [(option, mode) for option in ("--realtime", "--websocket") for mode in MODES]


def make(top: Path, total: int, names: tuple[str, ...] = NAMES) -> Path:
    """Files of random content, `total` bytes together, in `top`."""
    for index, name in enumerate(names):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            left = total * (1 + index % 3) // (2 * len(names))
            while left > 0:
                file.write(os.urandom(min(left, 1 << 20)))
                left -= 1 << 20
    return top


def digests(top: Path) -> dict[str, str]:
    """SHA-256 by the path below `top`."""
    files = (path for path in top.rglob("*") if path.is_file())
    return {str(path.relative_to(top)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("protocol", ["tus", "batch"])
@pytest.mark.parametrize("total", [8_000_000, pytest.param(300_000_000, marks=pytest.mark.acceptance)])
def test_twenty_files_with_unusual_names_arrive_unchanged(total: int, protocol: str, tmp_path: Path) -> None:
    """Exit 0, and every stored file has the SHA-256 of its source, under its own name."""
    files = make(tmp_path / "my videos", total)
    with server_process("--root", str(tmp_path / "root")) as server:
        done = uploader("upload", files, "-s", server.url, "--protocol", protocol, "--json", home=tmp_path)
    assert done.code == 0, done.err
    assert done.events[0]["protocol"] == protocol
    assert digests(tmp_path / "root" / "personal" / "my videos") == digests(files)


@pytest.mark.parametrize("realtime", [None, "off"])
def test_seven_mp4_and_two_avi_on_the_reference_backend(realtime: str | None, tmp_path: Path) -> None:
    """Exactly four sessions, as few calls as that takes, one completion for each file, and no 429."""
    names = (*(f"clip {number}.mp4" for number in range(7)), "x.avi", "y.avi")
    files = make(tmp_path / "videos", 900_000, names)
    with running_server(flavour="reference", processing_seconds=0.5, realtime=realtime) as server:
        done = uploader("upload", files, "-s", server.url, "--json", home=tmp_path)
        calls = [request.path for request in server.faults.requests if request.path.startswith("/api/")]
        statuses = {request.status for request in server.faults.requests}
    assert done.code == 0, done.err
    assert len(done.of("session.created")) == 4
    assert sorted(event["path"] for event in done.of("file.completed")) == sorted(map(str, files.iterdir()))
    polls = sum("/progress/" in path for path in calls)
    assert len(calls) - polls == 8
    assert polls <= (0 if realtime is None else done.finished["seconds"] + 1)
    assert 429 not in statuses


def test_run_of_three_files_needs_few_requests(tmp_path: Path) -> None:
    """At most five of the hundred calls (docs/protocol.md, section 3.11), while the server processes for seconds."""
    files = make(tmp_path / "videos", 30_000, ("a.mp4", "b.mp4", "c.mp4"))
    with running_server(flavour="reference", processing_seconds=0.8) as server:
        done = uploader("upload", files, "-s", server.url, "--json", home=tmp_path)
        calls = [request for request in server.faults.requests if request.path.startswith("/api/")]
    assert done.code == 0
    assert len(calls) <= 5


def test_connections_are_reused(server: EmbeddedServer, tmp_path: Path) -> None:
    """Two workers, the calls beside them, the polls, and what carries Socket.IO: no file costs a connection."""
    files = make(tmp_path / "many", 60_000, tuple(f"{number}.bin" for number in range(30)))
    with Proxy(server.url) as relay:
        done = uploader("upload", files, "-s", relay.url, "-j", "2", "--json", home=tmp_path)
    assert (done.code, done.finished["completed"]) == (0, 30)
    assert relay.connections < 12


@pytest.mark.parametrize(
    ("option", "mode"),
    [("--realtime", "off"), *(pytest.param(*pair, marks=pytest.mark.acceptance) for pair in ALL_MODES[1:])],
)
def test_upload_succeeds_without_a_realtime_connection(option: str, mode: str, tmp_path: Path) -> None:
    """The upload succeeds, and the channel's states and times follow the policy."""
    files = make(tmp_path / "videos", 300_000, tuple(f"{number}.mp4" for number in range(6)))
    arguments = ("--as", "reference", "--processing", "3.5", option, mode)
    with server_process(*arguments) as server:
        done = uploader("upload", files, "-s", server.url, "--json", home=tmp_path)
    assert done.code == 0, done.err
    story = tell(done)
    if option == "--websocket":
        assert [move for _, move in story if "http" in move] == []
        assert any(move == "live polling" for _, move in story)
        return
    if mode in ("off", "hang", "refuse"):
        at = next(time for time, move in story if move == "polling http")
        assert at <= 5.0 * SLACK  # the policy's own numbers: tests/unit/realtime/test_realtime_policy.py
    if mode == "flap:3":
        assert [move for _, move in story].count("live websocket") >= 2
        assert done.finished["channel"]["reconnects"] >= 1
    for earlier, later in pairwise(done.of("channel.changed")):
        assert later["from"] == earlier["to"]


def tell(done: Done) -> list[tuple[float, str]]:
    """The moves of the channel: seconds since the run's start, and where it went."""
    began = datetime.fromisoformat(done.events[0]["ts"])
    return [
        (
            (datetime.fromisoformat(event["ts"]) - began).total_seconds(),
            f"{event['to']} {event['transport'] or ''}".strip(),
        )
        for event in done.of("channel.changed")
    ]


# --- the server stops ------------------------------------------------------------------------------------------------


def test_server_that_stops_during_the_body_fails_the_run(tmp_path: Path) -> None:
    """The open file is retryable: exit 3, no traceback, and nothing is stored."""
    big = tmp_path / "big.mp4"
    with big.open("wb") as file:
        file.truncate(3 << 30)
    with server_process("--root", str(tmp_path / "root")) as server:
        options = ("--protocol", "batch", "--retries", "1", "--json")
        process = start("upload", big, "-s", server.url, *options, home=tmp_path)
        seen = read_until(process, "file.progress", lambda event: event["phase"] == "sending")
        server.kill()
        done = ended(process, seen)
    assert done.code == 3, done.err
    assert done.of("file.failed")[0]["code"] in ("network", "timeout")
    assert not (tmp_path / "root" / "personal").exists() or not list((tmp_path / "root" / "personal").rglob("*.mp4"))


def test_server_killed_during_processing_stores_nothing_twice(tmp_path: Path) -> None:
    """The file under way may be stored: exit 4, it is reported as unknown and not resent."""
    files = make(tmp_path / "videos", 300_000, ("a.mp4", "b.mp4", "c.mp4"))
    root = tmp_path / "root"
    with server_process("--as", "reference", "--processing", "6.0", "--root", str(root)) as server:
        command = ("upload", files, "-s", server.url, "--json", "--retries", "1")
        process = start(*command, home=tmp_path, constants=QUICK_LOOKS, UPLOADER_WAIT_FOR_SERVER="1")
        seen = read_until(process, "server.message", lambda event: event["text"].endswith("b.mp4... 15%"))
        server.process.send_signal(signal.SIGKILL)
        done = ended(process, seen)
    assert done.code == 4, done.err
    ends = {event["path"].rsplit("/", 1)[1]: event for event in (*done.of("file.completed"), *done.of("file.failed"))}
    assert ends["a.mp4"]["type"] == "file.completed"
    assert ends["b.mp4"]["code"] == "outcome_unknown"
    assert ends["c.mp4"]["code"] == "outcome_unknown"
    stored = [path.name for path in root.rglob("*_?.mp4")]
    assert len(stored) == 2  # the first, and the one in its hands
    assert "--resend-unknown" in done.err
