"""What the steps of one examination share, and the calls they make, which are counted."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from uploader_cli.transfer.http import Http
from uploader_cli.transfer.pacing import retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uploader_cli.settings import Settings
    from uploader_cli.transfer.http import Answer

NOBODY = "00000000-0000-4000-8000-000000000000"
"""An id that no session and no file has: asking for it changes nothing."""
STEP_LIMIT = 5.0
"""Seconds that a step may take."""
ANSWER_LIMIT = 4.0
"""Seconds that one answer may take: a step that gives up by itself can say what it waited for."""


class Address(NamedTuple):
    """Where a connection goes."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Timed(NamedTuple):
    """An answer, and the milliseconds it took."""

    answer: Answer
    ms: float


@dataclass
class Context:
    """What one step leaves for the next. `session` is an id to look at, `new_session` asks for one to be made.

    Everything of the machine that a test may want to be different is a field: environment, wall clock, `fsync`.
    """

    settings: Settings
    session: str | None = None
    new_session: bool = False
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    wall: Callable[[], float] = time.time
    fsync: Callable[[int], None] = os.fsync

    token: str | None = None
    proxy: str | None = None
    addresses: list[str] = field(default_factory=list)
    connect_ms: float | None = None
    """How long a TCP connection took: about one way there and back."""
    health: Timed | None = None
    health_received: float = 0.0
    """Wall time at which it came (seconds)."""
    speaks: bool = False
    """True once something answered as an upload server does."""
    opened: str | None = None
    """The session that this examination opened, until it is cancelled."""
    calls: int = 0
    limited: float | None = None
    """Seconds until the server takes calls again, once it answered 429."""
    meter: Mapping[str, str] | None = None
    """The headers of the last counted answer."""
    live: dict[str, float] = field(default_factory=dict)
    """Transport → milliseconds until it was connected."""
    poll_ms: float | None = None

    def __post_init__(self) -> None:
        self.http = Http(self.settings)
        self.closing = threading.Event()

    @property
    def server(self) -> Address:
        """Host and port of the server."""
        return address_of(self.settings.server)

    @property
    def secure(self) -> bool:
        """True for https."""
        return self.settings.server.startswith("https://")

    @property
    def next_hop(self) -> Address:
        """Where the connection goes first: the proxy, else the server."""
        return address_of(self.proxy) if self.proxy else self.server

    def authorization(self) -> dict[str, str]:
        """The header that carries the token, if there is one."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def call(self, method: str, path: str, *, json: object = None, headers: Mapping[str, str] | None = None) -> Timed:
        """One call, timed; those to `/api` are counted. Raises `NetworkError`."""
        counted = path.startswith("/api/")
        self.calls += counted
        began = time.perf_counter()
        answer = self.http.request(
            method,
            self.settings.server + path,
            json=json,
            headers={**self.authorization(), **(headers or {})},
            read_timeout=ANSWER_LIMIT,
        )
        took = (time.perf_counter() - began) * 1000
        if counted:
            self.meter = answer.headers
            if answer.status == 429:
                self.limited = max(1.0, retry_after(answer.headers) or 60.0)
        return Timed(answer, took)

    def close(self) -> None:
        """Let go of the connections."""
        self.closing.set()
        self.http.shut()
        self.http.close()


def address_of(url: str) -> Address:
    """Host and port of a URL, with the port of its scheme where it names none."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    return Address(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
