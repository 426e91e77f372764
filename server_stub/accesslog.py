"""The access log: one line for each request, plain or as JSON; and the request ids that clients send."""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

from server_stub.wire import timestamp

if TYPE_CHECKING:
    from starlette.types import Scope

    from server_stub.config import ServerConfig
    from server_stub.faults import LoggedRequest

LONGEST_ID = 128
"""Characters of a request id that are kept."""
_HARMLESS = re.compile(rb"[^A-Za-z0-9._:/+=@-]")


def request_id(scope: Scope) -> str:
    """What the client sent in `X-Request-ID`, without what could harm a log or a header; empty where it sent none."""
    sent = next((value for name, value in scope.get("headers", ()) if name == b"x-request-id"), b"")
    return _HARMLESS.sub(b"", sent)[:LONGEST_ID].decode()


class AccessLog:
    """Where the lines go. Raises OSError where the file can't be written."""

    def __init__(self, config: ServerConfig) -> None:
        self._json = config.access_log_format == "json"
        self._file: IO[str] | None = None
        if config.access_log == "-":
            self._file = sys.stderr
        elif config.access_log is not None:
            self._file = config.access_log.open("a", encoding="utf-8", buffering=1)

    def write(self, entry: LoggedRequest) -> None:
        """Append one line. A path is shown without its query; control characters in it are escaped."""
        if self._file is None:
            return
        line = _as_json(entry) if self._json else _plain(entry)
        self._file.write(line + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and self._file is not sys.stderr:
            self._file.close()
        self._file = None


def _as_json(entry: LoggedRequest) -> str:
    """`time` is when the request came (RFC 3339, UTC); `status` 0 says that it got no answer."""
    came = datetime.fromtimestamp(time.time() - (time.monotonic() - entry.time), UTC)
    fields = {
        "time": timestamp(came),
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
    path = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in entry.path)
    return f"{timestamp()} {entry.method} {path} {entry.status} {entry.seconds * 1000:.1f}ms"
