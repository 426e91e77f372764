"""`--protocol ietf`: the IETF's resumable uploads, to the bundled server and to another one."""

from __future__ import annotations

import hashlib
import os
import signal
from typing import TYPE_CHECKING

import pytest
from command import Done, ended, read_confirmed, start, uploader
from ietf_service import IetfService
from proxy import Onlooker, Proxy, Request
from scripted_server import Answer
from serving import running_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

KIB, MIB = 1 << 10, 1 << 20
ENDPOINT = "/api/upload/files/"


def send(service: IetfService, files: Path, home: Path, *more: str) -> Done:
    """Upload to the service, in chunks of 64 KiB and without a pause before a retry."""
    where = ("--tus-endpoint", service.url, "--chunk-size", "64K", "--protocol", "ietf")
    return uploader("upload", files, *where, "--json", *more, home=home)


@pytest.mark.parametrize("in_session", [True, False])
def test_files_are_stored_on_the_bundled_server(in_session: bool, make_files: Files, tmp_path: Path) -> None:
    """Without a request of tus or of a pack. A server at an endpoint may ignore digests: nothing is verified there."""
    content = os.urandom(3 * MIB)
    files = make_files(**{"a.bin": content, "sub/Grüße.txt": b"b", "empty.txt": b""})
    with running_server(packs=True) as server:
        to = ("-s", server.url) if in_session else ("--tus-endpoint", server.url + ENDPOINT)
        done = uploader("upload", files, *to, "--protocol", "ietf", "--chunk-size", "1M", "--json", home=tmp_path)
        assert (done.code, done.events[0]["protocol"]) == (0, "ietf"), done.err
        stored = {path.name: path.read_bytes() for path in server.root.rglob("*") if path.is_file()}
        assert (stored["a.bin"], stored["Grüße.txt"], stored["empty.txt"]) == (content, b"b", b"")
        assert server.faults.count("POST", "/api/upload/packs") == 0
    assert {event["verified"] for event in done.of("file.completed")} == {in_session}


@pytest.mark.thorough
def test_killed_run_resumes_at_the_servers_offset(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    files = make_files(a=os.urandom(4 * MIB))
    options = ("--tus-endpoint", server.url + ENDPOINT, "--protocol", "ietf", "--chunk-size", "256K", "--json")
    first = start("upload", files, *options, "--limit-rate", "400K", home=tmp_path)
    assert ended(first, read_confirmed(first, MIB), signal.SIGKILL).code == -signal.SIGKILL
    done = uploader("upload", files, *options, home=tmp_path)
    assert done.code == 0, done.err
    assert server.faults.count("POST", ENDPOINT) == 1
    sent = sum(request.received for request in server.faults.requests if request.method == "PATCH")
    assert 4 * MIB <= sent < 5 * MIB
    (stored,) = [path for path in (server.root / "tus").rglob("*") if path.is_file()]
    assert stored.read_bytes() == (files / "a").read_bytes()


def test_requests_are_those_of_the_draft(make_files: Files, tmp_path: Path) -> None:
    content = os.urandom(150 * KIB)
    with IetfService() as service:
        done = send(service, make_files(**{"ä.bin": content}), tmp_path, "--checksum", "sha256")
        assert done.code == 0, done.err
        (upload,) = service.uploads
        assert (bytes(upload.content), upload.chunks) == (content, [64 * KIB, 64 * KIB, 22 * KIB])
        assert upload.name == "inline; filename*=UTF-8''%C3%A4.bin"
        patches = service.sent("PATCH")
        assert [sent["upload-complete"] for sent in patches] == ["?0", "?0", "?1"]
        assert {sent["upload-length"] for sent in patches} == {str(len(content))}
        assert all(sent["content-digest"].startswith("sha-256=:") for sent in patches)
        assert {sent.get("upload-draft-interop-version") for _, sent in service.requests} == {"8"}
        assert not [sent for _, sent in service.requests if "tus-resumable" in sent]
    assert [event["verified"] for event in done.of("file.completed")] == [False]


def test_file_that_arrives_with_another_digest_than_its_list_has_is_refused(make_files: Files, tmp_path: Path) -> None:
    content, listed = os.urandom(100_000), tmp_path / "list.csv"
    files = make_files(**{"a.bin": content})
    listed.write_text(f"path,sha256\n{files / 'a.bin'},{hashlib.sha256(content).hexdigest()}\n")
    with running_server() as server:
        for onlooker, code, failures in ((Onlooker(), 0, []), (Falsifier(), 7, ["integrity"])):
            with Proxy(server.url, onlooker) as proxy:
                to = ("--tus-endpoint", proxy.url + ENDPOINT, "--protocol", "ietf", "--checksum", "none", "--json")
                done = uploader("upload", "--from-file", listed, *to, home=tmp_path)
                assert (done.code, [event["code"] for event in done.of("file.failed")]) == (code, failures), done.err
                assert proxy.of("POST")[0].headers["repr-digest"].startswith("sha-256=:")
        assert [path.read_bytes() for path in (server.root / "tus").iterdir()] == [content]


class Falsifier(Onlooker):
    """Changes a byte of each chunk."""

    def head(self, request: Request) -> None:
        """Ask for the first bytes of a chunk."""
        if request.method == "PATCH":
            request.mark = 1

    def at_mark(self, request: Request, piece: bytes) -> bytes:
        """Change the first one."""
        return bytes([piece[0] ^ 1]) + piece[1:]


def test_server_that_offers_nothing_of_tus_is_detected(make_files: Files, tmp_path: Path) -> None:
    with IetfService() as service:
        done = uploader("upload", make_files(a=10), "--tus-endpoint", service.url, "--json", home=tmp_path)
        assert (done.code, done.events[0]["protocol"]) == (0, "ietf"), done.err
        assert service.uploads[0].complete


@pytest.mark.parametrize("at_creation", [False, True])
def test_limits_of_the_server_are_kept(at_creation: bool, make_files: Files, tmp_path: Path) -> None:
    """Those of requests may be announced by the answer to a creation only."""
    size, chunks = 'max-size=100000;x="a,b", other=("c" ?1)', "min-append-size=1000, max-append-size=20000, max-age=60"
    with IetfService(size if at_creation else f"{size}, {chunks}") as service:
        service.at_creation = chunks if at_creation else ""
        done = send(service, make_files(large=100_001, small=50_000), tmp_path)
        assert done.code == 0, done.err
        assert [event["reason"] for event in done.of("file.skipped")] == ["size"]
        (upload,) = service.uploads
        assert len(upload.content) == 50_000
        assert max(upload.chunks) <= 20_000


def test_file_below_the_least_size_is_sent_with_its_creation(make_files: Files, tmp_path: Path) -> None:
    """The server has no upload of it."""
    with IetfService("min-size=1000") as service:
        service.least = 1000
        done = send(service, make_files(a=999, b=1000, c=0), tmp_path, "-j", "1", "--checksum", "sha256")
        assert done.code == 0, done.err
        empty, small, large = sorted(service.uploads, key=lambda upload: len(upload.content))
        assert (empty.length, len(small.content), small.chunks, large.chunks) == (0, 999, [], [1000])
        sent = [headers for headers in service.sent("POST") if headers["upload-complete"] == "?1"]
        assert [headers["content-digest"][:9] for headers in sent] == ["sha-256=:"]
    assert len(done.of("file.completed")) == 3


@pytest.mark.parametrize("resends", [False, True])
def test_file_without_an_upload_is_not_sent_again_if_its_answer_is_lost(
    resends: bool, make_files: Files, tmp_path: Path
) -> None:
    """It may be stored. With `--resend-unknown` each run sends it once more."""
    files, more = make_files(a=999), ["--resend-unknown"] * resends
    with IetfService("min-size=1000") as service:
        service.least, service.lost = 1000, 2
        runs = [send(service, files, tmp_path, *more) for _ in range(2)]
        assert [done.code for done in runs] == ([4, 0] if resends else [4, 4])
        assert {event["code"] for done in runs for event in done.of("file.failed")} == {"outcome_unknown"}
        assert len(service.uploads) == (3 if resends else 1)


def test_cut_request_continues_and_lost_answers_are_asked_for(make_files: Files, tmp_path: Path) -> None:
    """The bytes that can be read confirm the files: `HEAD` says only that they arrived."""
    content = os.urandom(100 * KIB)
    with IetfService() as service:
        service.kept, service.cuts, service.lost, service.readable = [5 * KIB], [10 * KIB], 2, True
        done = send(service, make_files(a=content, empty=0), tmp_path, "-j", "1")
        assert done.code == 0, done.err
        empty, upload = sorted(service.uploads, key=lambda upload: len(upload.content))
        assert bytes(upload.content) == content
        assert (upload.chunks, empty.chunks) == ([64 * KIB, 21 * KIB], [0])
        assert len(service.sent("HEAD")) >= 3


@pytest.mark.parametrize("runs", [1, 2])
def test_upload_whose_creation_broke_off_after_its_url_continues(runs: int, make_files: Files, tmp_path: Path) -> None:
    """By a retry, or by the next run: an interim answer (104) had the URL. One of another version has none."""
    files = make_files(a=100 * KIB)
    with IetfService() as service:
        service.broken_creations = 1
        codes = [send(service, files, tmp_path, "--retries", str(2 - runs)).code for _ in range(runs)]
        assert codes == [3, 0][-runs:]
        assert [upload.complete for upload in service.uploads] == [True]
        assert len(service.sent("POST")) == 1
    with IetfService() as service:
        service.broken_creations, service.interim_version = 1, 7
        assert send(service, files, tmp_path, "--retries", "1").code == 0
        assert [upload.complete for upload in service.uploads] == [False, True]


def test_refusal_after_the_url_of_an_upload_forgets_it_and_an_error_does_not(make_files: Files, tmp_path: Path) -> None:
    files = make_files(a=1000)
    with IetfService() as service:
        service.refusals = [400, 500]
        codes = [send(service, files, tmp_path, "--retries", "1").code for _ in range(2)]
        assert (codes, [upload.complete for upload in service.uploads]) == ([4, 0], [False, True])


def test_creation_that_announced_another_upload_is_an_error(make_files: Files, tmp_path: Path) -> None:
    """Both are deleted."""
    with IetfService() as service:
        service.moves = True
        done = send(service, make_files(a=10), tmp_path)
        assert (done.code, [event["code"] for event in done.of("file.failed")]) == (4, ["protocol"]), done.err
        assert [upload.gone for upload in service.uploads] == [True, True]


@pytest.mark.parametrize("resends", [False, True])
def test_file_is_of_unknown_outcome_if_its_last_answer_is_lost_and_its_upload_gone(
    resends: bool, make_files: Files, tmp_path: Path
) -> None:
    """A server may delete a complete upload."""
    files, more = make_files(a=1000), ["--resend-unknown"] * resends
    with IetfService() as service:
        service.forgets = service.lost = 1
        codes = [send(service, files, tmp_path, *more).code for _ in range(2 - resends)]
        assert (codes, len(service.uploads)) == (([0], 2) if resends else ([4, 4], 1))


@pytest.mark.parametrize("resends", [False, True])
def test_refused_end_of_an_upload_that_may_be_complete_is_of_unknown_outcome(
    resends: bool, make_files: Files, tmp_path: Path
) -> None:
    """`HEAD` does not tell completeness, and the answer to the end was lost."""
    files, more = make_files(a=1000), ["--resend-unknown"] * resends
    with IetfService() as service:
        service.terse, service.repeats, service.lost = True, False, 1
        runs = [send(service, files, tmp_path, *more) for _ in range(2 - resends)]
        assert [done.code for done in runs] == ([0] if resends else [4, 4])
        assert {event["code"] for done in runs for event in done.of("file.failed")} <= {"outcome_unknown"}
        assert [upload.complete for upload in service.uploads if not upload.gone] == [True]
        assert len(service.uploads) == 1 + resends


@pytest.mark.parametrize("arrived", [0, 90 * KIB, 100 * KIB])
def test_killed_run_leaves_the_outcome_unknown_only_after_the_last_bytes(
    arrived: int, make_files: Files, tmp_path: Path
) -> None:
    """The upload is gone when the next run asks for it: deleted because it was complete, or for another reason."""
    files = make_files(a=100 * KIB)
    with IetfService() as service:
        service.waits_at = arrived
        where = ("--tus-endpoint", service.url, "--chunk-size", "90K", "--protocol", "ietf", "--json")
        first = start("upload", files, *where, home=tmp_path)
        assert service.waits.wait(30.0)
        ended(first, "", signal.SIGKILL)
        service.goes_on.set()
        done = send(service, files, tmp_path)
        assert [event["code"] for event in done.of("file.failed")] == ["outcome_unknown"] * (arrived > 90 * KIB)
        assert len(service.uploads) == (1 if arrived > 90 * KIB else 2)


def test_file_of_unknown_outcome_is_sent_again_once_in_a_run(make_files: Files, tmp_path: Path) -> None:
    with IetfService() as service:
        service.forgets = service.lost = 4
        done = send(service, make_files(a=1000), tmp_path, "--resend-unknown")
        assert [event["code"] for event in done.of("file.failed")] == ["outcome_unknown"], done.err
        assert len(service.uploads) == 2


def test_upload_that_is_gone_is_sent_again(make_files: Files, tmp_path: Path) -> None:
    """So is one that the server ended early, where only HEAD tells that: the answer was lost."""
    content = os.urandom(100 * KIB)
    with IetfService() as service:
        service.forgets = 1
        assert send(service, make_files(a=content), tmp_path).code == 0
        assert [upload.gone for upload in service.uploads] == [True, False]
        assert bytes(service.uploads[1].content) == content
    with IetfService() as service:
        service.early = service.lost = 1
        assert send(service, make_files(a=content), tmp_path).code == 0
        assert [len(upload.content) for upload in service.uploads] == [64 * KIB, 100 * KIB]


@pytest.mark.parametrize("terse", [False, True])
def test_all_bytes_without_a_declared_end_are_not_a_stored_file(terse: bool, make_files: Files, tmp_path: Path) -> None:
    """The last request breaks off after its last byte: the end is declared by an empty one.

    So it is, once more, where `HEAD` tells the offset alone and the answer to the end was lost.
    """
    with IetfService() as service:
        service.cuts, service.terse, service.lost = [1000], terse, int(terse)
        done = send(service, make_files(a=1000), tmp_path)
        assert done.code == 0, done.err
        (upload,) = service.uploads
        assert (len(upload.content), upload.chunks, upload.complete) == (1000, [0], True)


def test_answers_without_the_state_are_followed_by_head(make_files: Files, tmp_path: Path) -> None:
    with IetfService() as service:
        service.silent = True
        done = send(service, make_files(a=100 * KIB, empty=0), tmp_path)
        assert done.code == 0, done.err
        assert [upload.complete for upload in service.uploads] == [True, True]
        assert len(service.sent("HEAD")) == 2


def test_server_that_never_says_complete_fails_the_files(make_files: Files, tmp_path: Path) -> None:
    """The end is declared once more, and then with each retry."""
    with IetfService() as service:
        service.never_complete = True
        done = send(service, make_files(a=1000, empty=0), tmp_path, "--retries", "1", "--deadline", "30s")
        assert (done.code, done.of("file.completed")) == (3, []), done.err
        failed = done.of("file.failed")
        assert {(event["code"], "not complete" in event["message"]) for event in failed} == {("server_error", True)}
        assert sorted(upload.chunks for upload in service.uploads) == [[0, 0], [1000, 0, 0]]


def test_impossible_limits_of_requests_are_an_error(tmp_path: Path) -> None:
    """A stream is not kept in memory as a whole, because a server takes only large requests."""
    for limits, said in (
        ("min-append-size=20000, max-append-size=10000", "no request can meet"),
        ("min-append-size=10000000000", "too large for the memory"),
    ):
        with IetfService(limits) as service, open("/dev/zero", "rb") as endless:
            options = ("--name", "in.bin", "--tus-endpoint", service.url, "--protocol", "ietf", "--deadline", "30s")
            done = uploader("upload", "-", *options, home=tmp_path, stdin=endless)
            assert (done.code != 0, said in done.err) == (True, True), done.err


@pytest.mark.parametrize(
    ("answer", "early", "said"),
    [
        pytest.param(Answer(422, {"title": "no picture"}, {"Upload-Complete": "?1"}), 0, "no picture", id="refused"),
        pytest.param(Answer(500, b"", {"Upload-Complete": "?1"}), 0, "500", id="failed"),
        pytest.param(None, 9, "the server ended the upload after 65,536 bytes", id="ended early"),
    ],
)
def test_complete_upload_that_was_not_processed_is_a_failed_file(
    answer: Answer | None, early: int, said: str, make_files: Files, tmp_path: Path
) -> None:
    with IetfService() as service:
        service.processed, service.early = answer, early
        done = send(service, make_files(a=100 * KIB), tmp_path, "--retries", "1", "--max-wait", "1")
        assert done.code != 0
        assert done.of("file.completed") == []
        assert said in done.of("file.failed")[0]["message"]


def test_upload_that_the_server_ends_at_its_creation_is_a_refused_file(make_files: Files, tmp_path: Path) -> None:
    """An empty file is stored then."""
    with IetfService() as service:
        service.ends_at_once = True
        done = send(service, make_files(a=100, empty=0), tmp_path)
        assert [method for method, _ in service.requests if method == "PATCH"] == []
    (failed,), (completed,) = done.of("file.failed"), done.of("file.completed")
    assert (done.code, failed["code"], completed["size"]) == (4, "server_refused", 0)
    assert failed["message"] == "the server ended the upload at its creation, with 0 bytes"


def test_standard_input_is_sent_without_a_length(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x" * 60_000)
    os.close(writer)
    with IetfService() as service, open(reader, "rb") as stream:
        options = ("--name", "in.bin", "--tus-endpoint", service.url, "--protocol", "ietf", "--chunk-size", "16K")
        done = uploader("upload", "-", *options, home=tmp_path, stdin=stream)
        assert done.code == 0, done.err
        (upload,) = service.uploads
        assert (upload.length, len(upload.content), upload.complete) == (60_000, 60_000, True)
        assert "upload-length" not in (created := service.sent("POST")[0])
        assert created["content-disposition"] == "inline; filename=\"in.bin\"; filename*=UTF-8''in.bin"
        assert service.sent("PATCH")[-1]["upload-length"] == "60000"
