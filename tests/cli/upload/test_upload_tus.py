"""Each option of `uploader upload` for resumable uploads, by its effect on a real run."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from typing import TYPE_CHECKING

import pytest
from command import DISTANT, ended, read_confirmed, start, uploader
from proxy import Onlooker, Proxy, SpoiledBody
from serving import running_server
from time_limits import PATIENCE
from tus_services import Plain

from uploader_cli.sources import checksums
from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from proxy import Request

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

ENDPOINT = "/api/upload/files/"
BATCH = "/api/upload/batch"
KIB, MIB = 1 << 10, 1 << 20


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.thorough
def test_protocol_is_tus_where_offered_and_as_requested(
    server: EmbeddedServer, make_files: Files, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Tus where offered, batch where it is not or on request; requested tus that is not offered exits 2."""
    files = make_files(**{"a.mp4": 10})
    for options, protocol in (((), "tus"), (("--protocol", "tus"), "tus"), (("--protocol", "batch"), "batch")):
        with subtests.test(options=options, protocol=protocol):
            done = uploader("upload", files, "-s", server.url, *options, "--json", home=tmp_path)
            assert (done.code, done.events[0]["protocol"]) == (0, protocol)
    assert server.faults.count("POST", ENDPOINT) == 2
    assert server.faults.count("POST", BATCH) == 1
    with running_server(tus=False) as plain:
        done = uploader("upload", files, "-s", plain.url, "--json", home=tmp_path)
        assert (done.code, done.events[0]["protocol"]) == (0, "batch")
        calls = plain.faults.count("POST", "*")
        refused = uploader("upload", files, "-s", plain.url, "--protocol", "tus", home=tmp_path)
        assert refused.code == 2
        assert "offers no resumable uploads" in refused.err
        assert plain.faults.count("POST", "*") == calls


def test_session_without_the_offer_does_not_change_the_endpoint(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """As from a second server behind a balancer, or a proxy that removes fields: the run keeps what it has chosen."""
    server.faults.add("types:session:tus")
    files = make_files(**{f"{number}.mp4": os.urandom(MIB + number + 1) for number in range(3)})
    done = uploader("upload", files, "-s", server.url, "--jobs", "3", "--json", home=tmp_path)
    assert (done.code, done.events[0]["protocol"], done.finished["completed"]) == (0, "tus", 3), done.err
    assert server.faults.count("POST", ENDPOINT) == 3


@pytest.mark.thorough
@pytest.mark.parametrize(("options", "size"), [((), 5 * MIB), (("--chunk-size", "8M"), 8 * MIB)])
def test_chunk_after_a_lost_connection_is_smaller_unless_its_size_was_given(
    options: tuple[str, ...], size: int, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    server.faults.add("reset:patch#1:64K")
    one = ("-j", "1")  # a loaded machine answers slowly, and with several jobs a file is sent in parts then
    done = uploader("upload", make_files(a=14 * MIB), "-s", server.url, *one, *options, home=tmp_path)
    assert done.code == 0, done.err
    lost, *arrived = [request.received for request in server.faults.requests if request.method == "PATCH"]
    assert lost < MIB
    assert arrived[0] == size


def test_tus_endpoint_gets_all_files_without_session_and_socket(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """Files travel to the endpoint alone: no session, no socket. The bytes are there, and can be verified."""
    content = os.urandom(300 * KIB)
    files = make_files(**{"a.mp4": content, "deep/b.mp4": b"b"})
    endpoint = server.url + ENDPOINT
    options = ("--tus-endpoint", endpoint, "--chunk-size", "64K", "--verify", "--json")
    done = uploader("upload", files, *options, home=tmp_path)
    assert done.code == 0, done.err
    assert (done.events[0]["server"], done.events[0]["protocol"]) == (endpoint, "tus")
    assert {event["session"] for event in done.of("file.started")} == {""}
    assert done.of("session.created") == done.of("session.finished") == done.of("channel.changed") == []
    assert {event["path"]: event["checksum"] for event in done.of("file.completed")} == {
        str(files / "a.mp4"): sha256(content),
        str(files / "deep" / "b.mp4"): sha256(b"b"),
    }
    (stored,) = [path for path in server.root.rglob("a.mp4") if path.is_file()]
    assert stored.read_bytes() == content
    assert {entry.path.split("?")[0] for entry in server.faults.requests if entry.method == "POST"} == {ENDPOINT}
    assert server.faults.count("GET", "/health") == 0
    assert not [entry for entry in server.faults.requests if entry.path.startswith("/socket.io")]


@pytest.mark.parametrize("option", ["--category=scenic", "--protocol=batch", "--server=localhost:1"])
def test_tus_endpoint_excludes(option: str, server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """What makes no sense beside an endpoint is exit 2, and nothing is sent."""
    done = uploader("upload", make_files(a=1), "--tus-endpoint", server.url + ENDPOINT, option, home=tmp_path)
    assert done.code == 2
    assert "exclude each other" in done.err
    assert len(server.faults.requests) == 0


@pytest.mark.thorough
def test_jobs_limit_parallel_files(
    subtests: pytest.Subtests, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The number of parallel files: with 1 they are sequential, with 3 three overlap."""

    class Together(Onlooker):
        def head(self, request: Request) -> None:
            if request.headers.get("upload-offset") == str(192 * KIB):  # the last chunk
                together.wait(PATIENCE)

    files = make_files(**{f"{number}.mp4": 200 * KIB for number in range(3)})
    for jobs, at_once in (("1", 1), ("3", 3), ("auto", 3)):
        together = threading.Barrier(at_once)
        with subtests.test(jobs=jobs, at_once=at_once), Proxy(server.url, Together()) as proxy:
            options = ("-s", proxy.url, "--chunk-size", "64K", "--json")
            done = uploader("upload", files, *options, "-j", jobs, home=tmp_path)
            assert done.code == 0
            assert done.events[0]["jobs"] == {"auto": 4}.get(jobs, at_once)
            running = most = 0
            for event in done.events:
                running += {"file.started": 1, "file.completed": -1}.get(event["type"], 0)
                most = max(most, running)
            assert most == at_once


@pytest.mark.thorough
@pytest.mark.parametrize(("jobs", "size", "parts"), [("3", 15 * MIB, 3), ("auto", 25 * MIB, 5)])
def test_large_file_is_sent_in_parts_on_a_slow_round_trip(tmp_path: Path, jobs: str, size: int, parts: int) -> None:
    """From 10 MiB on, where workers would be idle: partial uploads side by side, which the server makes one file."""
    big = tmp_path / "big.mp4"
    big.write_bytes(os.urandom(size))
    constants = {**DISTANT, "uploader_cli.transfer.tus_state.QUEUED_PART": MIB}
    with running_server(latency_ms=30) as server, Proxy(server.url) as relay:
        done = uploader("upload", big, "-s", relay.url, "-j", jobs, "--json", home=tmp_path, constants=constants)
        concats = [
            request.headers.get("upload-concat", "") for request in relay.of("POST") if request.target == ENDPOINT
        ]
        assert relay.carried == size
        assert done.code == 0, done.err
        assert [concat.split(";")[0] for concat in concats] == ["partial"] * parts + ["final"]
        (completed,) = done.of("file.completed")
        assert completed["verified"] is True
        assert (server.root / "personal" / "big.mp4").read_bytes() == big.read_bytes()


@pytest.mark.thorough
def test_no_request_exceeds_chunk_size(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """No request carries more; a file that fits is one request; a server that finds it too large gets half."""
    files = make_files(**{"a.mp4": 250 * KIB, "b.mp4": 100 * KIB})
    with Proxy(server.url) as relay:
        options = ("-s", relay.url, "--chunk-size", "100K", "-j", "1")
        assert uploader("upload", files, *options, home=tmp_path).code == 0
        assert [request.passed // KIB for request in relay.of("PATCH")] == [100, 100, 50]
        assert [request.passed // KIB for request in relay.of("POST") if request.carries] == [100]
        relay.requests.clear()
        server.faults.next_answers("PATCH", "*", [413])
        assert uploader("upload", files / "a.mp4", *options, home=tmp_path).code == 0
        assert [request.passed // KIB for request in relay.of("PATCH")][1:] == [50] * 5
        assert uploader("upload", files, *options[:2], "--chunk-size", "1000", home=tmp_path).code == 2


@pytest.mark.thorough
def test_refused_chunk_size_is_remembered_until_a_larger_one_passes(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The next run starts with the accepted size; a number from the user is tried anyway, and lifts the limit."""
    files = make_files(**{f"{number}.mp4": 3 * MIB for number in range(4)})
    server.faults.next_answers("POST", ENDPOINT, [413])
    with Proxy(server.url) as relay:
        for number, options, carried in (
            (0, (), [1536, 1536]),
            (1, (), [1536, 1536]),
            (2, ("--chunk-size", "2M"), [2048, 1024]),
            (3, (), [3072]),
        ):
            relay.requests.clear()
            assert uploader("upload", files / f"{number}.mp4", "-s", relay.url, *options, home=tmp_path).code == 0
            refused = 1 if number == 0 else 0
            assert [request.passed // KIB for request in relay.requests if request.carries][refused:] == carried


@pytest.mark.thorough
def test_each_chunk_has_the_requested_checksum(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """The header of each chunk: CRC-32C by default, the requested one, or none; any other value exits 2."""
    content = os.urandom(150 * KIB)
    chunks = [content[: 100 * KIB], content[100 * KIB :]]
    files = make_files(**{"a.mp4": content})
    with Proxy(server.url) as relay:
        options = ("-s", relay.url, "--chunk-size", "100K")
        for wanted, name in (
            ("auto", "crc32c"),
            ("crc32c", "crc32c"),
            ("sha256", "sha256"),
            ("sha1", "sha1"),
            ("none", None),
        ):
            relay.requests.clear()
            assert uploader("upload", files, *options, "--checksum", wanted, home=tmp_path).code == 0
            digests = (
                [base64.b64encode(checksums.of(name, memoryview(chunk))).decode() for chunk in chunks] if name else []
            )
            sent = [request.headers.get("upload-checksum") for request in relay.of("PATCH")]
            assert sent == ([f"{name} {digest}" for digest in digests] if name else [None, None])
        relay.requests.clear()
        refused = uploader("upload", files, "-s", relay.url, "--checksum", "md5", home=tmp_path)
        assert refused.code == 2
        assert relay.carried == 0


def test_checksum_that_the_server_lacks_exits_2(make_files: Files, tmp_path: Path) -> None:
    """Exit 2 with the list of offered algorithms, before a byte is sent; `auto` sends none."""
    files = make_files(**{"a.mp4": 10})
    with Plain() as plain:
        refused = uploader("upload", files, "--tus-endpoint", plain.url, "--checksum", "sha1", home=tmp_path)
        assert refused.code == 2
        assert "does not support sha1" in refused.err
        assert uploader("upload", files, "--tus-endpoint", plain.url, home=tmp_path).code == 0


def test_corrupted_chunk_is_resent(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """The server refuses it by its checksum (460), the stream reports it, and the stored bytes are those read."""
    content = os.urandom(250 * KIB)
    files = make_files(**{"a.mp4": content})
    with Proxy(server.url) as relay:
        relay.onlooker = SpoiledBody()
        done = uploader("upload", files, "-s", relay.url, "--chunk-size", "100K", "--json", home=tmp_path)
        assert relay.carried == 350 * KIB
    assert done.code == 0
    assert 460 in [entry.status for entry in server.faults.requests]
    (retry,) = done.of("file.retry")
    assert retry["code"] == "integrity"
    assert done.of("file.completed")[0]["verified"] is True
    assert (server.root / "personal" / "files" / "a.mp4").read_bytes() == content


@pytest.mark.thorough
def test_verified_needs_a_checksum_for_every_byte(
    subtests: pytest.Subtests, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """Every byte in a chunk whose checksum was accepted, also over two runs; without checksums it is not."""
    files = make_files(**{"a.mp4": os.urandom(300 * KIB)})
    options = ("-s", server.url, "--chunk-size", "100K", "--json")
    (checked,) = uploader("upload", files, *options, home=tmp_path).of("file.completed")
    assert (checked["verified"], checked["verified_by"], "checksum" in checked) == (True, "crc32c", False)
    (unchecked,) = uploader("upload", files, *options, "--checksum", "none", home=tmp_path).of("file.completed")
    assert (unchecked["verified"], "verified_by" in unchecked, "checksum" in unchecked) == (False, False, False)
    for checksum, verified in (("auto", True), ("none", False)):
        with subtests.test(checksum=checksum, verified=verified):
            server.faults.next_answers("PATCH", "*", [None, 503])
            once = uploader("upload", files, *options, "--retries", "0", "--checksum", checksum, home=tmp_path)
            assert once.code == 3
            again = uploader("upload", files, *options, home=tmp_path)
            assert again.of("file.started")[0]["offset"] == 100 * KIB
            assert again.of("file.completed")[0]["verified"] is verified


@pytest.mark.thorough
def test_limit_rate_bounds_the_whole_run(
    subtests: pytest.Subtests, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The whole run takes as long as its bytes need, over several workers and in batch mode too; `none` lifts it."""
    files = make_files(**{f"{number}.mp4": 400 * KIB for number in range(3)})
    for protocol in ("tus", "batch"):
        with subtests.test(protocol=protocol):
            options = ("-s", server.url, "--protocol", protocol, "--chunk-size", "200K", "--json")
            done = uploader("upload", files, *options, "--limit-rate", "1200K", home=tmp_path)
            assert done.code == 0
            assert done.finished["seconds"] > 0.75  # of 1.0, with the credit of 0.2 s
            assert done.finished["rate"] < 1600 * KIB
            free = uploader("upload", files, *options, "--limit-rate", "none", home=tmp_path, UPLOADER_LIMIT_RATE="2K")
            assert free.code == 0
            assert free.finished["seconds"] < 300  # 600 s at the rate of the environment


@pytest.mark.thorough
def test_skip_existing_compares_size_and_digest_of_stored_files(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The server is asked for size and digest of the stored file, with and without receipts."""
    files = make_files(**{"a.mp4": 5000, "b.mp4": b"b" * 100})
    options = ("-s", server.url, "--skip-existing", "--json")
    assert uploader("upload", files, *options, home=tmp_path).finished["completed"] == 2

    second = uploader("upload", files, *options, home=tmp_path)
    assert second.code == 0
    assert [event["reason"] for event in second.of("file.skipped")] == ["present", "present"]
    (server.root / "personal" / "files" / "a.mp4").unlink()
    third = uploader("upload", files, *options, home=tmp_path)
    assert [event["path"] for event in third.of("file.completed")] == [str(files / "a.mp4")]

    (files / "b.mp4").write_bytes(b"c" * 100)  # of equal size
    (files / "new.mp4").write_bytes(b"new")
    elsewhere = tmp_path / "another machine"
    elsewhere.mkdir()
    by_digest = uploader("upload", files, *options, home=elsewhere)
    assert by_digest.code == 0
    assert [event["path"] for event in by_digest.of("file.skipped")] == [str(files / "a.mp4")]
    assert sorted(event["path"] for event in by_digest.of("file.completed")) == [
        str(files / "b.mp4"),
        str(files / "new.mp4"),
    ]
    assert by_digest.of("warning") == []


@pytest.mark.thorough
def test_skip_existing_sends_a_changed_file_of_unknown_digest(make_files: Files, tmp_path: Path) -> None:
    """A lookup computes no digests; sizes alone must not decide."""
    files = make_files(**{"a.mp4": os.urandom(200 * KIB), "b.mp4": os.urandom(200 * KIB)})
    with running_server(packs=True) as server:
        options = ("-s", server.url, "--no-pack", "--chunk-size", "64K", "--skip-existing", "--json")
        assert uploader("upload", files, *options, home=tmp_path).code == 0
        (files / "b.mp4").write_bytes(os.urandom(200 * KIB))
        elsewhere = tmp_path / "another machine"
        elsewhere.mkdir()
        again = uploader("upload", files, *options, home=elsewhere)
    assert [event["path"] for event in again.of("file.skipped")] == [str(files / "a.mp4")]
    assert [event["path"] for event in again.of("file.completed")] == [str(files / "b.mp4")]


@pytest.mark.thorough
def test_skip_existing_trusts_receipts_only_on_request(make_files: Files, tmp_path: Path) -> None:
    """Other servers are asked about the path in the receipt; an upload that a tus server forgot can't be looked up."""
    files = make_files(**{"a.mp4": 10, "b.mp4": 10})
    with running_server(flavour="reference", processing_seconds=0.01) as server, Plain() as plain:

        def again(*target: str) -> list[tuple[str, str]]:
            done = uploader("upload", files / "a.mp4", *target, "--skip-existing", "--json", home=tmp_path)
            assert done.code == 0
            return [(event["type"], event.get("reason", "")) for event in done.events if "file" in event][-1:]

        for target in (("-s", server.url), ("--tus-endpoint", plain.url)):
            assert uploader("upload", files, *target, "--json", home=tmp_path).code == 0
            assert again(*target) == [("file.skipped", "present")]
        plain.uploads.clear()
        assert again("--tus-endpoint", plain.url, "--trust-receipts") == [("file.skipped", "receipt")]
        assert again("--tus-endpoint", plain.url) == [("file.completed", "")]
        for stored in [path for path in server.root.rglob("*.mp4") if path.is_file()]:
            stored.unlink()
        assert again("-s", server.url) == [("file.completed", "")]


@pytest.mark.thorough
def test_verify_compares_digests_or_the_bytes_read_back(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """By the server's digest, or by the bytes read back: then the stream has the checksum."""
    content = os.urandom(200 * KIB)
    files = make_files(**{"a.mp4": content})
    options = ("--verify", "--checksum", "none", "--json")
    by_digest = uploader("upload", files, "-s", server.url, *options, home=tmp_path)
    assert by_digest.code == 0
    assert server.faults.count("HEAD", "/uploads/*") == 1
    assert server.faults.count("GET", "/uploads/*") == 0
    with running_server(flavour="reference", processing_seconds=0.01) as reference:
        read_back = uploader("upload", files, "-s", reference.url, "--verify", "--json", home=tmp_path)
        assert read_back.code == 0
        assert reference.faults.count("GET", "/uploads/*") == 1
    for done, by in ((by_digest, "digest"), (read_back, "bytes")):
        (completed,) = done.of("file.completed")
        assert (completed["verified"], completed["verified_by"], completed["checksum"]) == (True, by, sha256(content))


def test_verify_where_the_server_can_not_is_a_warning(make_files: Files, tmp_path: Path) -> None:
    """A warning, once, and the files count as uploaded, not as verified."""
    with Plain() as plain:
        options = ("--tus-endpoint", plain.url, "--verify", "--json")
        done = uploader("upload", make_files(**{"a.mp4": 10, "b.mp4": 10}), *options, home=tmp_path)
    assert done.code == 0
    assert [event["code"] for event in done.of("warning")] == ["unverifiable"]
    assert [event["verified"] for event in done.of("file.completed")] == [False, False]


@pytest.mark.parametrize("flavour", ["bundled", "reference"])
def test_a_stored_file_that_differs_fails(flavour: str, make_files: Files, tmp_path: Path) -> None:
    """Exit 7, by its digest or by its bytes, and the file is not called complete."""
    files = make_files(**{"a.mp4": 1000})
    with running_server(flavour=flavour, processing_seconds=0.01) as server:
        body = b"z" * 1000
        other = base64.b64encode(hashlib.sha256(body).digest()).decode()
        digest = {"repr-digest": f"sha-256=:{other}:"} if flavour == "bundled" else {}
        server.faults.next_answers("HEAD", "/uploads/*", [Answer(200, digest, when="after_body")])
        server.faults.next_answers("GET", "/uploads/*", [Answer(200, body=body, when="after_body")])
        done = uploader("upload", files, "-s", server.url, "--verify", "--json", home=tmp_path)
    assert (done.code, done.of("file.completed")) == (7, [])
    (failed,) = done.of("file.failed")
    assert (failed["code"], failed["retryable"]) == ("integrity", False)


@pytest.mark.parametrize("change", ["grows", "is rewritten", "shrinks"])
def test_a_file_that_changes_while_it_is_read_fails(
    change: str, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """Exit 4 as `changed`, never reported as complete and never stored; the other file is."""
    files = make_files(**{"a.mp4": 600 * KIB, "b.mp4": 10})
    options = ("-s", server.url, "--chunk-size", "100K", "--limit-rate", "60K", "--json")
    process = start("upload", files, *options, home=tmp_path)
    seen = read_confirmed(process, 100 * KIB)
    with (files / "a.mp4").open("r+b") as file:
        if change == "shrinks":
            file.truncate(150 * KIB)
        else:
            file.seek(0, os.SEEK_END if change == "grows" else os.SEEK_SET)
            file.write(b"more")
    done = ended(process, seen)
    assert done.code == 4
    assert [(event["path"], event["code"]) for event in done.of("file.failed")] == [(str(files / "a.mp4"), "changed")]
    assert [event["path"] for event in done.of("file.completed")] == [str(files / "b.mp4")]
    assert [path.name for path in (server.root / "personal").rglob("*.mp4")] == ["b.mp4"]
    assert "a.mp4" in done.err


def test_file_whose_bytes_are_sent_is_processed(make_files: Callable[..., Path], tmp_path: Path) -> None:
    """The phase begins with the last byte, and lasts until the server's answer."""
    with running_server(processing_seconds=0.5) as server:
        files = make_files(**{"a.mp4": 100_000})
        done = uploader("upload", files, "-s", server.url, "--no-pack", "--json", home=tmp_path)
    processed = [event for event in done.of("file.progress") if event["phase"] == "processing"]
    assert (done.code, processed[0]["sent"], processed[0]["confirmed"]) == (0, 100_000, 0)
