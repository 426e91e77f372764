"""The metrics of real runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from command import uploader

from uploader_cli import Settings, upload
from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer


@pytest.mark.thorough
def test_the_metrics_of_a_run(server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path) -> None:
    """The calls match the server's count; the clocks agree; one retry is counted."""
    server.faults.next_answers("POST", "/api/upload/files/", [Answer(503, {"Retry-After": "0"})])
    files = make_files(**{"a.mp4": 3_000_000, "b.mp4": 70_000})
    done = uploader("upload", files, "-s", server.url, "--json", home=tmp_path)
    metrics = done.finished["metrics"]
    answered = [request for request in server.faults.requests if not request.path.startswith("/socket.io")]
    assert metrics["calls"] == len(answered)
    assert (metrics["failed_calls"], metrics["retries"]) == (1, 1)
    assert 0 < metrics["error_percent"] < 50
    assert abs(metrics["clock_offset"]) < 60
    assert 0 <= metrics["latency_ms"]["p50"] <= metrics["latency_ms"]["max"]
    assert metrics["rate"]["max"] > 0


@pytest.mark.thorough
def test_warn_error_rate(server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path) -> None:
    """Twelve creations that fail are more than a fifth of all calls."""
    server.faults.next_answers("POST", "/api/upload/files/", [Answer(503, {"Retry-After": "0"})] * 12)
    options = ("-s", server.url, "--protocol", "tus", "-j", "1", "--retries", "12", "--warn-error-rate", "20")
    done = uploader("upload", make_files(**{"a.mp4": 10}), *options, "--json", home=tmp_path)
    assert done.code == 0
    (warning,) = done.of("warning")
    assert warning["code"] == "error_rate"
    assert warning["text"].endswith("calls, dials and files failed")
    assert f"warning: {warning['text']}" in done.err


def test_library_result_has_metrics(server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path) -> None:
    """Measurements, failures and exit code."""
    settings = Settings(server=server.url, state_dir=tmp_path / "state")
    server.faults.next_answers("POST", "/api/upload/files/", [Answer(503, {"Retry-After": "0"})])
    result = upload(make_files(**{"a.mp4": 10}), settings)
    assert (result.ok, result.exit_code) == (True, 0)
    assert (result.metrics.retries, result.metrics.failed_calls) == (1, 1)
    assert [(incident.kind, incident.ending) for incident in result.incidents] == [("transfer", "recovered")]
