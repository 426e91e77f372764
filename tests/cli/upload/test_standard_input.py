"""`upload -`: standard input, whose length is unknown and which can't be read again."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, ClassVar

import pytest
from command import finish, start, uploader
from feature_samples import of
from serving import running_server
from tus_services import KIB, Plain, Tusd, Upload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command import Done

    from uploader_server.serving import EmbeddedServer

CHUNK = 64 * KIB


@pytest.fixture(scope="module")
def bundled() -> Iterator[EmbeddedServer]:
    with running_server() as server:
        yield server


@contextmanager
def pipe(data: bytes, *, ends: bool = True) -> Iterator[int]:
    """Yield the reading end of a pipe that gets `data`, and, if it `ends`, its end."""
    reader, writer = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), open(writer, "wb", closefd=ends) as stream:
            stream.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield reader
    finally:
        os.close(reader)
        thread.join()
        if not ends:
            os.close(writer)


def send(data: bytes, *arguments: str | Path, home: Path, name: str = "in.bin", **env: str) -> Done:
    options = ("--name", name, "--chunk-size", "64k", "--json")
    with pipe(data) as reader:
        return uploader("upload", "-", *options, *arguments, home=home, stdin=reader, **env)


@pytest.mark.parametrize("size", [0, 5, CHUNK, 2 * CHUNK, 2 * CHUNK + 1000])
def test_standard_input_is_stored_under_its_name(size: int, bundled: EmbeddedServer, tmp_path: Path) -> None:
    """Also if it is empty, or ends with a chunk."""
    data, name = os.urandom(size), f"deep/{size}.bin"
    done = send(data, "-s", bundled.url, home=tmp_path, name=name)
    assert done.code == 0, done.err
    assert (bundled.root / "personal" / name).read_bytes() == data
    assert done.events[0]["bytes"] is None
    (started,), (completed,) = done.of("file.started"), done.of("file.completed")
    assert (started["path"], started["size"]) == (name, None if size > CHUNK else size)
    assert (completed["size"], completed["verified"]) == (size, True)
    assert done.finished["bytes"] == size


@pytest.mark.thorough
def test_failed_chunk_of_standard_input_is_sent_again(tmp_path: Path) -> None:
    """The last chunk is in memory until the server has it: also a part of it, and also where the answer is lost."""
    data = os.urandom(5 * CHUNK)
    faults = ("status:patch#1:503", "cut:patch#3:40000", "status:patch#5:503,when=work")
    with running_server(faults=faults) as server:
        done = send(data, "-s", server.url, home=tmp_path, name="again.bin")
        assert done.code == 0, done.err
        assert (server.root / "personal" / "again.bin").read_bytes() == data
    assert len(done.of("file.retry")) == len(faults)


def test_verify_compares_with_what_was_read(bundled: EmbeddedServer, tmp_path: Path) -> None:
    data = os.urandom(3 * CHUNK)
    done = send(data, "-s", bundled.url, "--verify", "--checksum", "none", home=tmp_path, name="verified.bin")
    assert done.code == 0, done.err
    assert done.of("file.completed")[0]["checksum"] == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_foreign_server_gets_the_length_once(tmp_path: Path) -> None:
    data = os.urandom(2 * CHUNK + 1)
    with Tusd() as service:
        done = send(data, "--tus-endpoint", service.url, home=tmp_path)
    assert (done.code, service.refusals) == (0, []), done.err
    assert (service.only.content, service.only.chunks) == (data, [CHUNK, CHUNK, 1])
    lengths = [headers.get("upload-length") for method, headers in service.requests if method == "PATCH"]
    assert lengths == [None, None, str(len(data))]


class Forgetful(Tusd):
    """A server that loses the upload after its second chunk."""

    losses: ClassVar[int] = 1

    def receive(self, upload: Upload, size: int, headers: dict[str, str]) -> None:
        if len(upload.chunks) == 2:
            self.uploads.clear()


def test_lost_upload_of_standard_input_fails_and_says_why(tmp_path: Path) -> None:
    with Forgetful() as service:
        done = send(os.urandom(5 * CHUNK), "--tus-endpoint", service.url, home=tmp_path)
    assert done.code == 4, done.err
    assert "what was sent of it is lost, and it can't be read again" in done.of("file.failed")[0]["message"]


def test_server_without_deferred_length_exits_2_and_gets_nothing(tmp_path: Path) -> None:
    with Plain() as plain:
        done = send(b"bytes", "--tus-endpoint", plain.url, home=tmp_path)
        assert (done.code, plain.uploads) == (2, {})
    assert "the server takes no file of unknown length (tus extension creation-defer-length)" in done.err
    with running_server(tus=False) as server:
        assert send(b"bytes", "-s", server.url, home=tmp_path).code == 2
        assert not list(server.root.rglob("in.bin"))


def test_standard_input_beyond_the_limit_of_the_server_exits_4(tmp_path: Path) -> None:
    with running_server(max_size=2 * CHUNK) as server:
        done = send(os.urandom(2 * CHUNK + 1), "-s", server.url, home=tmp_path)
        assert done.code == 4
        assert send(os.urandom(2 * CHUNK), "-s", server.url, home=tmp_path).code == 0
    assert f"exceeds the server's limit of {2 * CHUNK} bytes" in done.of("file.failed")[0]["message"]


@pytest.mark.thorough
def test_redirected_file_has_a_length(tmp_path: Path) -> None:
    """From the position of the descriptor on, also in batch mode, with retries and `--skip-existing`."""
    source = tmp_path / "source"
    source.write_bytes(b"12" + b"x" * CHUNK)
    with running_server(tus=False, faults=("status:batch#1:503",)) as server, source.open("rb") as stream:
        os.lseek(stream.fileno(), 2, os.SEEK_SET)
        command = ("upload", "-", "--name", "rest.bin", "-s", server.url, "--json")
        done = uploader(*command, home=tmp_path, stdin=stream)
        assert done.code == 0, done.err
        assert (server.root / "personal" / "rest.bin").read_bytes() == b"x" * CHUNK
        os.lseek(stream.fileno(), 2, os.SEEK_SET)
        again = uploader(*command, "--skip-existing", home=tmp_path, stdin=stream)
    assert (done.events[0]["bytes"], again.finished["skipped"]) == (CHUNK, 1)


def test_interrupt_ends_the_wait_for_input_and_nothing_is_resumed(server: EmbeddedServer, tmp_path: Path) -> None:
    with pipe(b"x" * 3 * CHUNK, ends=False) as reader:
        command = ("upload", "-", "--name", "waits.bin", "-s", server.url, "--chunk-size", "64k")
        process = start(*command, home=tmp_path, stdin=reader)
        while not any(entry.method == "PATCH" for entry in server.faults.requests):
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        done = finish(process)
    assert done.code == 130
    assert "uploader resume" not in done.err
    assert "no interrupted run to resume" in uploader("resume", home=tmp_path).err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-",), "--name NAME"),
        (("-", "a", "--name", "x"), "- excludes other PATHs"),
        (("-", "--name", "../x"), "--name: name must be a relative path"),
        (("a", "--name", "x"), "--name names standard input"),
        (("-", "--name", "x", "--skip-existing"), "--skip-existing and - exclude each other"),
        (("-", "--name", "x", "--min-size", "3"), "--min-size and - exclude each other"),
        (("-", "--name", "x", "--failed-to", "f.csv"), "--failed-to and - exclude each other"),
        (("-", "--name", "x", "--upload-url", "http://localhost:1/u"), "--upload-url and - exclude each other"),
        of("plan", ("-", "--name", "x", "--dry-run"), "--dry-run does not read -"),
        (("-", "--name", "x", "--protocol", "batch"), "the length of - is unknown"),
        (("-", "--name", "x", "--metadata", "size={size}", "--tus-endpoint", "localhost:1"), "{size} of - is unknown"),
    ],
)
def test_useless_options_exit_2(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    server = () if {"--tus-endpoint", "--upload-url"} & set(arguments) else ("-s", "localhost:1")
    with pipe(b"bytes") as reader:
        done = uploader("upload", *arguments, *server, home=tmp_path, stdin=reader)
    assert (done.code, done.err.count("error:")) == (2, 1)
    assert said in done.err


def test_terminal_is_no_standard_input_to_send(tmp_path: Path) -> None:
    """The live view reads its keys from there."""
    program, terminal = os.openpty()
    done = uploader("upload", "-", "--name", "x", "-s", "localhost:1", home=tmp_path, stdin=terminal)
    os.close(program)
    os.close(terminal)
    assert done.code == 2
    assert "-: standard input is closed, or a terminal" in done.err
