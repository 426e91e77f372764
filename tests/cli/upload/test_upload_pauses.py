"""Long pauses requested by a server, single failing calls, and single refused files."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from cli.watch.watch_bench import wait_until
from command import ended, read_until, start, uploader
from proxy import Onlooker, Proxy
from serving import running_server
from tus_services import Plain

from uploader_cli import Settings, upload
from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from proxy import Request

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

BATCH, TUS, STORED = "/api/upload/batch", "/api/upload/files/", "/uploads/*"
A_DAY = Answer(429, {"Retry-After": "86400"})


@pytest.mark.thorough
def test_poll_with_retry_after_of_a_day_delays_no_upload(make_files: Files, tmp_path: Path) -> None:
    """The first file is stored after the first poll; the second session comes after that."""
    polls = ("GET", "/api/upload/progress/*")

    class Polled(Onlooker):
        def at_answer(self, request: Request) -> None:
            if request.target == BATCH:
                wait_until(lambda: server.faults.count(*polls))

    running = running_server(flavour="reference", processing_seconds=0.01, realtime="off")
    with running as server, Proxy(server.url, Polled()) as proxy:
        server.faults.next_answers(*polls, [A_DAY])
        files = make_files(**{"a.mp4": 10, "b.avi": 10})
        done = uploader("upload", files, "-s", proxy.url, "-j", "1", "--json", home=tmp_path)
    assert (done.code, done.finished["completed"]) == (0, 2)
    assert "rate_limited" not in [event["code"] for event in done.of("warning")]


CALLS = {
    "tus": ("bundled", "POST", TUS, (), 3),
    "batch": ("reference", "POST", BATCH, (), 3),
    "verification": ("bundled", "HEAD", STORED, ("--verify",), 3),
    "skip existing": ("bundled", "HEAD", STORED, ("--skip-existing",), 0),
}


@pytest.mark.parametrize(("flavour", "method", "path", "options", "code"), CALLS.values(), ids=CALLS)
def test_call_with_retry_after_of_a_day_fails_at_once(
    flavour: str, method: str, path: str, options: tuple[str, ...], code: int, make_files: Files, tmp_path: Path
) -> None:
    """No pause is waited for: the run exits 3, or sends the file that it could not look up.

    A file that no worker has begun when the run ends is skipped, and counted as cancelled: a repeated command sends it.
    """
    with running_server(flavour=flavour, processing_seconds=0.01) as server:
        server.faults.next_answers(method, path, [A_DAY])
        files = make_files(**{"a.mp4": 10, "b.avi": 10})
        done = uploader("upload", files, "-s", server.url, *options, "--json", home=tmp_path)
    assert done.code == code
    assert {event["code"] for event in done.of("file.failed")} == ({"rate_limited"} if code else set())
    assert {event["reason"] for event in done.of("file.skipped")} <= {"not_tried"}
    assert sum(done.finished[end] for end in ("completed", "failed", "skipped", "cancelled")) == 2


def test_ctrl_c_during_a_pause_claims_nothing(make_files: Files, tmp_path: Path) -> None:
    """The request was refused: nothing of it can be stored."""
    with running_server(flavour="reference", processing_seconds=0.01) as server:
        server.faults.next_answers("POST", BATCH, [Answer(429, {"Retry-After": "600"}, when="after_body")])
        process = start("upload", make_files(**{"a.mp4": 10}), "-s", server.url, "--json", home=tmp_path)
        seen = read_until(process, "warning", lambda event: event["code"] == "rate_limited")
        done = ended(process, seen, signal.SIGINT)
    assert (done.code, done.finished["cancelled"]) == (130, 1)
    assert [event["code"] for event in done.of("warning")] == ["rate_limited"]


@pytest.mark.thorough
def test_skip_existing_continues_after_a_dropped_head(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    files, elsewhere = make_files(**{"a.mp4": 10, "b.mp4": 10}), make_files("elsewhere", x=1)
    assert uploader("upload", files, "-s", server.url, home=elsewhere).code == 0
    server.faults.next_answers("HEAD", STORED, [Answer(close=True, when="after_body")])
    done = uploader("upload", files, "-s", server.url, "--skip-existing", "--json", home=tmp_path)
    assert (done.code, done.finished["skipped"]) == (0, 2)
    assert server.faults.count("HEAD", STORED) == 3


@pytest.mark.parametrize("status", [400, 413, 422])
def test_request_after_a_halved_one_has_full_size(status: int, make_files: Files, tmp_path: Path) -> None:
    """16 files, the first request refused once: its halves, not one request for each file."""
    with running_server(tus=False) as server:
        server.faults.next_answers("POST", BATCH, [Answer(status, when="after_body")])
        files = make_files(**{f"{number:02}.mp4": 10 for number in range(16)})
        done = uploader("upload", files, "-s", server.url, "--json", home=tmp_path)
        assert server.faults.count("POST", BATCH) == 3
    assert (done.code, done.finished["completed"]) == (0, 16)


def test_library_sends_to_the_server_that_the_call_names(server: EmbeddedServer, make_files: Files) -> None:
    """Also where its settings name a tus endpoint."""
    with Plain() as plain:
        result = upload(make_files(**{"a.mp4": 10}), Settings(tus_endpoint=plain.url), server=server.url)
    assert result.ok
    assert (server.root / "personal" / "files" / "a.mp4").stat().st_size == 10
    assert not plain.uploads
