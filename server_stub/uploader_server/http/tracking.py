"""Tracks requests: the record of each one, the access log with one line per request, and the end of all requests."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import logging
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from uploader_server.config import ServerConfig
from uploader_server.http.errors import refuse
from uploader_server.http.heads import cut_head
from uploader_server.http.proxies import Proxies, located
from uploader_server.logs import printable, without_secrets
from uploader_server.shares import Share, holder_name
from uploader_server.wire import timestamp

logger = logging.getLogger(__name__)

LONGEST_ID = 128  # maximum length of a request id in characters; longer ids are truncated
DRAIN_SECONDS = 1.0
"""Maximum seconds of reading the rest of a body after a response that was sent before its end.

Closing a socket with unread data sends a TCP reset, which may discard the response at a client that is still sending.
"""
_UNSAFE = re.compile(rb"[^A-Za-z0-9._:/+=@-]")


def client_address(scope: Scope) -> str:
    """Return the IP address of the client; empty if unknown."""
    return str(scope["client"][0]) if scope.get("client") else ""


def request_id(scope: Scope) -> str:
    """Return `X-Request-ID` without characters that are unsafe in logs and headers; empty if absent."""
    sent = next((value for name, value in scope.get("headers", ()) if name == b"x-request-id"), b"")
    return _UNSAFE.sub(b"", sent)[:LONGEST_ID].decode()


class LoggedRequest(NamedTuple):
    """One request: `time` is its arrival (monotonic seconds), `seconds` the time until its response was complete.

    `status` is 0 if there was no response. `received` counts bytes of the body, `client` is an IP address,
    `request_id` the sanitized `X-Request-ID`. `path` is from `without_secrets`.
    """

    time: float
    method: str
    path: str
    status: int
    seconds: float
    received: int = 0
    client: str = ""
    request_id: str = ""


class AccessLog:
    """Writes the access log. Raises OSError if the file can't be opened.

    A log never changes an answer: a line that can't be written is counted in `dropped`, and the first one is reported.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.dropped = 0
        self._json = config.access_log_format == "json"
        self._name = config.access_log
        self._file: io.FileIO | None = None
        self._is_torn = False  # whether the file ends within a line
        if self._name is not None and self._name != "-":
            self._file = io.FileIO(self._name, "a", opener=_opened)  # a buffer would keep what can't be written

    def write(self, entry: LoggedRequest) -> None:
        """Append one line; the path has no query string."""
        if self._name is None:
            return
        try:
            self._append((_as_json(entry) if self._json else _plain(entry)) + "\n")
        except (OSError, ValueError) as error:  # ValueError: stderr is closed
            self.dropped += 1
            if self.dropped == 1:
                text = "the access log %s can't be written (%s): lines are dropped, and counted in /metrics"
                logger.error(text, self._name, error)

    def _append(self, line: str) -> None:
        if self._file is None:
            sys.stderr.write(line)
            return
        data = ("\n" if self._is_torn else "").encode() + line.encode()
        written = self._file.write(data)
        if written is None:
            raise BlockingIOError(errno.EAGAIN, "its reader is too slow")
        self._is_torn = written < len(data)
        if self._is_torn:
            raise OSError(f"only {written} of {len(data)} bytes were written")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._name = None


def _opened(path: str, flags: int) -> int:
    """Open a log. A pipe is not waited for: neither its missing reader nor a slow one holds up the server."""
    try:
        return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "a pipe that nobody reads") from error
        raise


def _as_json(entry: LoggedRequest) -> str:
    """Format an entry as JSON; `time` is the arrival (RFC 3339, UTC), `status` 0 means no response."""
    arrived = datetime.fromtimestamp(time.time() - (time.monotonic() - entry.time), UTC)
    fields = {
        "time": timestamp(arrived),
        "method": entry.method,
        "path": entry.path,
        "status": entry.status,
        "seconds": round(entry.seconds, 6),
        "bytesIn": entry.received,
        "client": entry.client,
        "requestId": entry.request_id or None,
    }
    return json.dumps(fields)


def _plain(entry: LoggedRequest) -> str:
    path = quote(entry.path, "/:@!$&'()*+,;=~", errors="replace")  # escapes spaces and line breaks
    return f"{timestamp()} {entry.method} {path} {entry.status} {entry.seconds * 1000:.1f}ms"


class TrackedRequest:
    """Wraps `send` and `receive` of one request to record its status and count its bytes.

    With `echo` the response carries the client's request id. The request is recorded just before its response is
    complete, so a client that has read the response finds it in the log. A response before the end of the body closes
    the connection.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, keep: Callable[[LoggedRequest], None], *, echo: bool
    ) -> None:
        self.method = scope.get("method", "WEBSOCKET")
        self.path = without_secrets(scope["path"])
        self.http = scope["type"] == "http"
        peer = scope.get("peer") or scope.get("client") or ("", 0)
        self.peer = (str(peer[0]), int(peer[1]))
        """Address and port of the connection's remote end: the client or a proxy."""
        self.received = 0  # bytes received: of the body, or of websocket messages
        self._receive = receive
        self._send = send
        self._client = client_address(scope)
        self._request_id = request_id(scope)
        self._echoed = [(b"x-request-id", self._request_id.encode())] if echo and self._request_id else []
        self._keep: Callable[[LoggedRequest], None] | None = keep
        self._began = time.monotonic()
        self._status = 0
        self._unread = self.http and any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in scope["headers"]
        )
        """Whether the body has not arrived completely."""

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        starts = kind in {"http.response.start", "websocket.http.response.start"}
        if not self._status:
            if starts:
                self._status = message["status"]
                added = [*self._echoed, (b"connection", b"close")] if self._unread else self._echoed
                if added:
                    message["headers"] = [*message.get("headers", ()), *added]
            elif kind in {"websocket.accept", "websocket.close"}:
                self._status = 101 if kind == "websocket.accept" else 403
        if not starts and not message.get("more_body"):
            self.note()
        await self._send(message)

    async def receive(self) -> Message:
        message = await self._receive()
        self.received += len(message.get("body") or message.get("text") or message.get("bytes") or b"")
        if not message.get("more_body"):
            self._unread = False
        return message

    async def drain(self) -> None:
        """Read and drop the rest of the body for at most DRAIN_SECONDS."""
        if self._unread:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    while self._unread:
                        await self.receive()

    async def give_up(self) -> None:
        """Respond 503 and close the connection if no response was sent; close a websocket."""
        try:
            if not self.http:
                await self._send({"type": "websocket.close", "code": 1012})
            elif not self._status:
                self._status = 503
                self.note()
                headers = [(b"connection", b"close"), (b"content-length", b"0")]
                await self._send({"type": "http.response.start", "status": 503, "headers": headers})
                await self._send({"type": "http.response.body", "body": b""})
        except Exception as error:  # noqa: BLE001 - the type depends on the ASGI server
            logger.debug("the client has disconnected: %r", error)

    def note(self) -> None:
        """Record the request, once."""
        if self._keep is not None:
            keep, self._keep = self._keep, None
            received = self.received if self.http else 0
            seconds = time.monotonic() - self._began
            keep(
                LoggedRequest(
                    self._began, self.method, self.path, self._status, seconds, received, self._client, self._request_id
                )
            )


TrackedApp = Callable[[Scope, Receive, TrackedRequest], Awaitable[None]]


class RequestTracker:
    """The outermost middleware: passes each finished request to `keep` and can end all running requests.

    With `echo` responses carry the client's request id. A client may hold its `share` of running requests; others are
    refused.
    """

    def __init__(
        self,
        app: TrackedApp,
        keep: Callable[[LoggedRequest], None],
        proxies: Proxies,
        *,
        share: Share[TrackedRequest],
        jwt_secret: str,
        echo: bool,
    ) -> None:
        self.app = app
        self.proxies = proxies
        self.share = share
        self._jwt_secret = jwt_secret
        self._keep = keep
        self._echo = echo
        self._running: dict[asyncio.Task[Any], TrackedRequest] = {}
        self._began: set[tuple[str, int]] = set()
        self._received = 0  # bytes of the bodies of ended requests
        self._stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an ASGI server runs applications in tasks
        scope, too_long = cut_head(scope)
        scope = self.proxies.client_scope(scope)
        authorization = Headers(scope=scope).get("authorization", "")
        holder = scope["holder"] = holder_name(authorization, client_address(scope), self._jwt_secret)
        send = located(send, scope["origin"], scope.get("prefix", ""))
        seen = self._running[task] = TrackedRequest(scope, receive, send, self._keep, echo=self._echo)
        refusal = too_long or self.share.refusal(holder)
        if refusal is None:
            self.share.add(holder, seen)
        self._began.add(seen.peer)
        try:
            if self._stopping:
                await seen.give_up()
            elif refusal is not None:
                await refuse(refusal, scope, seen.receive, seen)
            else:
                await self.app(scope, seen.receive, seen)
            if len(self._running) <= self.share.most:  # else the connection is closed, to make room for others
                await seen.drain()
        except asyncio.CancelledError:
            await seen.give_up()
        except Exception:
            logger.exception("%s %s failed", seen.method, printable(seen.path))
            await seen.give_up()
        finally:
            del self._running[task]
            self._received += seen.received if seen.http else 0
            self.share.remove(holder, seen)
            seen.note()

    def stop(self) -> None:
        """End running and later requests: those without a response get 503, websockets are closed."""
        if not self._stopping:  # a second cancel would interrupt the cleanup
            self._stopping = True
            for task in self._running:
                task.cancel()

    def busy(self) -> dict[tuple[str, int], TrackedRequest]:
        return {seen.peer: seen for seen in self._running.values()}

    def received(self) -> int:
        """Return the bytes of all bodies since the start, including those that are arriving."""
        return self._received + sum(seen.received for seen in self._running.values() if seen.http)

    def began(self) -> set[tuple[str, int]]:
        """Return the connections on which requests began since the last call."""
        began, self._began = self._began, set()
        return began

    async def ended(self, seconds: float) -> None:
        """Wait until all requests have ended, for at most `seconds`."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=seconds)
