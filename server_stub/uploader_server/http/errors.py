"""Error responses, JSON bodies, and responses sent before the request body has arrived."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import json
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from uploader_server.wire import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

SMALL_JSON = 64 << 10
"""Maximum bytes of a JSON body with a fixed number of values."""
MAX_JSON = 4 << 20
"""Maximum bytes of a JSON body with lists of files."""
MAX_CONTAINERS = 100_000
"""Maximum lists and objects in a JSON text; each needs about 60 bytes of memory."""

# The full-width commas are part of the captured messages.
_ZH = {
    "INVALID_CATEGORY": "无效的文件分类",
    "VALIDATION_ERROR": "文件验证失败",
    "MISSING_PARAMETERS": "缺少必要参数",
    "NO_SESSION_ID": "缺少会话ID",
    "TOO_MANY_FILES": "文件数量超过限制 ({number}个)",
    "INVALID_FILE_FORMAT": "不支持的文件格式",
    "FILE_TOO_LARGE": "文件大小超过限制",
    "UPLOAD_FAILED": "文件上传失败",
    "UNAUTHORIZED": "未提供认证令牌，请先登录",  # noqa: RUF001
    "INVALID_TOKEN": "认证令牌无效或已过期",
    "FILE_NOT_FOUND": "文件不存在",
    "NOT_FOUND": "请求的资源不存在",
    "TOO_MANY_REQUESTS": "请求过于频繁，请稍后再试",  # noqa: RUF001
}


class ApiError(Exception):
    """An error response: `{error, message, details?, timestamp}` with an HTTP status and `headers`.

    `drain` is set if part of the request body is unread (see `RefusalResponse`).
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Any = None,
        number: int = 0,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.number = number
        self.headers = dict(headers or {})
        self.drain = False
        self.extra = extra

    def body(self, *, chinese: bool = False) -> dict[str, Any]:
        """Return the JSON body; `chinese` selects the captured messages of the reference backend."""
        message = _ZH.get(self.code, self.message).format(number=self.number) if chinese else self.message
        details = {} if self.details is None else {"details": self.details}
        return {"error": self.code, "message": message, **details, **self.extra, "timestamp": timestamp()}


def storage_failure(error: Exception) -> ApiError:
    """Return the response to a disk or database error: 507 if the disk is full, else 500."""
    full = getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}
    details = error.strerror if isinstance(error, OSError) else str(error)
    if full:
        return ApiError(507, "DISK_FULL", "The server's disk is full", details=details)
    return ApiError(500, "UPLOAD_FAILED", "The server's disk failed", details=details)


class ClientGoneError(Exception):
    """The connection was closed before the whole body had arrived."""


class Json(Response):
    """A JSON response with an explicit charset, as the reference backend sends it."""

    media_type = "application/json; charset=utf-8"

    def render(self, content: Any) -> bytes:
        """Return compact UTF-8 JSON; bytes are returned unchanged."""
        if isinstance(content, bytes):
            return content
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def zipped(answer: Response, request: Request) -> Response:
    """Compress a response of more than 1 KiB if the client accepts gzip (docs/protocol.md, section 3.16)."""
    if len(answer.body) > 1024 and "gzip" in request.headers.get("accept-encoding", ""):
        answer.body = gzip.compress(bytes(answer.body))
        answer.headers["content-encoding"] = "gzip"
        answer.headers["content-length"] = str(len(answer.body))
    return answer


class RefusalResponse(Json):
    """A response sent before the body has arrived; the rest of the body is then read for DRAIN_SECONDS.

    Closing a socket with unread data sends a TCP reset, which may discard the response at a client that is still
    sending.
    """

    DRAIN_SECONDS = 1.0

    def __init__(self, content: Any, status_code: int) -> None:
        super().__init__(content, status_code, headers={"connection": "close"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, then drain the body."""
        await super().__call__(scope, receive, send)
        await drain(receive, self.DRAIN_SECONDS)


_PLAIN = {
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    408: b"Request Timeout",
    413: b"Content Too Large",
    421: b"Misdirected Request",
    429: b"Too Many Connections",
}


async def refuse(status: int, scope: Scope, receive: Receive, send: Send) -> None:
    """Reject a request or a websocket handshake with an error status."""
    body = _PLAIN[status]
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    prefix = "http"
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close"})
            return
        prefix = "websocket.http"
    await send({"type": f"{prefix}.response.start", "status": status, "headers": headers})
    with contextlib.suppress(RuntimeError):  # from granian: the websocket client has disconnected
        await send({"type": f"{prefix}.response.body", "body": body})


async def drain(receive: Receive, seconds: float) -> None:
    """Read and drop the rest of a body for at most `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
    except (TimeoutError, OSError):
        return


async def read_json(request: Request, most: int = SMALL_JSON) -> Any:
    """Return the parsed JSON body. Raises ValueError for invalid JSON, and as `read_body`."""
    return parse_json(await read_body(request, most))


async def read_body(request: Request, most: int) -> bytes:
    """Return the whole body. Raises ApiError: 413 for more than `most` bytes, 400 if it is incomplete."""
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > most:
                error = ApiError(413, "VALIDATION_ERROR", f"The body of this call has at most {most} bytes")
                error.drain = True
                raise error
    except ClientDisconnect:
        raise ApiError(400, "VALIDATION_ERROR", "The request ended before its body was complete") from None
    return bytes(body)


def parse_json(text: bytes) -> Any:
    """Parse JSON in UTF-8. Raises ValueError if it is invalid or has more than MAX_CONTAINERS lists and objects."""
    if text.count(b"[") + text.count(b"{") > MAX_CONTAINERS:
        raise ValueError(f"it has more than {MAX_CONTAINERS} lists and objects")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
