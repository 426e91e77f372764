"""A tus server with only core and creation: no checksums, no concatenation, no GET of files."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_OPTIONS(self) -> None:
        self._answer(204 if self.path == "/files/" else 404, **{"Tus-Version": "1.0.0", "Tus-Extension": "creation"})

    def do_GET(self) -> None:
        self._answer(404)

    def do_POST(self) -> None:
        if "Tus-Resumable" not in self.headers:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(412)
            return
        length = int(self.headers["Upload-Length"])
        with self.server.lock:
            self.server.uploads.append((length, bytearray()))
            number = len(self.server.uploads) - 1
        self._answer(201, Location=f"/files/{number}")

    def do_HEAD(self) -> None:
        if self.headers["Tus-Resumable"] != "1.0.0":
            self._answer(412)
            return
        if not self.path.rpartition("/")[2].isdecimal():
            self._answer(404)
            return
        length, content = self._upload
        self._answer(200, **{"Upload-Length": length, "Upload-Offset": len(content), "Cache-Control": "no-store"})
        self.server.asked.set()

    def do_PATCH(self) -> None:
        if not self.path.rpartition("/")[2].isdecimal():
            self._answer(404)
            return
        _, content = self._upload
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.late and len(body) < int(self.headers["Content-Length"]):
            self.server.asked.clear()
            self.server.asked.wait()
        if int(self.headers["Upload-Offset"]) != len(content):
            self._answer(409)
            return
        content += body
        self._answer(204, **{"Upload-Offset": len(content)})

    @property
    def _upload(self) -> tuple[int, bytearray]:
        return self.server.uploads[int(self.path.rpartition("/")[2])]

    def _answer(self, status: int, **headers: Any) -> None:
        self.send_response(status)
        for name, value in {"Tus-Resumable": "1.0.0", **headers}.items():
            self.send_header(name, str(value))
        if status in (201, 404, 409, 412):
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *, late: bool) -> None:
        self.late, self.asked = late, threading.Event()
        self.lock = threading.Lock()
        self.uploads: list[tuple[int, bytearray]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


@contextlib.contextmanager
def plain_tus_server(*, late: bool = False) -> Iterator[tuple[str, list[tuple[int, bytearray]]]]:
    """Run the server; return its endpoint and its uploads, each with its length and the received bytes.

    With `late` it stores what arrived of a cut request only after a HEAD.
    """
    with _Server(late=late) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/files/", server.uploads
        finally:
            server.shutdown()
            thread.join()
