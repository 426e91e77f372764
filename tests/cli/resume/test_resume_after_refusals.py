"""A partial upload is kept after every answer that is not about the file itself, and every failed run."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import trustme
from command import ended, read_confirmed, start, uploader
from proxy import tls_front
from serving import running_server

from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

ANY = "/api/upload/files/*"
KIB = 1 << 10
CHUNK = 64 * KIB
OPTIONS = ("--chunk-size", "64K", "--retries", "0", "--json")

ANSWERS = (
    Answer(401),
    Answer(403),
    Answer(200, {"Content-Type": "text/html"}, b"<html>log in</html>"),
    Answer(302, {"Location": "https://login.example/"}),
    Answer(404, {"Content-Type": "text/html"}, b"<html>not found</html>"),
)
"""An expired token, a refusal, a captive portal, a redirect to one, and a redeploy."""


def leave_partial(server: EmbeddedServer, files: Path, home: Path, last: int | Answer = 503) -> int:
    """Upload one chunk of the first file; `last` answers the next one. Return the exit code."""
    server.faults.next_answers("PATCH", ANY, [None, last])
    return uploader("upload", files, "-s", server.url, *OPTIONS, "-j", "1", home=home).code


@pytest.mark.thorough
def test_resume_after_401_in_the_middle_keeps_offset(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    files = make_files(**{"a.mp4": os.urandom(300 * KIB), "b.mp4": 10})
    assert leave_partial(server, files, tmp_path, 401) == 5
    done = uploader("resume", "--json", home=tmp_path)
    assert done.code == 0
    assert done.of("file.started")[0]["offset"] == CHUNK
    assert (server.root / "personal" / "files" / "a.mp4").read_bytes() == (files / "a.mp4").read_bytes()


@pytest.mark.thorough
def test_resume_after_failed_resumes_keeps_offset(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    files = make_files(**{"a.mp4": os.urandom(300 * KIB)})
    assert leave_partial(server, files, tmp_path) == 3
    for answer in ANSWERS:
        server.faults.next_answers("POST", ANY, [answer])
        assert uploader("resume", "--retries", "0", "--json", home=tmp_path).of("file.failed")
    done = uploader("resume", "--json", home=tmp_path)
    assert done.code == 0
    assert done.of("file.started")[0]["offset"] == CHUNK
    assert server.faults.count("PATCH", ANY) == 2 + 4, "no chunk is sent twice"


def test_second_client_with_a_bad_token_keeps_the_uploads_of_a_live_run(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    files = make_files(**{"a.mp4": os.urandom(640 * KIB)})
    options = ("--tus-endpoint", server.url + "/api/upload/files/", "--chunk-size", "64K", "--json")
    process = start("upload", files, *options, "--limit-rate", "40K", home=tmp_path)
    seen = read_confirmed(process, CHUNK)
    process.send_signal(signal.SIGSTOP)
    server.faults.next_answers("OPTIONS", ANY, [401])
    second = uploader("upload", files / "a.mp4", *options, home=tmp_path)
    assert second.code == 3
    assert [event["code"] for event in second.of("file.failed")] == ["in_use"]
    assert ended(process, seen, signal.SIGKILL).code == -signal.SIGKILL
    done = uploader("upload", files, *options, home=tmp_path)
    assert done.code == 0, done.err
    assert done.of("file.started")[0]["offset"] >= CHUNK


@pytest.mark.thorough
def test_resume_names_the_ca_bundle_of_the_run_and_uses_that_of_its_call(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    files = make_files(**{"a.mp4": os.urandom(300 * KIB)})
    with tls_front(server.url, authority) as url:
        server.faults.next_answers("PATCH", ANY, [None, 503])
        first = uploader("upload", files, "-s", url, "--ca-bundle", "ca.pem", *OPTIONS, home=tmp_path)
        assert first.code == 3
        assert f"uploader resume --ca-bundle {tmp_path / 'ca.pem'}" in first.err
        assert uploader("resume", home=tmp_path).code == 6
        done = uploader("resume", "--ca-bundle", "ca.pem", "--json", home=tmp_path)
    assert done.code == 0, done.err
    assert done.of("file.started")[0]["offset"] == CHUNK


@pytest.mark.thorough
def test_same_command_without_its_ca_bundle_keeps_the_upload(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    files = make_files(**{"a.mp4": os.urandom(300 * KIB)})
    with tls_front(server.url, authority) as url:
        command = ("upload", files, "-s", url, *OPTIONS)
        server.faults.next_answers("PATCH", ANY, [None, 503])
        assert uploader(*command, "--ca-bundle", "ca.pem", home=tmp_path).code == 3
        assert uploader(*command, home=tmp_path).code == 6
        done = uploader(*command, "--ca-bundle", "ca.pem", home=tmp_path)
    assert done.code == 0, done.err
    assert done.of("file.started")[0]["offset"] == CHUNK


@pytest.mark.thorough
def test_same_command_after_one_changed_file_sends_that_file_alone(make_files: Files, tmp_path: Path) -> None:
    """On the reference backend, which stores each resent file again."""
    files = make_files(**{"a.mp4": 10, "b.mp4": 10, "z.mp4": 600 * KIB})
    with running_server(flavour="reference", processing_seconds=0.01) as server:
        options = ("-s", server.url, "--json")
        process = start("upload", files, *options, "--limit-rate", "40K", home=tmp_path)
        seen = ""
        assert process.stdout is not None
        for line in process.stdout:
            seen += line
            if '"phase":"sending"' in line.replace(" ", "") and "z.mp4" not in line:
                break
        with (files / "z.mp4").open("ab") as grown:
            grown.write(b"more")
        done = ended(process, seen)
        assert done.code == 4
        assert {event["path"] for event in done.of("file.completed")} == {str(files / "a.mp4"), str(files / "b.mp4")}
        again = uploader("upload", files, *options, home=tmp_path)
        assert again.code == 0
        assert [event["path"] for event in again.of("file.completed")] == [str(files / "z.mp4")]
        names = sorted(path.name.rpartition("_")[2] for path in server.root.rglob("*.mp4"))
    assert names == ["a.mp4", "b.mp4", "z.mp4"]
