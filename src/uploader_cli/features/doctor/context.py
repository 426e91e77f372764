"""The data that the steps of a diagnosis share, and their requests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from uploader_cli.core.capabilities import Capabilities, parse_capabilities
from uploader_cli.core.protocol import as_object, parse_limits
from uploader_cli.features.checks.check import Ended, skipped
from uploader_cli.features.checks.target import CheckedServer
from uploader_cli.settings import Settings
from uploader_cli.transfer.answers import Answer

USED_UP = "because the rate limit is used up"
RESPONSE_LIMIT = 4.0  # maximum seconds for a response, less than for a step, so that the step can report it


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Timed(NamedTuple):
    """A response, its duration in milliseconds, and the time of its arrival (seconds since the epoch)."""

    answer: Answer
    ms: float
    at: float


class DoctorContext(CheckedServer):
    """The server, and the results that steps pass on. `session` is an ID to check, `new_session` creates one.

    `new_upload` creates an upload. `fsync` is replaced in tests.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        session: str | None = None,
        new_session: bool = False,
        new_upload: bool = False,
        fsync: Callable[[int], None] = os.fsync,
    ) -> None:
        super().__init__(settings)  # the first step reads the token
        self.http.dialler.connect_timeout = self.ours.dialler.connect_timeout = RESPONSE_LIMIT
        self.session, self.new_session, self.new_upload, self.fsync = session, new_session, new_upload, fsync
        self.secure = settings.target_url.startswith("https://")
        self.server = self.next_hop = address_of(settings.target_url)  # the first hop is the proxy if there is one
        self.proxy: str | None = None
        self.addresses: list[str] = []
        self.connect_ms = 0.0  # duration of the TCP handshake: about one round trip
        self.health: Timed | None = None
        self.tus: Capabilities | None = None  # what the tus endpoint offers, once it was asked
        self.opened: str | None = None  # the session created here, until it is cancelled
        self.limited: float | None = None  # seconds until the server accepts requests again, after a 429
        self.used_up = False  # whether there was a 429 before the running step
        self.meter: Mapping[str, str] | None = None  # the headers of the last counted response
        self.live: dict[str, float] = {}  # transport → milliseconds to connect
        self.poll_ms: float | None = None

    @property
    def endpoint(self) -> str | None:
        """The tus endpoint of the settings or of `/health`."""
        if self.settings.tus_endpoint or self.health is None:
            return self.settings.tus_endpoint
        found = parse_capabilities(self.offered("tus"), self.settings.server)
        return found.endpoint if found is not None else None

    def offered(self, what: str) -> object:
        """Return what `/health` says of `tus`, `packs` or `lookup`; None without it."""
        return None if self.health is None else as_object(self.health.answer.body).get(what)

    @property
    def max_size(self) -> int | None:
        """The server's limit for one file in bytes, if known."""
        if self.tus is not None and self.tus.max_size is not None:
            return self.tus.max_size
        limits = parse_limits(as_object(self.health.answer.body).get("limits")) if self.health is not None else None
        return limits.max_file_size if limits is not None else None

    def call(self, method: str, where: str, *, limit: float = RESPONSE_LIMIT, **request: Any) -> Answer:
        """Send a request, as `send` does, to a path or URL of the server.

        Once the rate limit is used up, a later step ends before its first counted request.
        """
        url, counted = self.url(where), self.counts(where)
        if counted and self.used_up:
            raise Ended(skipped(USED_UP))
        self.calls += counted
        answer = self.send(method, url, limit=limit, **request)
        if counted:
            self.meter = answer.headers
            if answer.status == 429:
                self.limited = max(1.0, answer.retry_after or 60.0)
        return answer

    def timed(self, path: str) -> Timed:
        """Get a path of the server and time the response. Raises `NetworkError`."""
        began = time.perf_counter()
        answer = self.call("GET", path)
        return Timed(answer, (time.perf_counter() - began) * 1000, time.time())


def address_of(url: str) -> Address:
    """Return host and port of a URL, with the default port of its scheme."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    return Address(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
