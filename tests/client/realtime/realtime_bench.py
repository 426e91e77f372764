"""A channel with a server whose faults can be switched, recorded events, and running threads."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from time_limits import PATIENCE
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from uploader_cli.core.events import ChannelChanged, Event, PollFailed, SessionProgress, Transport
from uploader_cli.realtime.channel import Channel
from uploader_cli.realtime.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable

SCALED = Policy(dial=40.0, websocket=20.0, retries=3, retry_delay=0.1, fallback=60.0, backoff_max=0.4, poll=0.1)
"""The policy with its pauses shortened, and with limits that no slow machine meets.

The true numbers are tested where the clock is a variable.
"""
SILENT_WEBSOCKET = replace(SCALED, websocket=0.5)
"""Where a websocket never answers."""
SILENT_SERVER = replace(SCALED, dial=1.0, websocket=0.5, fallback=1.0)
"""Where nothing ever does."""


class ServerProcess:
    """`realtime_server.py` and its command line."""

    def __init__(self, certificate: str | None = None) -> None:
        script = Path(__file__).with_name("realtime_server.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), *filter(None, [certificate])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._read())
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}"

    def __call__(self, **command: Any) -> Any:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._read())

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def make_session(verify: bool | str, proxy: str) -> tuple[requests.Session, Callable[[], None]]:
    """Return a session, and a function that shuts its sockets, as `session_factory` does in a run."""
    session = requests.Session()
    session.trust_env, session.verify = False, verify
    if proxy:
        session.proxies = {"http": proxy, "https": proxy}
    opened: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    class Connection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            made = super()._new_conn()
            opened.add(made)
            return made

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    adapter = HTTPAdapter()
    adapter.poolmanager.pool_classes_by_scheme = {"http": Pool}
    session.mount("http://", adapter)

    def shut() -> None:
        for made in list(opened):
            with suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)

    return session, shut


NUMBERS = itertools.count()


class Bench:
    """A channel with recorded events. `fetched` are the times of the HTTP polls, by session.

    Its dials have a `token` of their own: the last dial of a test may arrive after its end.
    """

    def __init__(
        self, url: str, policy: Policy = SCALED, *, verify: bool | str = True, proxy: str = "", **options: Any
    ) -> None:
        self.before = set(threading.enumerate())
        self.token = f"bench-{next(NUMBERS)}"
        self.events: list[tuple[float, Event]] = []
        self.fetched: list[tuple[str, float]] = []
        self.most_threads = 0
        """Threads of this process when a message was emitted, at most."""
        self.answer: Callable[[str], SessionProgress | None] = lambda session: progress(session)
        self.channel = Channel(
            url,
            emit=self._emit,
            fetch=self._fetch,
            session_factory=lambda: make_session(verify, proxy),
            policy=policy,
            **{"interval": lambda: policy.poll, "headers": lambda: {"X-Token": self.token}, **options},
        )
        self.began = time.monotonic()

    def _emit(self, event: Event) -> None:
        self.events.append((time.monotonic() - self.began, event))
        if isinstance(event, SessionProgress):
            self.most_threads = max(self.most_threads, threading.active_count())

    def _fetch(self, session: str) -> SessionProgress | None:
        self.fetched.append((session, time.monotonic() - self.began))
        return self.answer(session)

    def start(self, *sessions: str) -> Bench:
        for session in sessions:
            self.channel.follow(session)
        self.began = time.monotonic()
        self.channel.start()
        return self

    def story(self) -> list[str]:
        """The moves in words: `to transport reason attempt`."""
        return [
            " ".join(str(part) for part in (move.to, move.transport, move.reason, move.attempt) if part is not None)
            for move in self.moves()
        ]

    def moves(self) -> list[ChannelChanged]:
        return [event for _, event in self.events if isinstance(event, ChannelChanged)]

    def when(self, state: str) -> float:
        return next(at for at, event in self.events if isinstance(event, ChannelChanged) and event.to == state)

    def heard(self) -> list[SessionProgress]:
        return [
            event
            for _, event in self.events
            if isinstance(event, SessionProgress) and event.source is not Transport.HTTP
        ]

    def failed_polls(self) -> list[PollFailed]:
        return [event for _, event in self.events if isinstance(event, PollFailed)]

    def reach(self, state: str, times: int = 1, within: float = PATIENCE) -> None:
        wait_until(lambda: sum(move.to == state for move in self.moves()) >= times, within, self.story)

    def left_running(self) -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread not in self.before]


def progress(session: str, percent: float = 10.0) -> SessionProgress:
    return SessionProgress(session, Transport.HTTP, 1.0, "uploading", percent)


def wait_until(true: Callable[[], object], within: float = PATIENCE, told: Callable[[], object] = lambda: "") -> None:
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, f"it did not happen in time: {told()}"
        time.sleep(0.005)
