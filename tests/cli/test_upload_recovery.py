"""A fault of the server costs retries, and the report tells how that ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from command import uploader

from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer


def test_a_server_s_fault_degrades_the_run_which_goes_on(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """One file is given up after its retries, which needs a person; the other one is stored."""
    report = tmp_path / "report.json"
    server.faults.next_answers("POST", "/api/upload/files/", [Answer(503, {"Retry-After": "0"})] * 2)
    options = ("-s", server.url, "--json", "--report", report, "--retries", "1", "-j", "1")
    done = uploader("upload", make_files(**{"a.mp4": 10, "b.mp4": 10}), *options, home=tmp_path)
    assert done.code == 3
    assert (done.finished["completed"], done.finished["failed"]) == (1, 1)
    head = json.loads(report.read_text(encoding="utf-8"))
    assert head["metrics"] == done.finished["metrics"]
    (incident,) = [incident for incident in head["incidents"]["kept"] if incident["kind"] == "transfer"]
    assert (incident["ending"], incident["times"]) == ("needs_person", 1)
    assert incident["text"].startswith("server_error: ")
    assert head["started"] <= incident["ts"] <= head["finished"]
