"""Servers that finish an upload after its last byte, and fail then: what counts as stored (docs/tus-servers.md)."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command import Done, start, uploader
from scripted_server import Answer, Peer, Request, ScriptedServer
from time_limits import PATIENCE
from tus_services import FIRST, OF_TUS, Finishing, Overtaken, Service, Sharing, Spoiling

if TYPE_CHECKING:
    from collections.abc import Iterator

TERMS = "uploader_cli.transfer.tus_state"
QUICK = {"uploader_cli.transfer.pacer.FIRST_DELAY": 0.0, "uploader_cli.transfer.pacer.JITTER": 0.0}
PARTS = {f"{TERMS}.FAR": -1.0, f"{TERMS}.LARGE_AND_FAR": 200, f"{TERMS}.LEAST_PART": 100}
"""Files of 200 bytes are sent in two parts."""
FAULTS = {
    "5xx of the server": "fail",
    "4xx of the server": "refuse",
    "502 of a gateway": "gateway",
    "lost answer": "lose",
    "no answer in time": "hang",
}
REQUESTS = {
    "last byte": (100, {}),
    "creation with all bytes": (100, {"with_upload": True}),
    "part": (200, {"of_parts": True}),
    "joining": (200, {}),
    "empty file": (0, {}),
}
"""The size of the file, and the server."""


def told(done: Done) -> tuple[list[str], int]:
    """Return the events of the only file, as the table has them, and the exit code."""
    words = {
        "file.retry": lambda event: f"retry {event['code']}",
        "file.failed": lambda event: f"failed {event['code']}",
        "file.completed": lambda _event: "completed",
        "warning": lambda event: f"warning {event['code']}",
    }
    events = [words[event["type"]](event) for event in done.events if event["type"] in words]
    retries = sum(word.startswith("retry") for word in events)
    assert len(done.of("file.started")) == retries + 1, "each attempt is reported"
    return events, done.code


def table() -> Iterator[tuple[str, str, list[tuple[list[str], int] | None]]]:
    """Yield finish, request, and events with the exit code of each column."""
    page = Path(__file__).with_name("tus_outcomes.md").read_text(encoding="utf-8")
    rows = page.partition("| finish | request |")[2].splitlines()[2:]
    finish = ""
    for row in rows:
        first, requests, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        finish = first or finish
        columns = [(re.findall("`([^`]+)`", cell), int(cell.split()[-1])) if cell else None for cell in cells]
        for request in requests.split(", "):
            yield finish, request, columns


def send(
    service: Service, home: Path, *more: str, size: int = 100, hangs: bool = False, command: str = "upload", **env: str
) -> Done:
    """Send a file, a small one with its creation; with `hangs` no answer to its end is waited for long."""
    path = home / "a.bin"
    if not path.exists():
        path.write_bytes((FIRST + bytes(size))[:size])
    asked = (path, "--tus-endpoint", service.url, "--retries", "1", "-j", "2") if command == "upload" else ()
    limits = ("--finish-timeout", "1.5") if hangs else ()
    how: dict[str, Any] = {"constants": {**QUICK, **PARTS}, "UPLOADER_BYTES_AT_CREATION": "yes", **env}
    return uploader(command, *asked, *limits, "--json", *more, home=home, **how)


def test_table_has_every_finish_with_every_request() -> None:
    rows = [(finish, request) for finish, request, _ in table()]
    assert sorted(rows) == sorted((finish, request) for finish in FAULTS for request in REQUESTS)


def is_plain(finish: str, request: str) -> bool:
    """Whether the plain run has the case: each request, and each finish, at least once."""
    return finish == "lost answer" or request == "joining"


@pytest.mark.parametrize(
    ("finish", "request_", "columns"),
    [
        pytest.param(*row, id=f"{row[0]}-{row[1]}", marks=[pytest.mark.thorough] * (not is_plain(*row[:2])))
        for row in table()
    ],
)
def test_finish_ends_as_the_page_says(
    finish: str, request_: str, columns: list[tuple[list[str], int] | None], tmp_path: Path
) -> None:
    """The first run, the same command again, `resume`, and `--verify`; what is completed is stored, and once."""
    (size, how), fault = REQUESTS[request_], FAULTS[finish]
    hangs = fault == "hang"
    first, again, resume = columns
    assert first is not None
    homes = [tmp_path / name for name in ("plain", "verify")]
    with Finishing(fault, **how) as service:
        for home in homes:
            home.mkdir()
        assert told(send(service, homes[0], size=size, hangs=hangs)) == first
        assert bool(service.stored) == (fault not in ("fail", "refuse") and (request_ != "part" or first[1] == 0))
        if again is not None:
            assert told(send(service, homes[0], size=size, hangs=hangs)) == again
        verified = told(send(service, homes[1], "--verify", size=size, hangs=hangs))
        warned = ["warning unverifiable"] if first[0][-1] == "completed" else []
        assert verified == ([*first[0][:-1], *warned, first[0][-1]], first[1])
        before, service.fault = len(service.stored), ""
        if resume is not None:
            assert told(send(service, homes[0], command="resume")) == resume
            assert len(service.stored) - before == (resume[0] == ["completed"])
    content = (homes[0] / "a.bin").read_bytes()
    assert all(stored == content for stored in service.stored)


def test_failed_finish_names_the_servers_reason(tmp_path: Path) -> None:
    with Finishing("fail") as service:
        done = send(service, tmp_path, "--retries", "3")
    (failed,) = done.of("file.failed")
    assert failed["message"].startswith("all bytes arrived, and the server did not store the file: ")
    assert "the object store is down" in failed["message"]
    assert failed["retryable"] is True


@pytest.mark.thorough
@pytest.mark.parametrize(("request_", "left"), [("last byte", 1), ("part", 1), ("empty file", 1)])
def test_replaced_uploads_are_deleted_once_the_file_is_stored(request_: str, left: int, tmp_path: Path) -> None:
    """Also those of an earlier run; none before that."""
    size, how = REQUESTS[request_]
    with Finishing("fail", **how) as service:
        assert send(service, tmp_path, size=size).code == 3
        assert send(service, tmp_path, size=size).code == 3
        assert not any(method == "DELETE" for method, _ in service.requests)
        service.fault = ""
        assert send(service, tmp_path, size=size).code == 0
        assert len(service.uploads) == left


@pytest.mark.parametrize(("failures", "left", "warned"), [(1, 1, 0), (2, 2, 1), (-1, 3, 2)])
def test_deletion_of_a_replaced_upload_is_repeated(failures: int, left: int, warned: int, tmp_path: Path) -> None:
    """It would stay for good, beside the file. -1: it is refused."""

    class Undeleted(Finishing):
        failed = 0

        def _delete(self, request: Any) -> Any:
            if self.failed == failures:
                return super()._delete(request)
            self.failed += 1
            return Answer(403 if failures < 0 else 500, headers=OF_TUS)

    with Undeleted("fail") as service:
        assert send(service, tmp_path).code == 3
        service.fault = ""
        done = send(service, tmp_path)
        assert done.code == 0
        assert len(service.uploads) == left
    warnings = [event["text"] for event in done.of("warning") if event["code"] == "may_be_stored"]
    assert len(warnings) == warned
    assert all(service.url in text and "a.bin: " in text for text in warnings)


@pytest.mark.parametrize(("fault", "code"), [("gateway", "server_error"), ("lose", "network")])
@pytest.mark.parametrize("verify", [False, True])
def test_last_byte_that_can_be_read_confirms_the_file(fault: str, code: str, verify: bool, tmp_path: Path) -> None:
    """It is not verified, unless all bytes are read (`--verify`), which no warning denies."""
    with Finishing(fault) as service:
        service.readable = True
        done = send(service, tmp_path, *["--verify"] * verify)
        assert told(done) == ([f"retry {code}", "warning unconfirmed", "completed"], 0)
        assert [event["verified"] for event in done.of("file.completed")] == [verify]
        assert "not verified" not in "".join(event["text"] for event in done.of("warning"))
    assert len(service.stored) == 1


INCOMPLETE = Answer(400, b"ERR_INCOMPLETE_UPLOAD: cannot stream non-finished upload\n")


@pytest.mark.parametrize(
    ("answer", "knows", "name", "stored"),
    [
        (INCOMPLETE, "nothing", "a.bin", True),
        (Answer(500), "nothing", "a.bin", False),
        pytest.param(Answer(500), "preset", "a.bin", True, marks=pytest.mark.feature("presets")),
        (Answer(500), "confirmed file", "a.bin", True),
        (Answer(404), "confirmed file", "a.bin", True),
        (Answer(403), "confirmed file", "a.bin", False),
        (Answer(404), "confirmed file", "é.bin", False),
        (Answer(404), "file that can't be read", "a.bin", False),
    ],
)
def test_server_killed_before_it_stored_the_file(
    answer: Answer, knows: str, name: str, stored: bool, tmp_path: Path
) -> None:
    """It has the full offset. The file is sent again only where reading says that it is not stored."""

    class Dying(Finishing):
        died = False

        def fault_of(self, upload: Any) -> str:
            dies, self.died = not self.died and upload.content == content, self.died or upload.content == content
            return "die" if dies else ""

    content = FIRST + bytes(100)
    files = tmp_path / "files"
    files.mkdir()
    if knows not in ("nothing", "preset"):
        (files / "0.bin").write_bytes(bytes(50))
    (files / name).write_bytes(content)
    more = ("--preset", "tus-node-server") if knows == "preset" else ()
    with Dying() as service:
        service.readable, service.unreadable = knows != "file that can't be read", answer
        line = (files, "--tus-endpoint", service.url, "--retries", "1", "-j", "1", "--json", *more)
        runs = [uploader("upload", *line, home=tmp_path, constants=QUICK) for _ in range(1 if stored else 2)]
    assert [done.code for done in runs] == ([0] if stored else [4, 4])
    failures = [event["code"] for done in runs for event in done.of("file.failed")]
    assert failures == ([] if stored else ["outcome_unknown"] * 2)
    assert service.stored.count(content) == stored


@pytest.mark.parametrize("size", [100, 0, 200], ids=["last byte", "empty file", "joining"])
def test_client_killed_before_the_answer_to_the_last_byte_confirms_nothing(size: int, tmp_path: Path) -> None:
    """The server is killed at the same time; HEAD has the full offset."""
    (tmp_path / "a.bin").write_bytes((FIRST + bytes(size))[:size])
    with Finishing("hang") as service:
        line = ("upload", tmp_path / "a.bin", "--tus-endpoint", service.url, "-j", "2")
        process = start(*line, home=tmp_path, constants=PARTS)
        assert service.arrived.wait(PATIENCE)
        process.kill()
        process.wait()
        service.fault = ""
        done = send(service, tmp_path, size=size)
        assert told(done) == (["failed outcome_unknown"], 4)
        assert told(send(service, tmp_path, "--verify", size=size)) == (["failed outcome_unknown"], 4)
        skipped = told(send(service, tmp_path, "--skip-existing", size=size))
        assert skipped == (["warning receipts_only", "failed outcome_unknown"], 4)


@pytest.mark.parametrize(
    ("fault", "readable", "code"), [("gateway", True, 0), ("lose", True, 0), ("gateway", False, 4)]
)
def test_conflict_after_an_unknown_end_stores_the_file_once(
    fault: str, readable: bool, code: int, tmp_path: Path
) -> None:
    """Another process of the server sees the bytes of the first request too late for HEAD, and in time for PATCH."""

    class Late(Finishing):
        conflicts = 0

        def _patch(self, request: Any) -> Any:
            answer = super()._patch(request)
            self.conflicts += answer.status == 409
            return answer

        def _head(self, request: Any) -> Any:
            answer = super()._head(request)
            return answer if self.conflicts else replace(answer, headers={**answer.headers, "Upload-Offset": 0})

    with Late(fault) as service:
        service.readable = readable
        done = send(service, tmp_path, "--retries", "3")
    assert service.conflicts == 1
    assert done.code == code
    assert len(done.of("file.completed")) == (not code)
    assert len(service.stored) == len(service.uploads) == 1


def test_bytes_in_a_coding_that_was_not_asked_for_are_not_compared(tmp_path: Path) -> None:
    """So some servers give out files whose names end with .gz."""
    with Finishing() as service:
        service.readable = service.codes = True
        assert told(send(service, tmp_path, "--verify")) == (["warning unverifiable", "completed"], 0)


@pytest.mark.parametrize("fault", ["lose", "die"])
def test_empty_file_whose_answer_was_lost_is_read(fault: str, tmp_path: Path) -> None:
    """The request is not repeated: some servers answer it without storing the file."""
    with Finishing(fault) as service:
        service.readable = True
        done = send(service, tmp_path, size=0)
    stored = ["retry network", "warning unconfirmed", "completed"]
    assert told(done) == ((stored, 0) if fault == "lose" else (["retry network", "failed outcome_unknown"], 4))
    assert [event["verified"] for event in done.of("file.completed")] == [False] * (fault == "lose")


def test_other_bytes_after_the_error_of_a_gateway_exit_7(tmp_path: Path) -> None:
    class Spoiling(Finishing):
        def finish(self, upload: Any) -> None:
            upload.content[:] = bytes(100)
            super().finish(upload)

    with Spoiling("gateway") as service:
        service.readable = True
        ends = (["retry server_error", "warning unconfirmed", "failed integrity"], 7)
        assert told(send(service, tmp_path, "--verify")) == ends


@pytest.mark.thorough
@pytest.mark.parametrize("request_", ["last byte", "joining"])
def test_resend_unknown_sends_the_file_again(request_: str, tmp_path: Path) -> None:
    size, how = REQUESTS[request_]
    with Finishing("gateway", **how) as service:
        assert send(service, tmp_path, size=size).code == 4
        stored = len(service.stored)
        done = send(service, tmp_path, "--resend-unknown", command="resume")
        assert told(done) == (["retry server_error", "failed outcome_unknown"], 4)
        assert len(service.stored) > stored
        service.fault = ""
        done = send(service, tmp_path, "--resend-unknown", command="resume")
    assert told(done) == (["completed"], 0)


@pytest.mark.thorough
@pytest.mark.parametrize(("fault", "reason"), [("fail", "the object store is down"), ("refuse", "virus found")])
def test_upload_url_whose_finish_failed_is_never_confirmed(fault: str, reason: str, tmp_path: Path) -> None:
    """An upload that a service created can't be made anew: exit code 4, also for the next run and without resuming."""
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(100))
    with Finishing(fault) as service:
        url = service.existing(100)
        command = ("upload", path, "--upload-url", url, "--retries", "1", "--json")
        done = uploader(*command, home=tmp_path, constants=QUICK)
        assert done.code == 4
        assert reason in done.of("file.failed")[0]["message"]
        service.fault = ""
        for again in (command, (*command, "--no-resume")):
            done = uploader(*again, home=tmp_path, constants=QUICK)
            assert done.code == 4, again
            assert "ask the service for a new upload URL" in done.of("file.failed")[0]["message"]
        assert uploader("resume", "--json", home=tmp_path).code == 2, "resuming can't help"
    assert not service.stored


def test_stream_whose_finish_failed_names_the_reason(subtests: pytest.Subtests, tmp_path: Path) -> None:
    """Standard input that is still in memory is sent again; else the file fails."""

    class Deferring(Finishing):
        extensions = "creation,creation-defer-length,termination"

    for size, code in ((100, 3), (3000, 4)):
        with subtests.test(size=size, code=code):
            reader, writer = os.pipe()
            os.write(writer, bytes(size))
            os.close(writer)
            with Deferring("fail") as service, open(reader, "rb") as source:
                asked = (
                    "--name",
                    "x.bin",
                    "--tus-endpoint",
                    service.url,
                    "--chunk-size",
                    "1K",
                    "--retries",
                    "1",
                    "--json",
                )
                done = uploader("upload", "-", *asked, home=tmp_path, stdin=source, constants=QUICK)
            assert done.code == code
            (failed,) = done.of("file.failed")
            assert "the object store is down" in failed["message"]
            assert len(service.uploads) == (2 if code == 3 else 1)


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [(404, b"", 0), (405, b"", 0), (409, b"", 0), (410, b"", 0), (403, b"Upload already completed", 0), (403, b"", 5)],
)
def test_server_that_takes_no_empty_patch(
    status: int, reason: bytes, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have stored the empty file at its creation, unless it refuses the file: that is read, and told."""
    monkeypatch.setattr(Service, "lock_status", status)
    monkeypatch.setattr(Service, "lock_reason", reason)
    with Service() as service:
        service.locked = 1
        done = send(service, tmp_path, size=0)
    reads = [] if code else ["GET"]
    assert [method for method, _ in service.requests] == ["OPTIONS", "POST", "PATCH", *reads]
    assert told(done) == ((["failed unauthorized"] if code else ["warning unconfirmed", "completed"]), code)
    assert [event["verified"] for event in done.of("file.completed")] == ([False] if code == 0 else [])


class Knowing(Finishing):
    """Answers what would store a file with 200, and with an upload that it may have had before, as @uploadx/core."""

    def _post(self, request: Request) -> Answer:
        answer = super()._post(request)
        is_end = request.headers.get("upload-concat", "").startswith("final") or request.headers["upload-length"] == "0"
        return replace(answer, status=200) if is_end else answer


def test_empty_file_whose_creation_made_no_new_upload_is_not_confirmed(tmp_path: Path) -> None:
    with Knowing() as service:
        done = send(service, tmp_path, size=0, UPLOADER_EMPTY_AT_CREATION="yes")
    assert told(done) == (["warning unconfirmed", "completed"], 0), done.err
    assert [method for method, _ in service.requests] == ["OPTIONS", "POST"]
    assert [event["verified"] for event in done.of("file.completed")] == [False]


def test_join_that_made_no_new_upload_is_unknown(tmp_path: Path) -> None:
    with Knowing() as service:
        done = send(service, tmp_path, size=REQUESTS["joining"][0])
    assert told(done) == (["failed outcome_unknown"], 4), done.err


@pytest.mark.parametrize(
    "resumed", [pytest.param(False, id="retried"), pytest.param(True, id="resumed", marks=pytest.mark.thorough)]
)
@pytest.mark.parametrize(
    ("spoils", "readable", "code", "by"),
    [(True, True, 7, None), (False, True, 0, "bytes"), (True, False, 0, None)],
    ids=["spoiled", "right", "unreadable"],
)
def test_file_that_continued_after_a_break_is_compared(
    spoils: bool, readable: bool, code: int, by: str | None, resumed: bool, tmp_path: Path
) -> None:
    """A server that can't be read confirms it, and nothing says that it is verified."""
    (tmp_path / "a.bin").write_bytes(FIRST + bytes(5000))
    (tmp_path / "b.bin").write_bytes(FIRST)
    with Spoiling(spoils=spoils, readable=readable) as service:
        options = ("--tus-endpoint", service.url, "--chunk-size", "1K", "--json")
        done = uploader(
            "upload", "a.bin", *options, "--retries", "0" if resumed else "1", home=tmp_path, constants=QUICK
        )
        if resumed:
            assert done.code == 3
            done = uploader("resume", "--json", home=tmp_path)
        asked = [method for method, _ in service.requests]
        assert uploader("upload", "b.bin", *options, home=tmp_path).code == 0
        unbroken = [method for method, _ in service.requests][len(asked) :]
    assert done.code == code, done.err
    assert [event["code"] for event in done.of("file.failed")] == (["integrity"] if code else [])
    told = [(event["verified"], event.get("verified_by")) for event in done.of("file.completed")]
    assert told == ([] if code else [(by is not None, by)])
    assert not done.of("warning")
    assert asked.count("GET") == 1
    assert set(unbroken) == {"OPTIONS", "POST", "PATCH"}


def test_upload_that_somebody_else_wrote_to_is_sent_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(5000))
    with Service() as service:
        command = ("upload", path, "--tus-endpoint", service.url, "--chunk-size", "1K", "--retries", "0", "--json")
        service.receive = lambda upload, *_: setattr(service, "locked", int(len(upload.content) >= 2048))
        assert uploader(*command, home=tmp_path).code == 3
        service.receive, service.locked = (lambda *_: None), 0
        service.only.content += b"foreign bytes" * 200
        done = uploader("resume", "--json", home=tmp_path)
        assert (done.code, [event["code"] for event in done.of("warning")]) == (0, ["foreign_bytes"]), done.err
        (text,) = [event["text"] for event in done.of("warning")]
        assert "somebody else writes to it; it is sent again from the beginning" in text
    contents = [bytes(upload.content) for upload in service.uploads.values()]
    assert len(contents) == 2
    assert contents[1] == path.read_bytes()


@pytest.mark.parametrize("readable", [True, False])
@pytest.mark.parametrize("fault", ["gateway", "lose"])
def test_lost_creation_that_another_server_knows_is_no_conflict(fault: str, readable: bool, tmp_path: Path) -> None:
    """All bytes may have arrived with it: the offset is asked for, and the file is read."""
    with Sharing(fault, with_upload=True) as service:
        service.readable = readable
        done = send(service, tmp_path)
        methods = [method for method, _ in service.requests]
    code = {"gateway": "server_error", "lose": "network"}[fault]
    end = ["warning unconfirmed", "completed"] if readable else ["failed outcome_unknown"]
    assert told(done) == ([f"retry {code}", *end], 0 if readable else 4), done.err
    assert (len(service.stored), len(service.uploads), methods.count("PATCH")) == (1, 1, 0)


def test_creation_that_the_server_failed_to_finish_is_made_anew_with_another_key(tmp_path: Path) -> None:
    """By its key the server would find the upload that it does not finish any more."""
    with Sharing("fail", with_upload=True) as service:
        done = send(service, tmp_path)
        assert told(done) == (["retry server_error", "completed"], 0), done.err
    assert len(service.stored) == 1


@pytest.mark.parametrize(("at", "warned"), [(0, []), (64 << 10, ["warning unconfirmed"])], ids=["first", "last"])
def test_conflict_with_bytes_that_another_server_was_storing_is_outlasted(
    at: int, warned: list[str], tmp_path: Path
) -> None:
    """A gateway's 502, then 409: the upload continues at the offset, and its end is read."""
    with Overtaken(at) as service:
        done = send(service, tmp_path, "--chunk-size", "64K", "--retries", "2", size=100 << 10)
    assert told(done) == (["retry server_error", "retry server_refused", *warned, "completed"], 0), done.err
    assert service.stored == [(tmp_path / "a.bin").read_bytes()]


@pytest.mark.parametrize(("kept", "code"), [("same", 0), ("other", 7), (None, 4)])
@pytest.mark.parametrize("says", [True, False], ids=["offset", "no offset"])
def test_success_before_all_bytes_were_sent_confirms_nothing(
    says: bool, kept: str | None, code: int, tmp_path: Path
) -> None:
    """A server that answers so has another file, or none: it is read and compared."""
    content = os.urandom(4 << 20)
    (tmp_path / "a.bin").write_bytes(content)
    there = content if kept == "same" else bytes(len(content))
    offset: dict[str, str] = {"Upload-Offset": str(len(content))}

    def early(peer: Peer) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                line, headers = peer.head()
                method = line.partition(" ")[0]
                if method == "POST":
                    peer.answer(201, Location="/files/u", **OF_TUS, **(offset if says else {}))
                    peer.sock.shutdown(socket.SHUT_WR)
                    return
                if method == "OPTIONS":
                    peer.answer(204, **OF_TUS, **{"Tus-Version": "1.0.0", "Tus-Extension": "creation-with-upload"})
                elif method == "HEAD":
                    peer.answer(200, **OF_TUS, **offset, **{"Upload-Length": str(len(content))})
                elif kept is None:
                    peer.answer(404)
                else:
                    start = int(headers.get("range", "bytes=0-")[6:-1])
                    size = len(content)
                    ranged = {"Content-Range": f"bytes {start}-{size - 1}/{size}"} if start else {}
                    peer.answer(206 if start else 200, there[start:], **ranged)

    with ScriptedServer(early, buffer=4096) as server:
        done = uploader("upload", "a.bin", "--tus-endpoint", f"{server.url}/files/", "--json", home=tmp_path)
    assert done.code == code, done.err
    assert len(done.of("file.completed")) == (code == 0)


def test_upload_that_is_gone_after_a_lost_end_is_sent_once_more_with_a_warning(tmp_path: Path) -> None:
    """As where a hook stores the file elsewhere and deletes the upload."""
    with Finishing("lose") as service:
        service.forgets = True
        done = send(service, tmp_path, "--retries", "3")
    ends = ["retry network", "warning may_be_stored"]
    assert told(done) == ([*ends, "retry network", "failed outcome_unknown"], 4), done.err
    assert len(service.stored) == 2


def test_joined_file_whose_upload_is_gone_is_completed(tmp_path: Path) -> None:
    """The success of the join says so, also without an offset, which tus does not ask for."""
    with Finishing() as service:
        service.forgets, service.silent = True, {"POST"}
        done = send(service, tmp_path, size=200)
    assert told(done) == (["completed"], 0), done.err
    assert [len(content) for content in service.stored] == [200]
