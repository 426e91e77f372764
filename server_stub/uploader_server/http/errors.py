"""Error responses and JSON bodies."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import http
import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from uploader_server.errors import Refusal
from uploader_server.pace import Meter, Pace
from uploader_server.storage.disk import NO_SPACE
from uploader_server.storage.paths import is_short
from uploader_server.wire import timestamp

LATE = 1.0  # seconds that a timer may be late before the event loop counts as blocked
SMALL_JSON = 64 << 10  # maximum bytes of a JSON body with a fixed number of values
MAX_JSON = 4 << 20  # maximum bytes of a JSON body with lists of files
MOST_SEGMENTS = 1 << 16  # maximum segments of all paths of a request: each may be a directory to open or create
MAX_CONTAINERS = 100_000  # maximum lists and objects in a JSON text; each needs about 60 bytes of memory


@dataclass(frozen=True)
class Words:
    """What the answers of a flavour say."""

    errors: Mapping[str, str] = field(default_factory=dict)
    """Messages of errors by their codes, instead of those of `ApiError`; `{number}` is a limit."""
    cancelled: str = "The upload was cancelled"
    deleted: str = "The file was deleted"
    wrong_format: str = "Unsupported file format (.{})"
    wrong_type: str = "Unsupported MIME type ({})"
    mixed_types: str = "All files must have the same type"
    any_name: bool = False  # whether `validate` has no error for a name that is too long


ENGLISH = Words()


class ApiError(Refusal):
    """An error response: `{error, message, details?, timestamp}`."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Any = None,
        number: int = 0,
        headers: Mapping[str, str] | None = None,
        retry_after: int | None = None,
        **extra: Any,
    ) -> None:
        # a code of its own, as the status is given
        super().__init__(code, message, number=number, retry_after=retry_after, **extra)  # type: ignore[arg-type]
        self.status = status
        self.details = details
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["retry-after"] = str(retry_after)

    def body(self, words: Words = ENGLISH) -> dict[str, Any]:
        """Return the JSON body."""
        other = words.errors.get(self.code)
        message = self.message if other is None else other.format(number=self.number)
        details = {} if self.details is None else {"details": self.details}
        moment = {} if self.status == 429 else {"timestamp": timestamp()}  # as captured
        return {"error": self.code, "message": message, **details, **self.extra, **moment}


STATUSES: dict[str, int] = {
    "INVALID_FILE_FORMAT": 400,
    "INVALID_HEADER": 400,
    "TOO_MANY_FILES": 400,
    "UNAUTHORIZED": 401,
    "INVALID_TOKEN": 401,
    "NOT_YOURS": 403,
    "SESSION_NOT_FOUND": 404,
    "CANCELLED": 409,
    "SESSION_BUSY": 409,
    "SESSION_ENDED": 409,
    "SHARE_USED": 429,
    "SERVER_BUSY": 503,
    "TOO_MANY_JOINS": 503,
    "TOO_MANY_SESSIONS": 503,
    "TOO_MANY_UPLOADS": 503,
}
"""The statuses of refusals of the domain by their codes (`errors.Code`)."""


def as_api_error(error: Exception) -> ApiError:
    """Return the response to any error: 400 for a cut body, 507 for a full disk, 503 for no descriptor, else 500."""
    match error:
        case ApiError():
            return error
        case Refusal(code=code):
            more: dict[str, Any] = {"number": error.number, "retry_after": error.retry_after, **error.extra}
            return ApiError(STATUSES[code], code, error.message, **more)
        case HTTPException():
            return ApiError(404, "NOT_FOUND", "There is no such path")
        case ClientDisconnect():
            return ApiError(400, "UPLOAD_FAILED", "The request ended before its body was complete")
        case OSError() if error.errno in NO_SPACE:  # the database raises it, too
            return ApiError(507, "DISK_FULL", "The server's disk is full", details=error.strerror)
        case OSError() if error.errno in {errno.EMFILE, errno.ENFILE}:
            return ApiError(503, "SERVER_BUSY", "The server has no free file descriptor", retry_after=1)
        case OSError() | sqlite3.Error():
            details = error.strerror if isinstance(error, OSError) else str(error)
            return ApiError(500, "UPLOAD_FAILED", "The server's disk failed", details=details)
        case _:
            return ApiError(500, "INTERNAL_ERROR", "The server failed; see its log")


class Json(Response):
    """A JSON response with an explicit charset, as the reference backend sends it."""

    media_type = "application/json; charset=utf-8"

    def render(self, content: Any) -> bytes:
        """Return compact UTF-8 JSON; bytes are returned unchanged."""
        if isinstance(content, bytes):
            return content
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def with_headers(send: Send, added: Mapping[str, str]) -> Send:
    """Return a `send` that adds headers to the response to a request or a websocket handshake."""

    async def send_with_headers(message: Message) -> None:
        if message["type"].endswith("http.response.start"):
            message = {**message, "headers": [*message.get("headers", ()), *raw_headers(added)]}
        await send(message)

    return send_with_headers if added else send


def zipped(answer: Response, request: Request) -> Response:
    """Compress a response of more than 1 KiB if the client accepts gzip (docs/protocol.md, section 3.16)."""
    if len(answer.body) > 1024 and "gzip" in request.headers.get("accept-encoding", ""):
        answer.body = gzip.compress(bytes(answer.body))
        answer.headers["content-encoding"] = "gzip"
        answer.headers["content-length"] = str(len(answer.body))
    return answer


async def refuse(error: int | Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Reject a request or a websocket handshake with an error: as JSON, or a status as plain text."""
    if scope["type"] == "websocket":
        await receive()
    answer: Response
    if isinstance(error, Refusal):
        refusal = as_api_error(error)
        answer = Json(refusal.body(), refusal.status, refusal.headers)
    else:
        answer = PlainTextResponse(http.HTTPStatus(error).phrase, error)
    with contextlib.suppress(RuntimeError):  # from granian: the websocket client has disconnected
        await answer(scope, receive, send)


async def read_json(request: Request, most: int = SMALL_JSON, *, empty: bytes = b"") -> Any:
    """Return the parsed JSON body, or None if it is invalid; `empty` replaces no body.

    Raises as `read_body` and `Held.add_parsed`.
    """
    text = await read_body(request, most) or empty
    request.scope["held"].add_parsed(text)
    with contextlib.suppress(ValueError):
        return parse_json(text)
    return None


def retrieve(task: asyncio.Future[Any]) -> None:
    """Take the error of a task whose request may not wait for it, as the server stops: asyncio would log it."""
    if not task.cancelled():
        task.exception()


async def read_body(request: Request, most: int) -> bytes:
    """Return the whole body. Raises ApiError 413 for more than `most` bytes, ClientDisconnect if it is incomplete."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise ApiError(413, "VALIDATION_ERROR", f"The body of this call has at most {most} bytes")
    return bytes(body)


async def before(end: float, receive: Receive) -> Message:
    """Return the next message. Raises ApiError 408 if none arrives before `end` (seconds, loop clock)."""
    try:
        return await _within(max(0.0, end - asyncio.get_running_loop().time()), receive)
    except TimeoutError:
        raise ApiError(408, "REQUEST_TIMEOUT", "The request took too long to arrive") from None


async def pieces(receive: Receive, pace: Pace) -> AsyncIterator[bytes]:
    """Yield the pieces of a body. Raises ApiError 408 for one that is too slow, ClientDisconnect."""
    meter, clock, more = Meter(pace), asyncio.get_running_loop().time, True
    while more:
        began = clock()
        try:
            message = await _within(meter.patience, receive)
        except TimeoutError:
            raise ApiError(408, "UPLOAD_FAILED", "The request stopped sending, or it sent too slowly") from None
        if message["type"] != "http.request":
            raise ClientDisconnect
        piece, more = message.get("body", b""), message.get("more_body", False)
        meter.arrived(len(piece), clock() - began)
        yield piece


async def _within(seconds: float, receive: Receive) -> Message:
    """Return the next message. Raises TimeoutError after `seconds` (not negative).

    A blocked event loop gets LATE seconds to deliver what arrived.
    """
    loop, task, over = asyncio.get_running_loop(), asyncio.current_task(), False
    timer: asyncio.TimerHandle

    def expire(due: float) -> None:
        nonlocal timer, over
        now = loop.time()
        if now - due > LATE:
            timer = loop.call_at(now + LATE, expire, now + LATE)  # noqa: F821 - deleted when it is cancelled
        elif task is not None:
            over = task.cancel()

    due = loop.time() + seconds
    timer = loop.call_at(due, expire, due)
    try:
        return await receive()
    except asyncio.CancelledError:
        if over and task is not None and not task.uncancel():
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()
        del expire  # it refers to itself, and to the task of the request


def parse_json(text: bytes) -> Any:
    """Parse JSON in UTF-8. Raises ValueError if it is invalid or has more than MAX_CONTAINERS lists and objects."""
    if text.count(b"[") + text.count(b"{") > MAX_CONTAINERS:
        raise ValueError(f"it has more than {MAX_CONTAINERS} lists and objects")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def check_segments(paths: Iterable[str], code: str = "VALIDATION_ERROR", before: int = 0) -> int:
    """Return `before` and the number of directories in the paths of a request; a path that is too long has none.

    Raises ApiError 413 above MOST_SEGMENTS.
    """
    count = before + sum(path.count("/") for path in paths if is_short(path))
    if count > MOST_SEGMENTS:
        raise ApiError(413, code, f"The paths of a request have at most {MOST_SEGMENTS} segments together")
    return count
