"""Foreign servers that refuse a file at its end, or take long for it: what the client says, and what it sends."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from command import Done, ended, read_until, start, uploader
from time_limits import PATIENCE, SLACK
from tus_services import FIRST, Finishing, Refused, Upload

if TYPE_CHECKING:
    from pathlib import Path

    from scripted_server import Answer, Request

QUICK = {"uploader_cli.transfer.pacer.FIRST_DELAY": 0.0, "uploader_cli.transfer.pacer.JITTER": 0.0}
OVERRIDE = "x-http-method-override"
IMPATIENT: dict[str, Any] = {
    f"uploader_cli.transfer.{name}": 0.3
    for name in (
        "protocols.tus_dialect.CHUNK_TIMEOUT",
        "protocols.tus_dialect.JOIN_TIMEOUT",
        "upload_calls.READ_TIMEOUT",
    )
}
"""Seconds for answers to requests that complete nothing; a slow finish takes longer."""
PARTS: dict[str, Any] = {
    "uploader_cli.transfer.tus_state.FAR": -1.0,
    "uploader_cli.transfer.tus_state.LARGE_AND_FAR": 200,
    "uploader_cli.transfer.tus_state.LEAST_PART": 100,
}
"""Files of 200 bytes are sent in two parts."""


class Hooked(Finishing):
    """Ends the finish of whole files with `status` and a reason; without `signed` its answer has no `Tus-Resumable`.

    The finish takes `seconds`, or until `decided` is set; `times` is the number of files that are refused.
    """

    def __init__(self, status: int, *, signed: bool = True, seconds: float = 0.0, times: int = 99, **how: Any) -> None:
        super().__init__(**how)
        self.status, self.signed, self.seconds, self.times = status, signed, seconds, times
        self.began, self.decided = threading.Event(), threading.Event()
        self.disturbed = False
        """Whether the offset of an upload was asked for while it was being finished."""

    def _post(self, request: Request) -> Answer:
        answer: Answer = super()._patch(request) if OVERRIDE in request.headers else super()._post(request)
        return answer

    def _head(self, request: Request) -> Any:
        self.disturbed = self.disturbed or (self.began.is_set() and not self.decided.is_set())
        return super()._head(request)

    def finish(self, upload: Upload) -> None:
        if upload.partial:
            return
        self.began.set()
        self.decided.wait(self.seconds)
        self.decided.set()
        if self.times:
            self.times -= 1
            raise Refused(self.status, "virus found", by_service=self.signed)
        super().finish(upload)


def send(service: Finishing, home: Path, *more: str, size: int = 100, whole: bool = True, **constants: float) -> Done:
    """Send a file; `whole`: with its creation, where the server takes bytes with that."""
    path = home / "a.bin"
    path.write_bytes((FIRST + bytes(size))[:size])
    asked = ("upload", path, "--tus-endpoint", service.url, "--retries", "1", "-j", "2", "--json", *more)
    how: dict[str, Any] = {"UPLOADER_BYTES_AT_CREATION": "yes" if whole else "none"}
    return uploader(*asked, home=home, constants=QUICK | constants, **how)


@pytest.mark.parametrize("size", [100, 3000], ids=["one chunk", "several"])
def test_403_of_the_server_to_the_last_byte_refuses_the_file(size: int, tmp_path: Path) -> None:
    """The journal forgets the upload: the next run sends the file anew."""
    with Hooked(403, times=1) as service:
        done = send(service, tmp_path, "--chunk-size", "1K", size=size)
        (failed,) = done.of("file.failed")
        assert (done.code, failed["code"]) == (4, "server_refused")
        assert "virus found" in failed["message"]
        assert "token" not in done.err + failed["message"]
        assert send(service, tmp_path, "--chunk-size", "1K", size=size).code == 0
        assert len(service.uploads) == 2


def test_403_to_a_join_refuses_the_file(tmp_path: Path) -> None:
    with Hooked(403) as service:
        done = send(service, tmp_path, size=200, **PARTS)
    (failed,) = done.of("file.failed")
    assert (done.code, failed["code"]) == (4, "server_refused")
    assert "virus found" in failed["message"]


@pytest.mark.parametrize("status", [403, 405])
@pytest.mark.parametrize(("accepted", "whole"), [(0, False), (0, True), (1, True)])
def test_refusal_of_a_whole_file_is_told_from_that_of_the_token(
    accepted: int, whole: bool, status: int, tmp_path: Path
) -> None:
    """The first answer of a run to a creation with all bytes may concern the token, or be that of a wrong address."""

    class Later(Hooked):
        def store(self, upload: Upload) -> None:
            super().store(upload)
            self.times = 1

    (tmp_path / "b.bin").write_bytes(b"second")
    with Later(status, with_upload=True, times=2 - 2 * accepted) as service:
        done = send(service, tmp_path, *[str(tmp_path / "b.bin")] * accepted, "-j", "1", whole=whole)
    assert len(service.stored) == accepted
    assert done.code == 4
    assert [event["code"] for event in done.of("file.failed")] == ["server_refused"]
    assert "virus found" in done.of("file.failed")[0]["message"]


@pytest.mark.parametrize(("status", "signed"), [(401, True), (401, False), (403, False)])
def test_refused_token_is_renewed_once_and_keeps_the_upload(status: int, signed: bool, tmp_path: Path) -> None:
    class Expired(Hooked):
        def receive(self, upload: Upload, size: int, headers: dict[str, str]) -> None:
            if upload.content and headers.get("authorization") != "Bearer new":
                raise Refused(self.status, "expired", by_service=self.signed)

    token = tmp_path / "token"
    token.write_text("old")
    renewing = f"cat '{token}'; echo new > '{token}'"
    with Expired(status, signed=signed, times=0) as service:
        done = send(service, tmp_path, "--chunk-size", "1K", "--token-command", renewing, size=2000)
        assert done.code == 0, done.err
        assert len(service.uploads) == len(service.stored) == 1
        done = send(service, tmp_path, "--chunk-size", "1K", "--resend", size=2001)
        assert (done.code, [event["code"] for event in done.of("file.failed")]) == (5, ["unauthorized"])
        done = send(service, tmp_path, "--chunk-size", "1K", "--token-command", "echo new", size=2001)
        assert done.code == 0, done.err
        assert len(service.uploads) == len(service.stored) == 2


@pytest.mark.parametrize(("status", "signed"), [(401, True), (401, False), (403, False)])
def test_unknown_outcome_has_the_reason_of_a_refusal_that_a_new_token_did_not_settle(
    status: int, signed: bool, tmp_path: Path
) -> None:
    """All bytes are there then: only a reading could tell, and the journal keeps the upload for it."""
    with Hooked(status, signed=signed, times=1) as service:
        done = send(service, tmp_path, "--token-command", "date +%N")
        (failed,) = done.of("file.failed")
        assert (done.code, failed["code"]) == (4, "outcome_unknown")
        assert "virus found" in failed["message"]
        resumed = uploader("resume", "--json", home=tmp_path, constants=QUICK)
        assert [event["code"] for event in resumed.of("file.failed")] == ["outcome_unknown"]
        assert len(service.uploads) == 1


@pytest.mark.parametrize("size", [100, 3000], ids=["first chunk", "later chunk"])
@pytest.mark.parametrize("status", [403, 405])
def test_refusal_of_a_patch_that_arrived_is_not_repeated_by_post(status: int, size: int, tmp_path: Path) -> None:
    """tuspyserver has no `Tus-Resumable` in refusals. Its reason would be lost in the conflict (409) of the POST."""
    with Hooked(status, signed=False) as service:
        done = send(service, tmp_path, "--chunk-size", "1K", "--retries", "0", size=size)
    (failed,) = done.of("file.failed")
    assert "virus found" in failed["message"]
    assert failed["code"] == ("unauthorized" if status == 403 else "server_refused")
    overridden = [headers for _, headers in service.requests if OVERRIDE in headers]
    assert len(overridden) == (size == 100)


@pytest.mark.parametrize(
    ("how", "size", "status"),
    [({}, 100, 403), ({"with_upload": True}, 100, 500), ({}, 200, 403), ({}, 0, 500)],
    ids=["last byte", "creation with all bytes", "joining", "empty file"],
)
@pytest.mark.feature("then")
def test_slow_finish_is_waited_for(how: dict[str, Any], size: int, status: int, tmp_path: Path) -> None:
    """It ends with a refusal, which a client that asks for the offset meanwhile would take for a success."""
    with Hooked(status, seconds=1.0, **how) as service:
        done = send(service, tmp_path, "--then", "delete", "--retries", "0", size=size, **IMPATIENT, **PARTS)
    (failed,) = done.of("file.failed")
    assert (done.code, failed["code"]) == ((4, "server_refused") if status == 403 else (3, "server_error"))
    assert "virus found" in failed["message"]
    assert not service.disturbed
    assert (tmp_path / "a.bin").exists()


def test_finish_timeout_ends_the_wait(tmp_path: Path) -> None:
    with Hooked(403, seconds=PATIENCE) as service:
        service.methods = "OPTIONS POST PATCH"  # type: ignore[misc]  # nothing settles the outcome
        done = send(service, tmp_path, "--finish-timeout", "0.5", "--retries", "0")
        service.decided.set()
    assert not done.of("file.completed")
    assert [event["code"] for event in done.of("file.failed")] == ["timeout"]


def test_interrupt_during_a_slow_finish_ends_within_two_seconds(tmp_path: Path) -> None:
    """The answer is lost then, and no later run says that the file is stored. Nothing more is asked."""
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(100))
    with Hooked(403, seconds=PATIENCE) as service:
        process = start("upload", path, "--tus-endpoint", service.url, "--json", home=tmp_path)
        read_until(process, "file.progress", lambda event: event["sent"] == 100)
        assert service.began.wait(PATIENCE)
        began, asked = time.monotonic(), len(service.requests)
        done = ended(process, "", signal.SIGINT)
        assert time.monotonic() - began < 2 * SLACK
        service.decided.set()
        assert (done.code, len(service.requests)) == (130, asked)
        for again in (("resume",), ("upload", path, "--tus-endpoint", service.url, "--skip-existing")):
            done = uploader(*again, "--json", home=tmp_path, constants=QUICK)
            assert (done.code, [event["code"] for event in done.of("file.failed")]) == (4, ["outcome_unknown"])
        assert not service.stored
