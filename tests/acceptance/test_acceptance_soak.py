"""Thousands of sessions in one run of the client, over one connection: nothing grows on either side."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import requests
from acceptance.soak import Soak
from serving import inside, running_server, server_process

import uploader_cli.realtime.socket  # noqa: F401 - in the middle of a short run, this takes as long as the run
from uploader_cli import Settings, upload
from uploader_cli.core.jobs import MOST_JOBS
from uploader_cli.run.connections import Connections
from uploader_cli.run.interrupts import Interrupts
from uploader_cli.run.watch import watch
from uploader_cli.transfer.upload_driver import UploadDriver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

SESSIONS, BASE = 2_000, 200
WITHIN = 0.10
FEW = MOST_JOBS  # workers that `--jobs auto` adds, each with a connection
SHORT = 60
ONCE = SHORT // 3
"""Descriptors that a process opens once, some before its first request and some after; a leak is one a session."""


def make_files(top: Path, count: int) -> Path:
    """Make a file for each session: the server accepts one per session."""
    top.mkdir()
    for number in range(count):
        (top / f"{number:04}.mp4").write_bytes(b"%04d" % number * 25)
    return top


def open_sessions(url: str, count: int) -> list[str]:
    """Create sessions of one file each as another user."""
    with requests.Session() as http:
        asked = {"category": "personal", "expectedFiles": 1}
        answers = (http.post(f"{url}/api/upload/session", json=asked, timeout=30) for _ in range(count))
        return [str(answer.json()["sessionId"]) for answer in answers]


def fill(url: str, sessions: list[str]) -> None:
    """Upload one file to each session, one after the other."""
    with requests.Session() as http:
        for number, session in enumerate(sessions):
            parts = [("files", (f"{number:04}.mp4", b"x" * 100, "video/mp4"))]
            fields = {"sessionId": session, "category": "personal"}
            http.post(f"{url}/api/upload/batch", data=fields, files=parts, timeout=30).raise_for_status()


SERVER_THREADS = ("uploader-server", "uploader-database")

# --- short form: what one process keeps for a session is counted


class Inside:
    """What both sides keep in memory; an observer of the run that counts at the end of each session."""

    def __init__(self, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self._realtime: Any = inside(server).realtime
        self._joins = inside(server).joins
        self._made: list[weakref.ref[Any]] = []
        """The channel of the one run, and what was last heard over it."""
        self._descriptors = len(descriptors())
        self.seen: list[dict[str, int]] = []
        make = Connections.__init__

        def made(connections: Connections, *arguments: Any, **how: Any) -> None:
            make(connections, *arguments, **how)
            self._made += map(weakref.ref, (connections.channel, connections.last_heard))

        monkeypatch.setattr(Connections, "__init__", made)

    def handle(self, event: Any, state: Any, now: float) -> None:
        if event.type == "session.finished":
            self.count(event)

    def count(self, _event: Any) -> None:
        """Count after the end of a session."""
        self.seen.append(self.now())

    def refresh(self, state: Any, now: float) -> None:
        """Do nothing."""

    def close(self, state: Any, now: float) -> None:
        """Do nothing."""

    def now(self) -> dict[str, int]:
        """Return the current counts."""
        channel, last_heard = (made() for made in self._made)
        return self._on_the_server() | {
            "rooms": len(channel.rooms),
            "polled": len(channel.poller.schedule.sessions),
            "last heard": len(last_heard.ends.keys() | last_heard.others.keys()),
            "connections": len(channel.connections),
        }

    def _on_the_server(self) -> dict[str, int]:
        rooms = list(self._realtime.server.manager.rooms.get("/", {}))
        return {
            "server's rooms": sum(str(room).startswith("session:") for room in rooms),
            "server's joins": sum(map(len, list(self._joins.joined.values()))),
            "server's sockets": sum(not one.closed for one in list(self._realtime.server.eio.sockets.values())),
        }

    def most(self, what: str) -> int:
        """Return the highest count."""
        return max(count[what] for count in self.seen)

    def check_nothing_is_left(self) -> None:
        """Check that nothing of an ended session is left: no Socket.IO room, connection, thread or descriptor."""
        wait_until(lambda: not any(self._on_the_server().values()), self._on_the_server)
        wait_until(lambda: not client_threads(), client_threads)
        wait_until(lambda: len(descriptors()) <= self._descriptors + ONCE, descriptors)
        gc.collect()
        assert [made() for made in self._made] == [None, None]


def client_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("uploader-") and not name.startswith(SERVER_THREADS)]


def descriptors() -> list[str]:
    """Return the open descriptors of this process."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listed them
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return found


def wait_until(true: Callable[[], object], state: Callable[[], object] = lambda: "") -> None:
    """Wait until the condition is true; the limit only prevents hanging."""
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, f"the condition is still false: {state()}"
        time.sleep(0.01)


@pytest.mark.thorough
@pytest.mark.parametrize("protocol", ["tus", "batch"])
def test_few_sessions_in_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: Any) -> None:
    """Short form: sessions are left during the run, and nothing of them remains at its end."""
    files = make_files(tmp_path / "files", SHORT)
    with running_server(max_files=1, processing_seconds=0.03) as server:
        inside = Inside(server, monkeypatch)
        settings = Settings(server=server.url, protocol=protocol, state_dir=tmp_path / "state")
        assert len(upload(files, settings, on_completed=inside.count).receipts) == SHORT
        assert len(inside.seen) == SHORT
        for table in ("rooms", "polled", "last heard"):
            assert inside.seen[-1][table] < SHORT  # not the most: sessions are made ahead, and a channel is late
        assert inside.most("server's sockets") == inside.most("connections") == 1
        inside.check_nothing_is_left()


def test_ended_files_are_freed_without_garbage_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Collections are rare in a run (`gc.set_threshold` in `__main__`): cycles would take memory until then."""
    alive: weakref.WeakSet[UploadDriver] = weakref.WeakSet()
    counts: list[int] = []
    make = UploadDriver.__init__

    def made(part: UploadDriver, *arguments: Any, **how: Any) -> None:
        alive.add(part)
        make(part, *arguments, **how)

    monkeypatch.setattr(UploadDriver, "__init__", made)
    files = make_files(tmp_path / "files", SHORT)
    with running_server() as server:
        settings = Settings(server=server.url, protocol="tus", state_dir=tmp_path / "state")
        gc.disable()
        try:
            upload(files, settings, on_completed=lambda _event: counts.append(len(alive)))
        finally:
            gc.enable()
    assert len(counts) == SHORT
    assert counts[-1] <= MOST_JOBS


@pytest.mark.thorough
def test_few_sessions_in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short form: one socket for all sessions, each of which is left when it ends."""
    with running_server() as server:
        inside: Any = Inside(server, monkeypatch)
        sessions = open_sessions(server.url, SHORT)
        filling = threading.Thread(target=fill, args=(server.url, sessions))
        filling.start()
        outcome = watch(Settings(server=server.url), sessions, 30.0, [inside], Interrupts())
        filling.join()
        assert (outcome.completed, outcome.exit_code) == (SHORT, 0)
        assert len(inside.seen) == SHORT
        assert inside.most("server's sockets") == inside.most("connections") == 1
        inside.check_nothing_is_left()


# --- long form: two processes, measured by the kernel


def check_growth(soak: Soak) -> None:
    """Memory at the end is within 10 % of that after 200 sessions, and no session left a thread or a descriptor."""
    assert len(soak.client) == SESSIONS
    for side, (base, end) in soak.grown(BASE, 20).items():
        print(f"{side}: after {BASE} sessions {base}; after {SESSIONS} {end}")
        assert end.memory <= (1 + WITHIN) * base.memory
        assert end.threads <= base.threads + FEW
        assert end.descriptors <= base.descriptors + FEW


@pytest.mark.acceptance
@pytest.mark.timeout(900)
@pytest.mark.parametrize("protocol", ["tus", "batch"])
def test_2000_sessions_in_sequence(tmp_path: Path, protocol: str) -> None:
    """All sessions use one connection."""
    files = make_files(tmp_path / "files", SESSIONS)
    with server_process("--max-files", "1", "--root", str(tmp_path / "root")) as server:
        soak = Soak(server.pid)
        done = soak.run(["upload", files, "-s", server.url, "--protocol", protocol], tmp_path / "home", 840)
    assert done.code == 0
    assert done.finished["completed"] == SESSIONS
    assert done.finished["channel"]["reconnects"] == 0
    check_growth(soak)


@pytest.mark.acceptance
@pytest.mark.timeout(900)
def test_2000_sessions_in_parallel(tmp_path: Path) -> None:
    """One `watch` follows all sessions over one connection, while another user uploads."""
    with server_process("--root", str(tmp_path / "root")) as server:
        sessions = open_sessions(server.url, SESSIONS)
        soak = Soak(server.pid)
        filling = threading.Thread(target=fill, args=(server.url, sessions))
        filling.start()
        done = soak.run(["watch", *sessions, "-s", server.url], tmp_path / "home", 840)
        filling.join()
    assert done.code == 0
    assert done.finished["completed"] == SESSIONS
    assert done.finished["channel"]["reconnects"] == 0
    check_growth(soak)
