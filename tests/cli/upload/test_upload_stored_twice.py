"""Files that the reference backend may have stored are never resent without a request, however the client ended."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from command import QUICK_LOOKS, Done, ended, read_until, start, uploader
from proxy import Cut, Onlooker, Proxy, Request
from serving import running_server
from time_limits import PATIENCE

from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Files = Callable[..., Path]

BATCH, LOOKUP = "/api/upload/batch", "/api/upload/lookup"


class Holding(Onlooker):
    """Passes everything on except, until `released` is set, reads of stored files."""

    def __init__(self) -> None:
        self.held, self.released = threading.Event(), threading.Event()

    def head(self, request: Request) -> None:
        if request.line.startswith("GET /uploads/"):
            self.held.set()
            self.released.wait(PATIENCE)


class WithoutLength(Onlooker):
    """Loses the first answer to a batch; removes the lengths from answers to HEAD, as proxies that compress."""

    def at_answer(self, request: Request) -> None:
        if request.target == BATCH and self.proxy.count(BATCH) == 1:
            raise Cut

    def passing(self, piece: bytes, *, to_server: bool) -> bytes:
        is_digest = not to_server and b"repr-digest:" in piece
        return piece.replace(b"content-length:", b"x-length:") if is_digest else piece


def stored(root: Path) -> list[str]:
    """The stored files by the names that they were sent with."""
    return sorted(path.name.rpartition("_")[2] for path in root.rglob("*.mp4"))


def codes(done: Done) -> list[str]:
    return [event["code"] for event in done.of("file.failed")]


@pytest.mark.thorough
def test_kill_while_the_server_works_is_unknown_to_later_runs_until_resend(make_files: Files, tmp_path: Path) -> None:
    """`kill -9` after the body: exit 4 by `resume` and by the same command, and one copy; --resend-unknown sends it."""
    with running_server(flavour="reference", processing_seconds=4.0, realtime="off") as server:
        command = ("upload", make_files(**{"a.mp4": 10}), "-s", server.url, "--json")
        process = start(*command, home=tmp_path)
        seen = read_until(process, "file.progress", lambda event: event["phase"] == "processing")
        assert ended(process, seen, signal.SIGKILL).code == -signal.SIGKILL
        for again in (("resume", "--json"), command):
            done = uploader(*again, home=tmp_path)
            assert (done.code, codes(done)) == (4, ["outcome_unknown"])
        end = time.monotonic() + PATIENCE
        while not server.faults.count("POST", BATCH) and time.monotonic() < end:
            time.sleep(0.02)  # the server still works on it
        assert stored(server.root) == ["a.mp4"]
        assert server.faults.count("POST", BATCH) == 1
        assert uploader(*command, "--resend-unknown", home=tmp_path).code == 0
        assert server.faults.count("POST", BATCH) == 2


@pytest.mark.parametrize(
    ("answer", "copies"),
    [
        pytest.param(Answer(when="after_body", close=True), 1, marks=pytest.mark.thorough, id="lost"),
        pytest.param(Answer(404, when="after_store"), 2, id="refused although stored"),
    ],
)
def test_unclear_outcome_is_unknown_to_later_runs_until_resend(
    answer: Answer, copies: int, make_files: Files, tmp_path: Path
) -> None:
    with running_server(flavour="reference", processing_seconds=0.01, realtime="off") as server:
        command = ("upload", make_files(**{"a.mp4": 10}), "-s", server.url, "--json")
        server.faults.next_answers("POST", BATCH, [answer])
        for again in (command, ("resume", "--json")):
            done = uploader(*again, home=tmp_path, constants=QUICK_LOOKS)
            assert (done.code, codes(done)) == (4, ["outcome_unknown"])
        assert server.faults.count("POST", BATCH) == 1
        assert uploader("resume", "--resend-unknown", "--json", home=tmp_path).code == 0
        assert stored(server.root) == ["a.mp4"] * copies


@pytest.mark.parametrize(
    "packs", [pytest.param(True, id="lookup"), pytest.param(False, marks=pytest.mark.thorough, id="one by one")]
)
def test_unclear_outcome_is_asked_for_by_a_later_run_and_stays_open_while_the_server_is_busy(
    packs: bool, make_files: Files, tmp_path: Path
) -> None:
    """At a server with paths: a busy one is an error that a later run gets over, and nothing is sent twice."""
    busy = [Answer(503)] * 9
    with running_server(realtime="off", packs=packs) as server:
        command = ("upload", make_files(**{"a.mp4": 10}), "-s", server.url, "--protocol", "batch", "--retries", "0")
        server.faults.next_answers("POST", BATCH, [Answer(when="after_store", close=True)])
        server.faults.next_answers("HEAD", "/uploads/*", busy)
        server.faults.next_answers("POST", LOOKUP, busy)
        done = uploader(*command, "--json", home=tmp_path, constants=QUICK_LOOKS)
        assert (done.code, codes(done)) == (4, ["outcome_unknown"])
        done = uploader(*command, "--json", home=tmp_path, constants=QUICK_LOOKS)
        assert (done.code, [end["retryable"] for end in done.of("file.failed")]) == (3, [True]), done.err
        server.faults.script.clear()
        done = uploader(*command, "--json", home=tmp_path, constants=QUICK_LOOKS)
        assert (done.code, [end["reason"] for end in done.of("file.skipped")]) == (0, ["present"])
        assert server.faults.count("POST", BATCH) == 1


def test_lost_answer_is_settled_by_the_digest_without_a_length(make_files: Files, tmp_path: Path) -> None:
    with running_server(realtime="off") as server, Proxy(server.url, WithoutLength()) as proxy:
        command = ("upload", make_files(**{"a.mp4": 10}), "-s", proxy.url, "--protocol", "batch", "--json")
        done = uploader(*command, home=tmp_path)
        assert (done.code, [end["verified_by"] for end in done.of("file.completed")]) == (0, ["digest"])
        assert [request.headers["accept-encoding"] for request in proxy.of("HEAD")] == ["identity"]
        assert proxy.count(BATCH) == 1


@pytest.mark.parametrize("status", [403, *(pytest.param(each, marks=pytest.mark.thorough) for each in (405, 501))])
def test_stored_file_is_not_resent_where_head_is_refused(status: int, make_files: Files, tmp_path: Path) -> None:
    """Only 404 and 410 mean that a file is missing; after another refusal the receipt counts."""
    config = {"flavour": "reference", "processing_seconds": 0.01, "realtime": "off", "fail_files": ("b*",)}
    with running_server(**config) as server:
        command = ("upload", make_files(**{"a.mp4": 10, "b.mp4": 10}), "-s", server.url, "--json", "--retries", "0")
        assert uploader(*command, home=tmp_path).code == 4
        server.faults.next_answers("HEAD", "/uploads/*", [Answer(status)] * 9)
        done = uploader(*command, home=tmp_path)
        assert [event["reason"] for event in done.of("file.skipped")] == ["receipt"]
        assert stored(server.root) == ["a.mp4"]


@pytest.mark.parametrize("signals", [[signal.SIGKILL], [signal.SIGINT, signal.SIGINT]], ids=["kill", "ctrl-c"])
def test_files_of_a_run_ended_during_verification_are_not_resent(
    signals: list[int], make_files: Files, tmp_path: Path
) -> None:
    """Killed or interrupted while it reads the stored bytes back; the next run verifies them."""
    server_of_files = running_server(flavour="reference", processing_seconds=0.01)
    with server_of_files as server, Proxy(server.url, holding := Holding()) as relay:
        command = ("upload", make_files(**{"a.mp4": 10, "b.mp4": 10}), "-s", relay.url, "--verify", "--json")
        process = start(*command, home=tmp_path)
        assert holding.held.wait(PATIENCE)
        done = ended(process, "", *signals)
        assert done.code in (-signal.SIGKILL, 130)
        holding.released.set()
        done = uploader(*command, home=tmp_path)
        assert done.code == 0, done.err
        assert [event["reason"] for event in done.of("file.skipped")] == ["present", "present"]
        assert server.faults.count("POST", BATCH) == 1
        assert server.faults.count("GET", "/uploads/*") >= 2
        assert stored(server.root) == ["a.mp4", "b.mp4"]
