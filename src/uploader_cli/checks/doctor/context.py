"""The data shared by the steps of a diagnosis, and its counted requests."""

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
"""An ID that no session and no file has: requests for it change nothing."""
STEP_LIMIT = 5.0
"""Maximum seconds for a step."""
ANSWER_LIMIT = 4.0
"""Maximum seconds for a response, less than for a step, so that the step can report it."""


class Address(NamedTuple):
    """The host and port of a connection."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Timed(NamedTuple):
    """A response and its duration in milliseconds."""

    answer: Answer
    ms: float


@dataclass
class Context:
    """The results that steps pass on. `session` is an ID to check, `new_session` creates one.

    Environment, wall clock and `fsync` are fields, so that tests can replace them.
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
    """Duration of the TCP handshake: about one round trip."""
    health: Timed | None = None
    health_received: float = 0.0
    """Wall time of its arrival (seconds)."""
    speaks: bool = False
    """True once a response was that of an upload server."""
    opened: str | None = None
    """The session created here, until it is cancelled."""
    calls: int = 0
    limited: float | None = None
    """Seconds until the server accepts requests again, after a 429."""
    meter: Mapping[str, str] | None = None
    """The headers of the last counted response."""
    live: dict[str, float] = field(default_factory=dict)
    """Transport → milliseconds to connect."""
    poll_ms: float | None = None

    def __post_init__(self) -> None:
        self.http = Http(self.settings)
        self.closing = threading.Event()

    @property
    def server(self) -> Address:
        """The server's host and port."""
        return address_of(self.settings.server)

    @property
    def secure(self) -> bool:
        """True for https."""
        return self.settings.server.startswith("https://")

    @property
    def next_hop(self) -> Address:
        """The first hop: the proxy, else the server."""
        return address_of(self.proxy) if self.proxy else self.server

    def authorization(self) -> dict[str, str]:
        """Return the header with the token, if there is one."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def call(self, method: str, path: str, *, json: object = None, headers: Mapping[str, str] | None = None) -> Timed:
        """Send a request and time it; those to `/api` are counted. Raises `NetworkError`."""
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
        """Close the connections."""
        self.closing.set()
        self.http.shut()
        self.http.close()


def address_of(url: str) -> Address:
    """Return host and port of a URL, with the default port of its scheme."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    return Address(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
