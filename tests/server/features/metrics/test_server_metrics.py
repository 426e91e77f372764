"""What operators see: `/metrics` for Prometheus, the access log as JSON, the request ids of clients."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from server.batches import (
    DEADLINE,
    UNKNOWN,
    connected,
    eventually,
    file,
    new_session,
    progress,
    upload,
    watching,
)
from serving import inside, running_server

from uploader_server.auth import issue_token
from uploader_server.config import ServerConfig
from uploader_server.features.metrics.metrics import route_of
from uploader_server.http.tracking import AccessLog, LoggedRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer

SECRET = "a secret of the metrics tests, long enough"


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with running_server(jwt_secret=SECRET, analysis_seconds=0) as server:
        yield server


def scraped(server: EmbeddedServer) -> dict[str, float]:
    """`name{label="value",…}` → number."""
    answer = requests.get(f"{server.url}/metrics", timeout=DEADLINE)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_sessions_bytes_events_and_sockets_are_counted(server: EmbeddedServer) -> None:
    pending, session = new_session(server.url), new_session(server.url)
    with watching(server.url, "websocket", session) as watcher, watching(server.url, "polling", pending):
        assert watcher.join(UNKNOWN)["ok"] is False
        upload(server.url, file("a", b"x" * 100_000), session=session)
        watcher.wait_for_end()
        seen = scraped(server)
    assert seen['uploader_sessions{status="pending"}'] == 1
    assert seen['uploader_sessions{status="completed"}'] == 1
    assert seen['uploader_sessions{status="uploading"}'] == 0
    assert seen['uploader_sockets{transport="websocket"}'] == 1
    assert seen['uploader_sockets{transport="polling"}'] == 1
    assert 100_000 < seen['uploader_received_bytes_total{route="batch"}'] < 101_000
    assert seen['uploader_events_total{event="upload-progress"}'] >= 4
    assert seen['uploader_joins_total{outcome="ok"}'] == 2
    assert seen['uploader_joins_total{outcome="SESSION_NOT_FOUND"}'] == 1
    assert seen['uploader_request_seconds_count{route="batch"}'] == 1
    assert seen['uploader_requests_total{method="POST",route="session",status="201"}'] == 2
    assert seen["uploader_analyses_running{}"] == 0


def test_bytes_by_tus_are_counted_apart(subtests: pytest.Subtests, server: EmbeddedServer) -> None:
    tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "300000"}
    made = requests.post(f"{server.url}/api/upload/files/", headers=tus, timeout=DEADLINE)
    where = urljoin(f"{server.url}/api/upload/files/", made.headers["Location"])
    for offset in (0, 100_000):
        with subtests.test(offset=offset):
            piece = {**tus, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
            answer = requests.patch(where, data=b"x" * (100_000 + offset), headers=piece, timeout=DEADLINE)
            assert answer.status_code == 204
    seen = scraped(server)
    assert seen['uploader_received_bytes_total{route="tus"}'] == 300_000
    assert 'uploader_received_bytes_total{route="batch"}' not in seen
    assert seen['uploader_request_seconds_count{route="tus"}'] == 3


def test_errors_are_counted_by_client_and_server(server: EmbeddedServer) -> None:
    progress(server.url, UNKNOWN)
    server.faults.next_answers("GET", "/health", [503])
    requests.get(f"{server.url}/health", timeout=DEADLINE)
    seen = scraped(server)
    assert seen['uploader_errors_total{kind="client"}'] == 1
    assert seen['uploader_errors_total{kind="server"}'] == 1


def test_analyses_are_counted(subtests: pytest.Subtests, server: EmbeddedServer) -> None:
    for mode in (None, "refuse:parse"):
        with subtests.test(mode=mode):
            server.faults.set_analysis(mode)
            requests.post(
                f"{server.url}/api/ai/generate/music-prompt",
                json={"fusionPlan": "x"},
                headers={"authorization": f"Bearer {issue_token(SECRET)}"},
                timeout=DEADLINE,
            )
    seen = scraped(server)
    assert seen['uploader_analyses_total{kind="music",status="completed"}'] == 1
    assert seen['uploader_analyses_total{kind="music",status="failed"}'] == 1


def test_refused_connections_are_counted() -> None:
    with running_server(max_connections=1) as server:
        for _ in range(3):
            requests.get(f"{server.url}/socket.io/?EIO=4&transport=polling", timeout=DEADLINE)
        assert scraped(server)['uploader_refused_connections_total{reason="limit"}'] == 2


@pytest.mark.thorough
def test_metric_labels_come_from_the_server_alone(server: EmbeddedServer) -> None:
    def invent(names: range) -> int:
        for number in names:
            requests.request(f"MADEUP{number}", f"{server.url}/no/such/{number}", timeout=DEADLINE)
        return len(scraped(server))

    invent(range(1))
    assert invent(range(20)) == invent(range(20, 60))


def test_two_servers_of_one_process_count_apart(server: EmbeddedServer) -> None:
    new_session(server.url)
    with running_server() as other:
        assert scraped(other)['uploader_sessions{status="pending"}'] == 0


def test_the_reference_backend_has_no_metrics() -> None:
    with running_server(flavour="reference") as server:
        assert requests.get(f"{server.url}/metrics", timeout=DEADLINE).status_code == 404
        new_session(server.url)
        assert inside(server).backend.statuses()["pending"] == 1


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/api/upload/batch", "batch"),
        ("/api/upload/files/abc", "tus"),
        ("/api/upload/session/x/finish", "session"),
        ("/socket.io/", "realtime"),
        ("/api/ai/analyze/fusion", "analysis"),
        ("/../etc", "other"),
    ],
)
def test_paths_become_routes(path: str, route: str) -> None:
    assert route_of(path) == route


# The access log


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_json_log_has_the_request_ids_of_clients(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_server(access_log=log, access_log_format="json") as server:
        headers = {"x-request-id": "run-7/3"}
        answer = requests.post(f"{server.url}/api/upload/validate", data=b"{}x", headers=headers, timeout=DEADLINE)
        assert answer.headers["x-request-id"] == "run-7/3"
        progress(server.url, UNKNOWN)
    first, second = lines(log)
    assert set(first) == {"time", "method", "path", "status", "seconds", "bytesIn", "client", "requestId"}
    assert (first["method"], first["path"], first["status"]) == ("POST", "/api/upload/validate", 400)
    assert (first["bytesIn"], first["client"], first["requestId"]) == (3, "127.0.0.1", "run-7/3")
    assert 0 <= first["seconds"] < DEADLINE
    assert first["time"].endswith("Z")
    assert second["requestId"] is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_access_log_on_a_full_disk_changes_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    with running_server(access_log=Path("/dev/full")) as server:
        assert upload(server.url, file("a.mp4", b"x"))[0]["status"] == "completed"
        assert requests.get(f"{server.url}/uploads/personal/a.mp4", timeout=DEADLINE).content == b"x"
        assert "uploader_dropped_log_lines 3.0" in requests.get(f"{server.url}/metrics", timeout=DEADLINE).text
    assert sum("/dev/full can't be written" in message for message in caplog.messages) == 1


def test_failing_metrics_change_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server() as server:
        server.app.keep.append(lambda _: 1 // 0)
        assert requests.get(f"{server.url}/health", timeout=DEADLINE).status_code == 200


def test_pipe_as_access_log_holds_up_neither_start_nor_answers(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    config = ServerConfig(access_log=tmp_path / "log")
    with pytest.raises(OSError, match="a pipe that nobody reads"):
        AccessLog(config)
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    with contextlib.closing(AccessLog(config)) as log:
        for _ in range(2000):
            log.write(LoggedRequest(0.0, "GET", "/" * 100, 200, 0.0))
        assert log.dropped > 0
    os.close(reader)


def test_a_torn_line_of_the_access_log_ends_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Filling(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(data[:5] if not self.tell() else data)

    monkeypatch.setattr("uploader_server.http.tracking.io.FileIO", Filling)
    log = AccessLog(ServerConfig(access_log=tmp_path / "log"))
    for path in ("/a", "/b"):
        log.write(LoggedRequest(0.0, "GET", path, 200, 0.0))
    log.close()
    first, second = (tmp_path / "log").read_text().splitlines()
    assert (len(first), log.dropped) == (5, 1)
    assert second.endswith("GET /b 200 0.0ms")


def test_a_request_id_is_made_harmless(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_server(access_log=log, access_log_format="json") as server:
        for sent, kept in (('a"b\tc d', "abcd"), ("x" * 500, "x" * 128), ("<>", None), ("é", None)):
            headers = {"x-request-id": sent.encode("utf-8")}
            answer = requests.get(f"{server.url}/health", headers=headers, timeout=DEADLINE)
            assert answer.headers.get("x-request-id") == kept
    assert [line["requestId"] for line in lines(log)] == ["abcd", "x" * 128, None, None]


def test_the_reference_flavour_echoes_nothing() -> None:
    with running_server(flavour="reference") as server:
        answer = requests.get(f"{server.url}/health", headers={"x-request-id": "a"}, timeout=DEADLINE)
        assert "x-request-id" not in answer.headers


@pytest.mark.parametrize("kind", ["plain", "json"])
def test_json_log_escapes_line_breaks_of_a_path(tmp_path: Path, kind: Any) -> None:
    log = tmp_path / "log"
    with running_server(access_log=log, access_log_format=kind) as server:
        requests.get(f"{server.url}/a%0aGET%20/forged%1b[31m%E5%A4%8F", timeout=DEADLINE)
    (line,) = log.read_text(encoding="utf-8").splitlines()
    assert ("%0A" if kind == "plain" else "\\n") in line
    assert "\x1b" not in line


def test_no_secret_is_logged(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_server(access_log=log, access_log_format="json", auth_token="secret-token") as server:
        for header in ("Bearer secret-token", "Bearer secret-token2"):
            requests.get(
                f"{server.url}/uploads/personal/a?token=in-the-query",
                headers={"authorization": header},
                timeout=DEADLINE,
            )
    assert "secret" not in log.read_text()
    assert "in-the-query" not in log.read_text()


def test_a_cut_request_has_status_0(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_server(access_log=log, access_log_format="json") as server:
        half = connected(server.url)
        half.sendall(
            b"POST /api/upload/batch HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: multipart/form-data; boundary=BOUNDARY\r\n"
            b"Content-Length: 1000\r\n\r\n--BOUNDARY\r\n"
        )
        half.close()
        eventually(log.read_text, "the line")
    (line,) = lines(log)
    assert line["status"] in {0, 400}
    assert line["bytesIn"] <= 12
