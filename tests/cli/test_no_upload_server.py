"""Commands against a web server that is not an upload server exit 6 for every kind of answer."""

from __future__ import annotations

import contextlib
import http.server
import threading
from itertools import product
from typing import TYPE_CHECKING

import pytest
import trustme
from command import uploader
from plain_tus import plain_tus_server
from relays import tls_front

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

SESSION = "00000000-0000-4000-8000-000000000000"


class Files(http.server.SimpleHTTPRequestHandler):
    """`python -m http.server`: 404 for missing files, 501 for every method but GET and HEAD."""

    def log_message(self, *_args: object) -> None:
        """Write no log."""


class Page(http.server.BaseHTTPRequestHandler):
    """A single-page application: one HTML page with status 200 for every path and method."""

    protocol_version = "HTTP/1.1"
    kind, page = "text/html", b"<!doctype html><title>app</title>"

    def do_GET(self) -> None:
        """Answer with the page."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        page = self.page
        self.send_response(200)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)

    do_HEAD = do_POST = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815 - names of the base class

    def log_message(self, *_args: object) -> None:
        """Write no log."""


class Json(Page):
    """A service that answers every request with `{"ok": true}`."""

    kind, page = "application/json", b'{"ok":true}'


class Text(Page):
    """A service that answers every request with a word."""

    kind, page = "text/plain", b"ok"


@contextlib.contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port; the URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("handler", [Files, Page, Json, Text])
@pytest.mark.parametrize(
    "command",
    ["upload", "upload --tus-endpoint", "validate", "status", "cancel", "delete", "watch", "check"],
)
def test_commands_exit_6_where_no_upload_server_answers(
    command: str,
    handler: type[http.server.BaseHTTPRequestHandler],
    make_files: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """No command reports success or suggests a retry."""
    name, _, endpoint = command.partition(" ")
    subject = str(make_files(**{"a.mp4": 10})) if name in ("upload", "validate", "check") else SESSION
    with serving(handler) as url:
        more = ("--wait", "0") if name == "watch" else ("--retries", "0") if name == "upload" else ()
        where = (endpoint, f"{url}/files/") if endpoint else ("-s", url)
        done = uploader(name, subject, *where, *more, home=tmp_path, UPLOADER_TOKEN="t" * 20)
    assert done.code == 6, done.err
    assert "retryable" not in done.err
    if name != "watch":
        assert "upload server" in done.err


@pytest.mark.parametrize(
    ("given", "command"),
    [
        *product(["--server", "UPLOADER_SERVER", "config"], ["status", "upload", "doctor"]),
        *product(["--tus-endpoint", "UPLOADER_TUS_ENDPOINT"], ["upload", "doctor"]),
    ],
)
def test_hint_names_the_server_as_it_was_given(
    given: str, command: str, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """By flag, variable, or key and config file."""
    subject = {"status": (SESSION,), "upload": (make_files(**{"a.mp4": 10}),), "doctor": ()}[command]
    named = f"server in {tmp_path / 'uploader.toml'}" if given == "config" else given
    with serving(Page) as url:
        if given == "config":
            (tmp_path / "uploader.toml").write_text(f'server = "{url}"\n')
        flag = (given, url) if given.startswith("--") else ()
        variable = {given: url} if given.isupper() else {}
        done = uploader(command, *subject, *flag, home=tmp_path, **variable)
    assert done.code == 6, done.err
    said = "".join(done.err.split())  # doctor wraps lines
    assert f"check{named}:".replace(" ", "") in said or f"in{named};".replace(" ", "") in said
    assert ("--server" in said) is (given == "--server")


@pytest.mark.parametrize("path", ["", "/files"])
@pytest.mark.parametrize("command", ["upload", "validate", "status"])
def test_server_option_with_a_tus_server_names_the_option(
    command: str, path: str, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    subject = SESSION if command == "status" else str(make_files(**{"a.mp4": 10}))
    with plain_tus_server() as (endpoint, _):
        done = uploader(command, subject, "-s", endpoint.removesuffix("/files/") + path, home=tmp_path)
    assert done.code == 6, done.err
    assert "use --tus-endpoint" in done.err


@pytest.mark.parametrize("command", ["upload", "validate", "check", "status", "watch"])
def test_wrong_path_of_an_upload_server_exits_6(
    command: str, server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    subject = str(make_files(**{"a.mp4": 10})) if command in ("upload", "validate", "check") else SESSION
    more = ("--wait", "0") if command == "watch" else ()
    done = uploader(command, subject, "-s", f"{server.url}/wrong", *more, home=tmp_path)
    assert done.code == 6, done.err


@pytest.mark.parametrize("option", ["--server", "--tus-endpoint"])
def test_plain_http_to_a_tls_port_says_to_use_https(
    option: str, server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_files(**{"a.mp4": 10})
    with tls_front(server.url, trustme.CA()) as url:
        done = uploader("upload", str(path), option, url.replace("https", "http"), home=tmp_path)
    assert done.code == 6, done.err
    assert "this port speaks TLS: use https" in done.err
