"""A tus server that counts the bytes it receives and keeps none."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

PIECE = 1 << 20


class Sink:
    """A context manager for one upload; clients create it at `url`."""

    def __init__(self) -> None:
        self.length = self.offset = self.creations = 0
        self.refused = 0
        """Bytes that were sent for another offset."""
        self._grown = threading.Condition()
        self._used = threading.Lock()  # by the request that sends, also while the rest of a killed client arrives

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"sink": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/files/"
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait_for(self, offset: int, seconds: float) -> None:
        """Return once so many bytes have arrived."""
        with self._grown:
            assert self._grown.wait_for(lambda: self.offset >= offset, seconds), f"{self.offset} of {offset} bytes"

    def create(self, length: int) -> None:
        """Begin the upload anew."""
        self.length, self.offset, self.creations = length, 0, self.creations + 1

    def now(self) -> int:
        """Return the offset when no request changes it any more."""
        with self._used:
            return self.offset

    def receive(self, request: Any, offset: int, count: int) -> int:
        """Read a body and return the status of the answer."""
        view = memoryview(bytearray(PIECE))
        with self._used:
            fits = offset == self.offset and offset + count <= self.length
            while count and (read := request.readinto(view[: min(PIECE, count)])):
                count -= read
                with self._grown:
                    self.offset += read if fits else 0
                    self.refused += 0 if fits else read
                    self._grown.notify_all()
        return 204 if fits else 409


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sink: Sink

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # of a client that was killed
            super().handle()

    def do_OPTIONS(self) -> None:
        self._answer(204, **{"Tus-Version": "1.0.0", "Tus-Extension": "creation"})

    def do_POST(self) -> None:
        self.sink.create(int(self.headers["Upload-Length"]))
        self._answer(201, Location=f"{self.sink.url}0")

    def do_HEAD(self) -> None:
        if self.path != "/files/0":
            return self._answer(404)
        return self._answer(200, **{"Upload-Offset": self.sink.now(), "Upload-Length": self.sink.length})

    def do_PATCH(self) -> None:
        count = int(self.headers["Content-Length"])
        status = self.sink.receive(self.rfile, int(self.headers["Upload-Offset"]), count)
        self._answer(status, **{"Upload-Offset": self.sink.offset})

    def do_GET(self) -> None:
        self._answer(405)

    def log_message(self, *_words: object) -> None:
        """Write no line for each request."""

    def _answer(self, status: int, **headers: object) -> None:
        self.send_response_only(status)
        for name, value in {"Tus-Resumable": "1.0.0", **headers}.items():
            self.send_header(name, str(value))
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()
