"""The configurations of docs/deploy.md and docs/watch.md work as they are, but for ports, certificates and paths."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
import trustme
from command import ended, read_until, start, uploader
from docs_pages import ROOT, page
from interop.proxies import haproxy, nginx_http
from serving import ServerProcess, running_server

from uploader_server.__main__ import configured, parser

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

pytestmark = [pytest.mark.interop, pytest.mark.debian]

PAGE, WATCH = page("deploy.md"), page("watch.md")
UPSTREAM = "127.0.0.1:8005"


def block(language: str, text: str = PAGE) -> str:
    found: str = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[0]
    return found


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = made.issue_cert("localhost")
    (tmp_path / "files.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(str(tmp_path / "files.key"))
    (tmp_path / "both.pem").write_bytes(certificate.private_key_and_cert_chain_pem.bytes())
    return made


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_configuration_of_the_page_serves_uploads_over_tls(
    tmp_path: Path, make_files: Callable[..., Path], proxy: str
) -> None:
    files = make_files(**{"a.mp4": 3_000_000, "b.mp4": 1000})
    with running_server(behind_proxy=("127.0.0.1",), allow_hosts=("localhost",), packs=True) as server:
        config = block(proxy).replace(UPSTREAM, server.url.removeprefix("http://"))
        if proxy == "nginx":
            config = config.replace("listen 443 ssl", "listen 127.0.0.1:{port} ssl").replace(
                "files.example;", "localhost;"
            )
            config = config.replace("/etc/ssl/files.example.pem", f"{tmp_path}/files.pem")
            config = config.replace("/etc/ssl/files.example.key", f"{tmp_path}/files.key")
            running = nginx_http(tmp_path, config)
        else:
            config = config.replace("bind :443", "bind 127.0.0.1:{port}")
            running = haproxy(tmp_path, config.replace("/etc/ssl/files.example.pem", f"{tmp_path}/both.pem"))
        with running as url:
            address = url.replace("http://127.0.0.1", "https://localhost")
            line = [
                "upload",
                files,
                "-s",
                address,
                "--ca-bundle",
                tmp_path / "ca.pem",
                "--limit-rate",
                "1M",
                "--json",
            ]
            done = uploader(*line, home=tmp_path)
        assert done.code == 0, done.out + done.err
        assert len(done.of("file.completed")) == 2
        assert "websocket" in {event.get("transport") for event in done.events}


def test_unit_of_the_page_is_valid_and_its_options_exist(tmp_path: Path) -> None:
    command = verified(block("ini"), tmp_path)
    assert command[0] == "serve"
    line = [word.replace("/var/lib/uploader", str(tmp_path / "files")) for word in command[1:]]
    configured(vars(parser().parse_args(line)))


@pytest.mark.feature("folder")
@pytest.mark.feature("then")
def test_unit_of_a_watch_is_valid_and_its_options_exist(tmp_path: Path) -> None:
    """The token comes from the directory of credentials, the journal is in that of the state."""
    command = verified(block("ini", WATCH), tmp_path)
    (tmp_path / "token").write_text("word")
    places = {"/srv/outbox": str(tmp_path / "outbox"), "%d": str(tmp_path), "%S": str(tmp_path)}
    stops_with_143([_placed(word, places) for word in command], tmp_path)


@pytest.mark.feature("folder")
@pytest.mark.feature("then")
def test_command_of_the_watching_container_takes_its_options(tmp_path: Path) -> None:
    (line,) = re.findall(r"^podman run .* uploader (upload .*)$", WATCH, re.MULTILINE)
    places = {"/outbox": str(tmp_path / "outbox"), "/state": str(tmp_path / "state")}
    stops_with_143([_placed(word, places) for word in line.split()], tmp_path)


def _placed(word: str, places: Mapping[str, str]) -> str:
    for there, here in places.items():
        word = word.replace(there, here)
    return word


def stops_with_143(line: Sequence[str], home: Path) -> None:
    """Run a watch of the page at a server of this test until it has sent and moved a file; SIGTERM ends it."""
    for name in ("new", "sent"):
        (home / "outbox" / name).mkdir(parents=True)
    (home / "outbox/new/a.bin").write_bytes(b"1")
    with running_server() as server:
        line = [word.replace("files.example", server.url) for word in line]
        process = start(*line, "--settle", "0.2", "--json", home=home, UPLOADER_SERVER=server.url)
        assert ended(process, read_until(process, "file.completed"), signal.SIGTERM).code == 143
    assert (home / "outbox/sent/new/a.bin").read_bytes() == b"1"


def verified(unit: str, tmp_path: Path) -> list[str]:
    """Check a unit, and return the words of its command after the program."""
    (line,) = re.findall(r"^ExecStart=(\S+) (.*)$", unit, re.MULTILINE)
    program = tmp_path / "uploader"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    if shutil.which("systemd-analyze") is None:
        pytest.fail("the test needs systemd-analyze in PATH (Debian: apt-get install systemd)", pytrace=False)
    file = tmp_path / "uploader.service"
    file.write_text(unit.replace(line[0], str(program)))
    done = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(file.name) not in done.stderr
    words: str = line[1]
    return words.split()


@pytest.mark.feature("demo")
def test_command_of_the_container_starts_the_server(tmp_path: Path) -> None:
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    (program,) = json.loads(re.findall(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)[-1])
    serve, *options = json.loads(re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)[-1])
    assert (program, serve) == ("uploader", "serve")
    options = [option.replace("/files", str(tmp_path / "files")).replace("0.0.0.0", "127.0.0.1") for option in options]
    process = ServerProcess(*options)
    process.kill()
