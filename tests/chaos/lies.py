"""A source of files at URLs that does not send what its answers announce."""

from __future__ import annotations

import http.server
import json
import re
import threading
from typing import TYPE_CHECKING

from chaos.processes import Find

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from chaos.processes import Ended

SIZE = 5_000
MOST_MEMORY = 200 << 20
"""Bytes that the client may have resident at its peak: the endless source sends them within a second."""


class _Requests(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    lie = ""

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        """Announce a file of `SIZE` bytes."""
        self._begin(200, {"Content-Length": str(SIZE), "Accept-Ranges": "bytes"})

    def do_GET(self) -> None:
        """Send something else."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(asked[1]), min(int(asked[2] or SIZE), SIZE - 1)) if asked else (0, SIZE - 1)
        length, shift = end + 1 - start, 7 if self.lie == "other range" else 0
        send = {"short": length // 2, "longer": length + 100}.get(self.lie, length)
        headers = {"Content-Range": f"bytes {start + shift}-{end + shift}/{SIZE}"} if asked else {}
        if self.lie != "endless":
            headers["Content-Length"] = str(send)
        self.close_connection = True
        self._begin(206 if asked else 200, headers)
        try:
            while self.lie == "endless":
                self.wfile.write(bytes(1 << 16))
            self.wfile.write(bytes(send))
        except OSError:
            return

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "ETag": '"1"'}.items():
            self.send_header(name, value)
        self.end_headers()


class Liar:
    """Answers with one of `plan.LIES` in a thread of this process. A context manager."""

    def __init__(self, lie: str, name: str) -> None:
        self._lie, self._name = lie, name
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Lying", (_Requests,), {"lie": lie}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/{name}"

    def __enter__(self) -> Liar:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def check(self, ended: Ended, root: Path) -> None:
        """Raise `Find` if the file was stored, counts as stored, or took the memory of more than what was asked for."""
        events = [json.loads(line) for line in ended.out.splitlines()]
        if ended.code == 0 or any(event["type"] == "file.completed" for event in events):
            raise Find(f"the file of a source that lies ({self._lie}) counts as stored")
        if any(root.rglob(self._name)):
            raise Find(f"the file of a source that lies ({self._lie}) is stored")
        if events and events[-1].get("peak_rss", 0) > MOST_MEMORY:
            raise Find(f"a source that lies ({self._lie}) took {events[-1]['peak_rss'] >> 20} MiB")
