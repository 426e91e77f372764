"""The server as a process: start-up line, errors at the start, stops with open connections, restarts."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
import websockets.sync.client
from server.batches import (
    DEADLINE,
    UNKNOWN,
    HalfSent,
    body_of,
    connected,
    eventually,
    file,
    listening,
    new_session,
    progress,
    text,
    upload,
)
from serving import REPOSITORY, running_server, server_process
from time_limits import SLACK

from uploader_server.__main__ import main
from uploader_server.config import ServerConfig
from uploader_server.http.connections import accepted
from uploader_server.options import StartupError
from uploader_server.serving import SHORT_JOBS, EmbeddedServer, run_loop
from uploader_server.storage.turns import LONG_JOBS

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Start the server with arguments that end it with exit code 2; return the error and the hint on stderr."""
    try:
        code = main(list(arguments))
    except SystemExit as ended:
        code = ended.code  # type: ignore[assignment]
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: (?!argument ).+\nhint: .+\n", err), err
    assert "rrno" not in err, "in words, without the number of an error"
    return err


def test_a_process_names_its_port_and_removes_its_temporary_root() -> None:
    """SIGINT stops it; a second of CPU time is generous for its start, which `python -m benchmarks single` measures."""
    with server_process() as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d+", server.url)
        assert server.root.is_dir()
        upload(server.url, file("a", b"1"))
        if Path("/proc/self/stat").exists():
            fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
            assert sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK") < 1.0 * SLACK
        assert server.stop(signal.SIGINT) == 0
        assert not server.root.exists()
        assert server.errors == ""


TO_A_SLEEPER = """
import os, signal, threading, time
from uploader_server.config import ServerConfig
from uploader_server.serving import serve

def send():
    time.sleep(0.3)  # until the loop sleeps
    os.kill(os.getpid(), signal.SIGINT)

serve(ServerConfig(port=0), lambda *_: threading.Thread(target=send).start())
"""


@pytest.mark.thorough
def test_signal_outside_a_system_call_stops_the_server() -> None:
    """It comes between a step of Python and the sleep that follows, or while another thread runs, as here."""
    limit = 50  # the next timer of the loop is at 60 s
    done = subprocess.run(
        [sys.executable, "-c", TO_A_SLEEPER], capture_output=True, text=True, timeout=limit, cwd=REPOSITORY, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [(), ("--realtime", "hang"), ("--as", "reference", "--processing", "60")])
def test_sigterm_stops_it_within_two_seconds_whoever_is_connected(arguments: tuple[str, ...], tmp_path: Path) -> None:
    with server_process("--root", str(tmp_path), *arguments) as server:
        held: list[AbstractContextManager[object]] = []
        session = new_session(server.url)
        head = [text("sessionId", session), text("category", "personal")]
        slow = HalfSent(server.url, body_of([*head, file("slow.mp4", b"x" * 2_000_000)]))
        slow.send(1_500_000)
        processing = HalfSent(server.url, body_of([*head, file("processed.mp4", b"x")]))
        processing.send()
        idle, half_a_head, poll, websocket = (connected(server.url) for _ in range(4))
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        half_a_head.sendall(b"GET /health HTT")
        poll.sendall(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\n\r\n")
        websocket.sendall(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        held += [slow, processing, idle, half_a_head, poll, websocket]
        idle.recv(65536)
        eventually(lambda: list((tmp_path / ".uploader/incoming").iterdir()), "the body on its way")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 2 * SLACK
        assert server.errors == ""
        for connection in held:
            connection.__exit__(None, None, None)
    assert list((tmp_path / ".uploader/incoming").iterdir()) == []


def test_an_embedded_server_stops_with_clients_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with EmbeddedServer() as server:
        address = server.url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
        websocket = websockets.sync.client.connect(address, proxy=None).__enter__()
        half_a_head = connected(server.url)
        half_a_head.sendall(b"GET /health HTT")
        upload(server.url, file("a", b"1"))
        root = server.root
        began = time.monotonic()
    assert time.monotonic() - began < 2 * SLACK
    assert half_a_head.recv(1) == b""
    websocket.close()
    half_a_head.close()
    eventually(lambda: {t for t in threading.enumerate() if t not in before} == set(), "the end of every thread")
    assert not root.exists()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{server.url}/health", timeout=DEADLINE)


def test_an_embedded_server_answers_503_to_a_request_that_its_stop_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uploader_server.serving.STOP_GRACE", SLACK)  # a slow machine may need it
    with EmbeddedServer() as server:
        slow = HalfSent(server.url, body_of([file("slow", b"x" * 1000)]))
        slow.send(500)
        eventually(lambda: any(server.root.glob(".uploader/incoming/*")), "the body on its way")
        began = time.monotonic()
    assert time.monotonic() - began < 2 * SLACK
    with slow:
        assert slow.status() == 503


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--port", "70000"), "--port"),
        (("--port", "eighty"), "--port"),
        (("--host", "no.such.host.invalid"), "--host"),
        (("--host", "192.0.2.1"), "--host"),
        (("--max-files", "0"), "--max-files"),
        (("--max-size", "huge"), "--max-size"),
        (("--max-size", "0"), "--max-size"),
        (("--types", ","), "--types"),
        (("--types", "mp4;avi"), "--types"),
        (("--rate-limit", "-1"), "--rate-limit"),
        (("--session-ttl", "0"), "--session-ttl"),
        (("--as", "express"), "--as"),
        (("--realtime", "flap"), "--realtime"),
        (("--realtime", "flap:0"), "--realtime"),
        (("--websocket", "sometimes"), "--websocket"),
        (("--latency", "fast"), "--latency"),
        (("--processing", "nan"), "--processing"),
        (("--jwt-secret-file", "missing/secret"), "--jwt-secret-file"),
        (("--access-log", "missing/log"), "--access-log"),
        (("--print-token",), "--jwt-secret-file"),
        (("--root", "/dev/null/x"), "--root"),
        (("--host", "no-such-host.invalid"), "the name is unknown"),
        (("--unknown",), "--unknown"),
    ],
)
def test_a_bad_option_is_one_line_that_names_it(
    arguments: tuple[str, ...],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert named in refused(capsys, "--port", "0", *arguments)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")
def test_host_of_two_colons_serves_both_families() -> None:
    """An IPv4 proxy is still known by its address."""
    with running_server(host="::", rate_limit=1, behind_proxy=("127.0.0.1",)) as server:
        port = server.url.rpartition(":")[2]
        asked = [("[::1]", {}), ("127.0.0.1", {}), ("127.0.0.1", {"X-Forwarded-For": "192.0.2.7"})]
        for host, headers in asked:
            url = f"http://{host}:{port}/api/upload/progress/{UNKNOWN}"
            assert requests.get(url, headers=headers, timeout=DEADLINE).status_code == 404


@pytest.mark.parametrize(
    ("arguments", "warns"),
    [
        (["--host", "0.0.0.0"], True),
        (["--host", "0.0.0.0", "--auth-token-file", "token"], False),
        (["--host", "0.0.0.0", "--allow-host", "files.example"], False),
    ],
)
def test_server_open_to_all_prints_one_warning(arguments: list[str], warns: bool, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token")
    with server_process(*arguments, cwd=tmp_path) as server:
        server.stop()
    found = re.findall(
        r"^warning: everyone who can reach 0\.0\.0\.0 .*--auth-token-file.*--allow-host.*$", server.errors
    )
    assert (len(found), server.errors.count("\n")) == (warns, warns)


BROKEN = """
import sys
from uploader_server.__main__ import main
from uploader_server.storage.store import Store

def find(self, category, path):
    raise RuntimeError(path + "\\nERROR: forged")

Store.find = find
sys.exit(main(["--port", "0"]))
"""


def test_log_escapes_texts_of_clients() -> None:
    """Each line of the log is of the server, also where the text of an error comes from a client."""
    command = [sys.executable, "-c", BROKEN]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[4]
        path = "/uploads/personal/a%0DERROR:%20forged%1B%5B31m%C2%85%E2%80%AE%7F"
        assert requests.get(url + path, timeout=DEADLINE).status_code == 500
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert log.startswith("ERROR: GET /uploads/personal/a\\u000dERROR: forged\\u001b[31m\\u0085\\u202e\\u007f failed")
    assert "RuntimeError: a\\u000d" in log
    assert [line for line in log.split("\n")[1:] if line.strip() and not line.startswith("    ")] == []
    assert not {"\r", "\x1b", "\x85", "\u202e", "\x7f"} & {*log}


def test_a_process_that_can_not_start_exits_with_2() -> None:
    command = [sys.executable, "-m", "uploader_server", "--max-files", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, cwd=REPOSITORY, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--max-files" in ended.stderr


def test_a_taken_port_is_named_with_the_fix(server: EmbeddedServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--port 0" in refused(capsys, "--port", server.url.rpartition(":")[2])


def test_a_root_that_is_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with server_process("--root", str(tmp_path)) as server:
        assert "--root" in refused(capsys, "--port", "0", "--root", str(tmp_path))
        assert requests.get(f"{server.url}/health", timeout=DEADLINE).status_code == 200
    with running_server(root=tmp_path), pytest.raises(StartupError, match="another server"):
        EmbeddedServer(ServerConfig(root=tmp_path)).start()


def test_a_token_of_a_secret_file_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret of the operator's own choice\n")
    assert main(["--print-token", "--jwt-secret-file", str(secret)]) == 0
    token = capsys.readouterr().out.strip()
    with server_process("--jwt-secret-file", str(secret)) as server:
        (known,) = upload(server.url, file("a", b"1"))
        answer = requests.delete(
            f"{server.url}/api/upload/file/{known['id']}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=DEADLINE,
        )
    assert answer.status_code == 200


def test_restart_keeps_sessions_and_uploads(tmp_path: Path) -> None:
    with server_process("--root", str(tmp_path)) as server:
        done, begun, fresh = (new_session(server.url, count) for count in (1, 2, 3))
        upload(server.url, file("done", b"1"), session=done)
        (known,) = upload(server.url, file("begun", b"2"), session=begun)
        server.kill()
    with server_process("--root", str(tmp_path)) as server:
        assert progress(server.url, done).json()["overallStatus"] == "completed"
        after = progress(server.url, begun).json()
        assert (after["overallStatus"], after["totalProgress"], after["completedFiles"]) == ("uploading", 50, 1)
        assert [f["id"] for f in after["files"]] == [known["id"]]
        assert progress(server.url, fresh).json()["overallStatus"] == "pending"
        upload(server.url, file("the rest", b"3"), session=begun)
        assert progress(server.url, begun).json()["overallStatus"] == "completed"
        assert requests.get(f"{server.url}/uploads/personal/begun", timeout=DEADLINE).content == b"2"


def test_a_server_killed_mid_body_leaves_no_half_file(tmp_path: Path) -> None:
    with server_process("--root", str(tmp_path)) as server:
        session = new_session(server.url)
        parts = [text("sessionId", session), text("category", "personal"), file("half", b"x" * 3_000_000)]
        with HalfSent(server.url, body_of(parts)) as request:
            request.send(2_000_000)
            eventually(lambda: list((tmp_path / ".uploader/incoming").iterdir()), "the temporary file")
            server.kill()
    assert list((tmp_path / "personal").iterdir()) == []
    with server_process("--root", str(tmp_path)) as server:
        assert list((tmp_path / ".uploader/incoming").iterdir()) == []
        assert progress(server.url, session).json()["overallStatus"] in {"pending", "uploading"}
        upload(server.url, file("half", b"x"), session=session)


@pytest.mark.thorough
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
def test_memory_stays_flat_while_a_large_file_arrives() -> None:
    with server_process() as server:
        upload(server.url, file("first", b"x" * (1 << 20)))
        before = peak_of(server.pid)
        session = new_session(server.url)
        block, count = os.urandom(1 << 20), 150
        head = body_of([text("sessionId", session), text("category", "personal"), file("large", b"")])
        opening, _, closing = head.rpartition(b"\r\n--BOUNDARY--")
        with HalfSent(server.url, opening, claimed=len(head) + count * len(block)) as request:
            request.send()
            for _ in range(count):
                request.connection.sendall(block)
            request.connection.sendall(b"\r\n--BOUNDARY--" + closing)
            assert request.status() == 200
        assert peak_of(server.pid) - before < 50 << 20


def peak_of(pid: int) -> int:
    """Return the most bytes that a process has had in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) << 10


def test_help_explains_the_faults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    for word in ("flap:S", "kill-after:S", "--latency MS", "--fail-file", "--as"):
        assert word in shown


def test_small_packets_are_sent_without_delay() -> None:
    """Nagle's algorithm would keep the second of two events until the client has acknowledged the first: 40 ms."""
    with running_server() as server, listening(server.url, UNKNOWN), connected(server.url) as other:
        other.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert other.recv(65536).startswith(b"HTTP/1.1 200 ")
        port = int(server.url.rpartition(":")[2])
        delays = [not one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one, _ in accepted(port)]
        assert delays == [False, False]


def test_stop_waits_for_all_threads_of_the_disk_together() -> None:
    """Each of them is blocked."""
    answers = threading.Event()

    async def main() -> None:
        for _ in range(SHORT_JOBS + LONG_JOBS):
            asyncio.get_running_loop().run_in_executor(None, answers.wait)

    began = time.monotonic()
    run_loop(main(), io_deadline=1.0)
    took = time.monotonic() - began
    answers.set()
    assert took < SHORT_JOBS + LONG_JOBS, "not a second for each"
