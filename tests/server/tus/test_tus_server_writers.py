"""One writer per upload: cut bodies, stalled writers, takeovers, and scripted faults."""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import requests
from server.batches import eventually, new_session, progress
from server.tus.tus_client import (
    append,
    checksum,
    content,
    create,
    created,
    data_of,
    error,
    head,
    offset_of,
    patching,
    state_of,
    taken,
)
from serving import running_server
from time_limits import PATIENCE

from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """Its body timeout is longer than all limits of these tests."""
    with running_server(idle_timeout=10 * PATIENCE) as server:
        yield server


@pytest.mark.parametrize("size", [1, 50_000, 5_000_000])
def test_cut_body_keeps_the_received_bytes(server: EmbeddedServer, size: int) -> None:
    data = os.urandom(size + 100)
    upload = created(server.url, len(data))
    with patching(upload, 0, len(data)) as request:
        request.send(data[:size])
        taken(server, upload, size)
    assert offset_of(upload) == size
    assert append(upload, size, data[size:]).status_code == 204
    assert content(upload) == data


def test_connection_reset_keeps_the_received_bytes(server: EmbeddedServer) -> None:
    data = os.urandom(200_000)
    upload = created(server.url, len(data))
    with patching(upload, 0, len(data)) as request:
        request.send(data[:150_000])
        taken(server, upload, 150_000)
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert offset_of(upload) == 150_000
    append(upload, 150_000, data[150_000:])
    assert content(upload) == data


def test_a_head_ends_a_stalled_writer_at_once(server: EmbeddedServer) -> None:
    data = os.urandom(300_000)
    upload = created(server.url, len(data))
    with patching(upload, 0, len(data)) as request:
        request.send(data[:200_000])
        taken(server, upload, 200_000)
        assert offset_of(upload) == 200_000
        assert request.status() == 423
        assert offset_of(upload) == 200_000
    assert append(upload, 200_000, data[200_000:]).status_code == 204
    assert content(upload) == data


def test_a_new_patch_ends_a_stalled_writer_at_once(server: EmbeddedServer) -> None:
    upload = created(server.url, 6)
    with patching(upload, 0, 6) as request:
        request.send(b"abc")
        taken(server, upload, 3)
        assert append(upload, 3, b"def").status_code == 204
        assert request.status() == 423
    assert content(upload) == b"abcdef"


def test_repeated_creation_ends_a_stalled_writer(server: EmbeddedServer) -> None:
    upload = created(server.url, 6, uploadKey="stalled")
    with patching(upload, 0, 6) as request:
        request.send(b"abc")
        taken(server, upload, 3)
        again = create(server.url, 6, uploadKey="stalled")
        assert (again.status_code, again.headers["upload-offset"]) == (200, "3")
        assert request.status() == 423


def test_queued_writer_yields_to_a_later_request(server: EmbeddedServer) -> None:
    """With many requests for one upload, the last one is answered soon and no byte is lost."""
    data = os.urandom(100_000)
    upload = created(server.url, len(data))
    stalled = [patching(upload, 0, len(data)) for _ in range(6)]
    for request in stalled:
        request.send(data[:1000])
    offset = offset_of(upload)
    assert append(upload, offset, data[offset:]).status_code in {204, 423}
    for request in stalled:
        assert request.status() in {409, 423}
        request.connection.close()
    offset = offset_of(upload)
    if offset < len(data):
        assert append(upload, offset, data[offset:]).status_code == 204
    assert content(upload) == data


@pytest.mark.thorough
def test_concurrent_writers_never_mix_their_bytes(server: EmbeddedServer) -> None:
    data = os.urandom(400_000)
    upload = created(server.url, len(data))

    def write(_: int) -> None:
        while (offset := offset_of(upload)) < len(data):
            append(upload, offset, data[offset : offset + 50_000])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert content(upload) == data


def test_stalled_patch_ends_at_its_deadline_and_keeps_its_bytes() -> None:
    with running_server(idle_timeout=0.5) as server:

        def stalled() -> int:
            upload = created(server.url, 6)
            with patching(upload, 0, 6) as request, suppress(ConnectionError):
                request.send(b"abc")
                assert request.status() == 408
            return offset_of(upload)

        eventually(lambda: stalled() == 3, "bytes that arrive before the deadline")


def test_stalled_upload_does_not_delay_others(server: EmbeddedServer) -> None:
    """Other uploads continue while one is stalled."""
    stalled = created(server.url, 6)
    with patching(stalled, 0, 6) as request:
        request.send(b"abc")
        taken(server, stalled, 3)
        assert content(created(server.url, 3, b"abc")) == b"abc"
        assert state_of(server, stalled).writer is not None, "the stalled request has not ended"


def test_a_stop_ends_a_writer_and_keeps_what_it_sent() -> None:
    with running_server() as server:
        upload = created(server.url, 6)
        with patching(upload, 0, 6) as request:
            request.send(b"abc")
            taken(server, upload, 3)
            state = state_of(server, upload)
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            assert request.status() in {0, 503}
            stopping.join()
        assert state.offset == 3


# Faults


def test_a_lost_answer_is_found_by_head(server: EmbeddedServer) -> None:
    upload = created(server.url, 6)
    server.faults.next_answers("PATCH", "/api/upload/files/*", [Answer(when="after_store", close=True)])
    with pytest.raises(requests.ConnectionError):
        append(upload, 0, b"abc")
    assert offset_of(upload) == 3
    server.faults.next_answers("PATCH", "/api/upload/files/*", [Answer(502, when="after_store")])
    assert append(upload, 3, b"def").status_code == 502
    assert offset_of(upload) == 6
    assert content(upload) == b"abcdef"


def test_a_lost_answer_to_a_creation_is_found_by_its_key(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    server.faults.next_answers("POST", "/api/upload/files/", [Answer(when="after_store", close=True)])
    with pytest.raises(requests.ConnectionError):
        create(server.url, 3, b"abc", uploadKey="lost answer", sessionId=session, filename="lost answer.txt")
    again = create(server.url, 3, uploadKey="lost answer", sessionId=session, filename="lost answer.txt")
    assert (again.status_code, again.headers["upload-offset"]) == (200, "3")
    assert again.headers["content-location"] == "/uploads/personal/lost%20answer.txt"
    assert progress(server.url, session).json()["completedFiles"] == 1


def test_scripted_refusals_of_tus_calls(server: EmbeddedServer) -> None:
    upload = created(server.url, 3)
    limited = Answer(429, {"Retry-After": "1"})
    server.faults.next_answers("PATCH", "/api/upload/files/*", [503, limited, Answer(423, when="after_body")])
    assert [append(upload, 0, b"abc").status_code for _ in range(4)] == [503, 429, 423, 204]


@pytest.mark.parametrize("cut_at", [1, 65_536, 123_456])
def test_a_body_can_be_cut_on_demand(server: EmbeddedServer, cut_at: int) -> None:
    data = os.urandom(200_000)
    upload = created(server.url, len(data))
    server.faults.add(f"cut:patch#1-2:{cut_at}")
    with pytest.raises(requests.ConnectionError):
        append(upload, 0, data, checksum(data))
    assert offset_of(upload) == 0
    with pytest.raises(requests.ConnectionError):
        append(upload, 0, data)
    assert offset_of(upload) == cut_at
    assert append(upload, cut_at, data[cut_at:]).status_code == 204
    assert content(upload) == data


def test_a_body_can_be_stalled_on_demand(server: EmbeddedServer) -> None:
    data = os.urandom(200_000)
    upload = created(server.url, len(data))
    server.faults.add("stall:patch#1:in,seconds=0.3,at=150000")
    began = time.monotonic()
    assert append(upload, 0, data).status_code == 204
    assert time.monotonic() - began >= 0.3
    assert content(upload) == data


def test_full_disk_is_507_and_keeps_the_offset(server: EmbeddedServer) -> None:
    upload = created(server.url, 3_000_000)
    state_of(server, upload)  # the data file becomes one that can't be written
    path = data_of(server.root, upload)
    path.unlink()
    path.symlink_to("/dev/full")
    answer = append(upload, 0, bytes(2_500_000))
    assert error(answer) == (507, "DISK_FULL")
    assert head(upload).headers["upload-offset"] == "0"
    path.unlink()
    path.touch()
    assert append(upload, 0, bytes(3_000_000)).status_code == 204
