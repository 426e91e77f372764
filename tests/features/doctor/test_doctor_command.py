"""`uploader doctor` as a command: its outputs and exit codes."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from command import environment, finish, start, uploader
from features.doctor.broken_setups import UNKNOWN, silent_server, web_site
from ietf_service import IetfService
from serving import closed_port, running_server
from time_limits import PATIENCE, SLACK

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

pytestmark = pytest.mark.usefixtures("busy_machine")

IDS = [
    *("settings", "proxy", "dns", "tcp", "tls", "health", "load", "clock", "session", "polling", "token"),
    *("rate_limit", "tus", "packs", "lookup", "body_limit", "tus_headers", "websocket", "long_polling", "disk"),
]


def test_output_for_people_is_on_stderr(server: EmbeddedServer, tmp_path: Path) -> None:
    """On stderr, in 80 columns, the verdict last; nothing on stdout."""
    done = uploader("doctor", "-s", server.url, home=tmp_path)
    assert (done.code, done.out) == (0, "")
    lines = done.err.splitlines()
    assert max(map(len, lines)) <= 80
    assert "live over websocket" in " ".join(done.err.split())
    assert "4 API calls used" in done.err
    assert any(line.startswith("✓ websocket") for line in lines)
    assert "\x1b" not in done.err


def test_doctor_json_is_one_object_on_stdout(server: EmbeddedServer, tmp_path: Path) -> None:
    """One object on stdout, nothing on stderr."""
    done = uploader("doctor", "-s", server.url, "--json", home=tmp_path)
    report = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert list(report) == ["server", "ok", "verdict", "exit_code", "api_calls", "ms", "steps"]
    assert [step["id"] for step in report["steps"]] == IDS
    for step in report["steps"]:
        assert list(step) == ["id", "title", "status", "ms", "cause", "remedy", "details"]
        assert step["status"] in ("ok", "warning", "skipped")
        assert bool(step["remedy"]) == (step["status"] == "warning")
    details = {step["id"]: {*step["details"]} for step in report["steps"]}
    assert details["health"] == {"kind", "max_file_size", "max_files", "tus", "types"}
    assert details["load"] == {"answers", "max_ms", "median_ms", "min_ms", "refused"}
    assert details["clock"] == {"by", "margin_seconds", "skew_seconds"}
    assert details["body_limit"] == {"passed_bytes", "refused_bytes"}
    assert details["disk"] == {"bytes_per_second", "directory", "slowest_sync_ms"}


def test_doctor_exit_code_tells_no_server_token_and_usage(tmp_path: Path) -> None:
    """6 where no upload server is, 5 where it wants a token, 2 for a command that makes no sense."""
    with closed_port() as port:
        closed = uploader("doctor", "-s", f"127.0.0.1:{port}", home=tmp_path)
    assert closed.code == 6
    assert closed.err.splitlines()[-1].startswith(f"✗ No upload possible: port {port} of 127.0.0.1 is closed")
    assert "14 steps" not in closed.err
    assert "15 steps" in closed.err
    with web_site(401, "application/json", b'{"error":"UNAUTHORIZED"}') as site:
        url = site.url
        assert uploader("doctor", "-s", url, home=tmp_path).code == 5
    assert uploader("doctor", home=tmp_path).code == 2
    assert uploader("doctor", "-s", url, "--session", "no-id", home=tmp_path).code == 2
    assert uploader("doctor", "-s", url, "--session", UNKNOWN, "--new-session", home=tmp_path).code == 2
    assert uploader("doctor", "--tus-endpoint", url, "--new-session", home=tmp_path).code == 2


def test_ctrl_c_ends_the_doctor_at_once(tmp_path: Path) -> None:
    """During a step, with exit code 130."""
    with silent_server() as url:
        process = start("doctor", "-s", url, home=tmp_path)
        assert process.stderr is not None
        while "TLS" not in process.stderr.readline():
            pass
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        done = finish(process)
    assert done.code == 130
    assert time.monotonic() - began < 2 * SLACK  # the steps would take 25 s


@pytest.mark.thorough
def test_doctor_warns_of_a_session_that_the_server_does_not_have(server: EmbeddedServer, tmp_path: Path) -> None:
    """A session that the server does not have is a warning: uploads create their own."""
    lost = uploader("doctor", "-s", server.url, "--session", UNKNOWN, home=tmp_path)
    assert lost.code == 0
    assert "the session has expired" in lost.err
    opened = uploader("doctor", "-s", server.url, "--new-session", "-c", "scenic", home=tmp_path)
    assert "a new one in scenic" in opened.err
    assert server.faults.count("POST", "/api/upload/cancel/*") == 1


def test_quiet_and_verbose(server: EmbeddedServer, tmp_path: Path) -> None:
    """Quiet: only what makes uploads impossible. Verbose: the details as well."""
    quiet = uploader("doctor", "-s", server.url, "--quiet", home=tmp_path)
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    with closed_port() as port:
        broken = uploader("doctor", "-s", f"127.0.0.1:{port}", "--quiet", home=tmp_path)
    assert broken.err.startswith("✗ TCP")
    assert "No upload possible" in broken.err
    assert "kind: bundled server" in uploader("doctor", "-s", server.url, "-v", home=tmp_path).err


def test_on_a_terminal_of_40_columns(tmp_path: Path) -> None:
    """Colours, and the running step; no line is wider than the terminal."""
    with running_server(websocket="refuse") as server:
        line = f"stty cols 40; {shlex.quote(sys.executable)} -m uploader_cli doctor -s {server.url}"
        done = subprocess.run(
            ["script", "-qec", line, "/dev/null"],
            capture_output=True,
            check=False,
            timeout=PATIENCE,
            env=environment(tmp_path, TERM="xterm"),
        )
    shown = done.stdout.decode()
    assert done.returncode == 0, shown
    assert "\x1b[32m✓\x1b[0m TCP" in shown
    assert "\x1b[1;33m!\x1b[0m websocket" in shown
    assert "  websocket …\r\x1b[K" in shown
    for line in shown.replace("\r\n", "\n").split("\n"):
        seen = line.rpartition("\x1b[K")[2].replace("\x1b[0m", "")
        for colour in ("\x1b[32m", "\x1b[1;33m", "\x1b[2m"):
            seen = seen.replace(colour, "")
        assert len(seen) <= 40, seen


def test_doctor_names_a_server_that_offers_nothing_of_tus(tmp_path: Path) -> None:
    with IetfService() as service:
        found = uploader("doctor", "--tus-endpoint", service.url, "--json", home=tmp_path)
        assert "offers the IETF's resumable uploads (min-size=0)" in found.out
