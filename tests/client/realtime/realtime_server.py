"""A small Socket.IO server for these tests: python-socketio on threads, with faults switched while it runs.

Runs as a process of its own, so that every thread of the testing process is the client's. Commands come as JSON lines
on stdin and are answered on stdout: {"websocket": MODE, "polling": MODE}, {"kill": true}, {"emit": [session, body]},
{"burst": [session, body, count]}, {"close": true} (a polite disconnect), {"seen": true} (what happened since the last
time). Modes: ok, refuse, hang (no answer), drip (a byte of an endless answer now and then), mute (Engine.IO opens, the
namespace is never connected), deny (the namespace is refused), nonsense (an answer that is no Engine.IO).
"""

from __future__ import annotations

import io
import json
import logging
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import engineio
import socketio

engineio.payload.Payload.max_decode_packets = 10_000
_log = logging.getLogger("realtime_server")
_log.addHandler(logging.NullHandler())
_log.propagate = False


class Handler(BaseHTTPRequestHandler):
    """Just enough of WSGI for engineio."""

    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        transport = query.get("transport", "")
        if "sid" not in query:
            self.server.seen.append({"dial": transport, "path": parts.path, "token": self.headers.get("X-Token")})
            mode = self.server.modes.get(transport, "ok")
            if mode not in ("ok", "mute", "deny"):
                self.close_connection = True
                getattr(self, f"_{mode}")()
                return
        self._serve(parts.path, parts.query)

    do_POST = do_GET  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        pass

    def _refuse(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _hang(self) -> None:
        with suppress(OSError):
            self.connection.recv(1)

    def _drip(self) -> None:
        with suppress(OSError):
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nX-Drip: ")
            while True:
                self.wfile.write(b"x")
                time.sleep(0.02)

    def _nonsense(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "9")
        self.end_headers()
        self.wfile.write(b"<html>\xff\xfe!")

    def _serve(self, path: str, query: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": "/" + path.lstrip("/").removeprefix("prefix/"),
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": str(self.server.server_port),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "werkzeug.socket": self.connection,
            **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers.items()},
        }
        try:
            answer = self.server.app(environ, self._start_response)
        except ConnectionError:  # how simple-websocket reports the end of a websocket
            self.close_connection = True
            return
        payload = b"".join(answer)
        with suppress(OSError):
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

    def _start_response(self, status: str, headers: list[tuple[str, str]], *_: object) -> None:
        self.send_response(int(status.split()[0]))
        for name, value in headers:
            if name.lower() != "content-length":
                self.send_header(name, value)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.modes = {"websocket": "ok", "polling": "ok"}
        self.seen: list[dict[str, Any]] = []
        self.open: set[socket.socket] = set()
        self.sio = socketio.Server(
            async_mode="threading",
            async_handlers=False,  # joins are noted in their order
            cors_allowed_origins="*",
            allow_upgrades=False,
            logger=_log,
            engineio_logger=_log,
        )
        self.app = socketio.WSGIApp(self.sio)
        self.sio.on("connect", self._connect)
        self.sio.on("join-session", self._join)
        self.sio.on("leave-session", self._leave)
        self.sio.on("disconnect", lambda _sid, _reason: self.seen.append({"gone": True}))

    def handle_error(self, *_: object) -> None:
        """Ignore cut connections, which these tests make."""

    def _connect(self, sid: str, environ: dict[str, Any], _auth: object = None) -> None:
        transport = parse_qs(environ["QUERY_STRING"])["transport"][0]
        if self.modes[transport] == "mute":
            time.sleep(60)
        if self.modes[transport] == "deny":
            raise socketio.exceptions.ConnectionRefusedError("no")

    def _join(self, sid: str, session: object) -> dict[str, bool]:
        self.sio.enter_room(sid, f"session:{session}")
        self.seen.append({"join": session})
        return {"ok": True}

    def _leave(self, sid: str, session: object) -> None:
        self.sio.leave_room(sid, f"session:{session}")
        self.seen.append({"leave": session})

    def obey(self, command: dict[str, Any]) -> object:
        match command:
            case {"kill": _}:
                for connection in list(self.open):
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)
            case {"close": _}:
                for sid, _ in list(self.sio.manager.get_participants("/", None)):
                    self.sio.disconnect(sid)
            case {"emit": [session, *bodies]}:
                for body in bodies:
                    self.sio.emit("upload-progress", body, to=f"session:{session}")
            case {"burst": [session, body, count]}:
                for _ in range(count):
                    self.sio.emit("upload-progress", body, to=f"session:{session}")
            case {"seen": _}:
                seen, self.seen = self.seen, []
                return seen
            case _:
                self.modes.update(command)
        return True


def main(certificate: str | None = None) -> None:
    server = Server()
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    print(server.server_port, flush=True)
    for line in sys.stdin:
        print(json.dumps(server.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
