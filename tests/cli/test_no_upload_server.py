"""Commands against a web server that is not an upload server exit 6 for every kind of answer."""

from __future__ import annotations

import time
from itertools import product
from typing import TYPE_CHECKING

import pytest
import trustme
from command import uploader
from feature_samples import of
from proxy import tls_front
from scripted_server import Answer, Peer, Request, Rule, ScriptedServer
from tus_services import Plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

SESSION = "00000000-0000-4000-8000-000000000000"


HTML = {"Content-Type": "text/html"}
PAGE = [Rule(Answer(200, b"<!doctype html><title>app</title>", HTML))]
"""A single-page application: one page with status 200 for every path and method."""
OTHERS = {
    # `python -m http.server`: 404 for missing files, 501 for every method but GET and HEAD
    "files": [
        Rule(Answer(404, b"<h1>Error response</h1>", HTML), "GET *"),
        Rule(Answer(404, b"<h1>Error response</h1>", HTML), "HEAD *"),
        Rule(Answer(501, b"<h1>Error response</h1>", HTML)),
    ],
    "page": PAGE,
    "json": [Rule(Answer(200, {"ok": True}, {"Content-Type": "application/json"}))],
    "text": [Rule(Answer(200, b"ok", {"Content-Type": "text/plain"}))],
}


COMMANDS = ["upload", "upload --tus-endpoint", "validate", "status", "cancel", "delete", "watch"]


@pytest.mark.parametrize(
    ("command", "other"),
    [
        *((command, "page") for command in COMMANDS),
        of("check", "check", "page"),
        *(("upload", other) for other in OTHERS if other != "page"),
        *(
            pytest.param(command, other, marks=pytest.mark.thorough)
            for command, other in product(COMMANDS[1:], OTHERS)
            if other != "page"
        ),
        *(
            pytest.param("check", other, marks=[pytest.mark.thorough, pytest.mark.feature("check")])
            for other in OTHERS
            if other != "page"
        ),
    ],
)
def test_commands_exit_6_where_no_upload_server_answers(
    command: str,
    other: str,
    make_files: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """No command reports success or suggests a retry."""
    name, _, endpoint = command.partition(" ")
    subject = str(make_files(**{"a.mp4": 10})) if name in ("upload", "validate", "check") else SESSION
    with ScriptedServer(*OTHERS[other]) as server:
        url = server.url
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
        *product(["--server", "UPLOADER_SERVER", "config"], ["status", "upload"]),
        *product(["--tus-endpoint", "UPLOADER_TUS_ENDPOINT"], ["upload"]),
        *(
            of("doctor", given, "doctor")
            for given in ("--server", "UPLOADER_SERVER", "config", "--tus-endpoint", "UPLOADER_TUS_ENDPOINT")
        ),
    ],
)
def test_hint_names_the_server_as_it_was_given(
    given: str, command: str, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """By flag, variable, or key and config file."""
    subject = {"status": (SESSION,), "upload": (make_files(**{"a.mp4": 10}),), "doctor": ()}[command]
    named = f"server in {tmp_path / 'uploader.toml'}" if given == "config" else given
    with ScriptedServer(*PAGE) as page:
        url = page.url
        if given == "config":
            (tmp_path / "uploader.toml").write_text(f'server = "{url}"\n')
        flag = (given, url) if given.startswith("--") else ()
        variable = {given: url} if given.isupper() else {}
        done = uploader(command, *subject, *flag, home=tmp_path, **variable)
    assert done.code == 6, done.err
    said = "".join(done.err.split())  # doctor wraps lines
    assert f"check{named}:".replace(" ", "") in said or f"in{named};".replace(" ", "") in said
    assert ("--server" in said) is (given == "--server")


@pytest.mark.parametrize("endpoint", ["", "/files"])
def test_distant_server_is_no_upload_server_wherever_its_endpoint_is(
    endpoint: str, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """Workers connect ahead where a round trip takes more than 20 ms."""

    def answer(_request: Request) -> Answer:
        time.sleep(0.05)
        return PAGE[0].answer  # type: ignore[return-value]

    with ScriptedServer(Rule(answer)) as far:
        done = uploader("upload", make_files(a=10), "--tus-endpoint", far.url + endpoint, home=tmp_path)
    assert done.code == 6, done.err
    assert "not as an upload server does" in done.err


@pytest.mark.parametrize(("option", "path"), [("--server", ""), ("--server", "/up"), ("--tus-endpoint", "/files/")])
def test_redirect_names_the_address_to_use(
    option: str, path: str, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """Not that of a call, or of an upload."""

    def moved(peer: Peer) -> None:
        while True:
            line, _, _ = peer.request()
            peer.answer(301, Location=f"https://new.example{line.split()[1]}")

    with ScriptedServer(moved) as server:
        done = uploader("upload", make_files(a=10), option, server.url + path, home=tmp_path)
    assert done.code == 6, done.err
    assert f"it points to https://new.example{path}: is that the address for {option}?" in done.err


@pytest.mark.parametrize("path", ["", "/files"])
@pytest.mark.parametrize("command", ["upload", "validate", "status"])
def test_server_option_with_a_tus_server_names_the_option(
    command: str, path: str, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    subject = SESSION if command == "status" else str(make_files(**{"a.mp4": 10}))
    with Plain() as plain:
        done = uploader(command, subject, "-s", plain.url.removesuffix("/files/") + path, home=tmp_path)
    assert done.code == 6, done.err
    assert "use --tus-endpoint" in done.err


@pytest.mark.parametrize("command", ["upload", "validate", of("check", "check"), "status", "watch"])
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
