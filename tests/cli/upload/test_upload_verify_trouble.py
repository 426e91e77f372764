"""`--verify` where the file or the server fails after the bytes were sent: that file alone, and no byte again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from command import uploader
from proxy import Onlooker, Proxy
from scripted_server import Answer as Reply
from serving import running_server
from tus_services import Service

from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from proxy import Request

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

STORED = "/uploads/*"


def vanish(path: Path) -> None:
    path.unlink()


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.thorough
@pytest.mark.parametrize(("change", "code"), [(vanish, "vanished"), (grow, "changed")])
@pytest.mark.parametrize("flavour", ["bundled", "reference"])
def test_file_that_changes_after_it_was_sent_fails_alone(
    flavour: str, change: Callable[[Path], None], code: str, make_files: Files, tmp_path: Path
) -> None:
    """By tus and in batch mode: the others are verified, each file has one end event, and nothing is resent."""
    files = make_files(**{"a.mp4": 10, "b.mp4": 10, "c.mp4": 10})

    class AtVerification(Onlooker):
        def head(self, request: Request) -> None:
            if request.target.startswith("/uploads/") and self.proxy.count(" /uploads/") == 1:
                change(files / "a.mp4")

    with (
        running_server(flavour=flavour, processing_seconds=0.01) as server,
        Proxy(server.url, AtVerification()) as proxy,
    ):
        done = uploader("upload", files, "-s", proxy.url, "-j", "1", "--verify", "--json", home=tmp_path)
        stored = list((server.root / "personal").rglob("*.mp4"))
    assert done.code == 4
    assert [(event["path"], event["code"]) for event in done.of("file.failed")] == [(str(files / "a.mp4"), code)]
    completed = done.of("file.completed")
    assert [event["path"] for event in completed] == [str(files / "b.mp4"), str(files / "c.mp4")]
    assert all(event["verified"] for event in completed)
    assert len(stored) == 3


FAULTS = {
    "503": (Answer(503, {"Retry-After": "0"}, when="after_body"), 3),
    "reset": (Answer(close=True, when="after_body"), 3),
    "401": (Answer(401, when="after_body"), 5),
}


@pytest.mark.thorough
@pytest.mark.parametrize(("fault", "code"), FAULTS.values(), ids=FAULTS)
def test_verification_read_that_keeps_failing_is_a_retryable_failure(
    fault: Answer, code: int, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The next run looks the file up, with retries, verifies it, and sends nothing."""
    command = ("upload", make_files(**{"a.mp4": 10}), "-s", server.url, "--verify", "--json")
    server.faults.next_answers("HEAD", STORED, [fault])
    failed = uploader(*command, "--retries", "0", home=tmp_path)
    assert failed.code == code
    assert failed.of("file.completed") == failed.of("warning") == []
    assert [event["retryable"] for event in failed.of("file.failed")] == [True]
    server.faults.next_answers("HEAD", STORED, [fault] if code == 3 else [])
    done = uploader(*command, "--retries", "1", home=tmp_path)
    assert done.code == 0, done.err
    assert [event["reason"] for event in done.of("file.skipped")] == ["present"]
    assert server.faults.count("POST", "/api/upload/files/") == 1
    assert server.faults.count("HEAD", STORED) == (4 if code == 3 else 3)


class Closed(Service):
    """A tus server that answers `GET` of a stored file with `status`."""

    methods = "OPTIONS POST HEAD PATCH GET"

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status

    def _get(self, request: object) -> Reply:
        return Reply(self.status)


@pytest.mark.parametrize("status", [500, 401, 403, 404, 410])
def test_stored_file_that_is_not_given_out_is_a_warning(status: int, make_files: Files, tmp_path: Path) -> None:
    """It is asked for once; the same command asks again."""
    path = make_files(**{"a.mp4": 10}) / "a.mp4"
    with Closed(status) as service:
        command = ("upload", path, "--tus-endpoint", service.url, "--json")
        done = uploader(*command, "--verify", home=tmp_path)
        asked = [method for method, _ in service.requests].count("GET")
        again = uploader(*command, "--verify", home=tmp_path)
    assert (done.code, again.code, asked) == (0, 0, 1), done.err
    assert [event["code"] for event in done.of("warning")] == ["unverifiable"]
    assert [event["verified"] for event in done.of("file.completed")] == [False]


@pytest.mark.feature("then")
@pytest.mark.parametrize("status", [500, 401, 403, 404, 410])
def test_stored_file_that_is_not_given_out_is_kept_here(status: int, make_files: Files, tmp_path: Path) -> None:
    path = make_files(**{"a.mp4": 10}) / "a.mp4"
    with Closed(status) as service:
        command = ("upload", path, "--tus-endpoint", service.url)
        assert uploader(*command, home=tmp_path).code == 0
        assert uploader(*command, "--then", "delete", home=tmp_path).code != 0
    assert path.exists()
