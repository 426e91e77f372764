"""tus 1.0, concatenation: hidden parts become one file."""

from __future__ import annotations

import asyncio
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest
import requests
from server.batches import UNKNOWN, new_session, progress
from server.tus.tus_client import (
    DEADLINE,
    ENDPOINT,
    TUS,
    append,
    concatenate,
    content,
    create,
    created,
    error,
    head,
    offset_of,
    part,
    terminate,
)
from serving import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server(max_size=5_000_000) as server:
        yield server


def visible(server: EmbeddedServer) -> set[str]:
    files = [path for path in server.root.rglob("*") if path.is_file() and ".uploader" not in path.parts]
    return {path.relative_to(server.root).as_posix() for path in files}


def test_parts_become_one_file_in_the_order_named(server: EmbeddedServer) -> None:
    """The paths of parts mean nothing."""
    pieces = [os.urandom(1_500_000), b"", os.urandom(7)]
    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(lambda piece: part(server.url, piece, relativePath="../part"), pieces))
    before = visible(server)
    whole = concatenate(server.url, *reversed(parts), filename="whole.bin")
    assert whole.status_code == 201
    data = b"".join(reversed(pieces))
    assert whole.headers["upload-offset"] == str(len(data))
    assert whole.headers["content-location"] == "/uploads/tus/whole.bin"
    assert content(urljoin(server.url, whole.headers["location"])) == data
    assert visible(server) - before == {"tus/whole.bin"}
    assert not list((server.root / ".uploader" / "tus").iterdir())


def test_freed_data_are_unlinked_off_the_event_loop(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that were joined, and the data of a file that was there already: only data with another name are fast."""
    unlink, freed = os.unlink, list[bool]()

    def record(path: str | os.PathLike[str], **how: int | None) -> None:
        if "/tus/" in os.fspath(path) and os.path.exists(path) and os.stat(path).st_nlink == 1:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop()
                freed.append(False)
                return unlink(path, **how)
            freed.append(True)
        return unlink(path, **how)

    monkeypatch.setattr(os, "unlink", record)
    pieces = [os.urandom(100_000), os.urandom(100_000)]
    parts = [part(server.url, piece) for piece in pieces]
    assert concatenate(server.url, *parts, filename="freed.bin").status_code == 201
    assert freed == [True, True]
    again = create(server.url, 200_000, b"".join(pieces), filename="freed.bin")
    assert again.headers["content-location"] == "/uploads/tus/freed.bin"
    assert freed == [True, True, True]


def test_parts_are_gone_afterwards(server: EmbeddedServer) -> None:
    parts = [part(server.url, b"ab"), part(server.url, b"cd")]
    assert concatenate(server.url, *parts).status_code == 201
    assert [head(upload).status_code for upload in parts] == [410, 410]
    assert concatenate(server.url, *parts).status_code == 410


def test_urls_may_be_absolute_or_paths(server: EmbeddedServer) -> None:
    parts = [part(server.url, b"ab"), part(server.url, b"cd").removeprefix(server.url)]
    parts.append(part(server.url, b"ef").replace(server.url, "https://front.example.org/behind/a/prefix"))
    whole = concatenate(server.url, *parts)
    assert whole.status_code == 201, whole.text
    assert content(urljoin(server.url, whole.headers["location"])) == b"abcdef"


def test_head_has_the_concat_header(server: EmbeddedServer) -> None:
    parts = [part(server.url, b"ab"), part(server.url, b"cd")]
    answer = head(parts[0])
    assert answer.headers["upload-concat"] == "partial"
    assert (answer.headers["upload-offset"], answer.headers["upload-length"]) == ("2", "2")
    assert "content-location" not in answer.headers
    whole = urljoin(server.url, concatenate(server.url, *parts).headers["location"])
    answer = head(whole)
    assert answer.headers["upload-concat"] == "final;" + " ".join(parts)
    assert (answer.headers["upload-offset"], answer.headers["upload-length"]) == ("4", "4")


def test_part_can_not_be_downloaded(server: EmbeddedServer) -> None:
    before = visible(server)
    upload = part(server.url, b"secret", filename="part.txt")
    assert requests.get(upload, timeout=DEADLINE).status_code == 404
    assert visible(server) == before


@pytest.mark.thorough
def test_unfinished_parts_are_refused_and_can_be_finished(server: EmbeddedServer) -> None:
    whole = part(server.url, b"ab")
    half = urljoin(server.url, create(server.url, 3, b"c", headers={"Upload-Concat": "partial"}).headers["location"])
    assert error(concatenate(server.url, whole, half)) == (400, "PART_UNFINISHED")
    assert append(half, 1, b"de").status_code == 204
    final = concatenate(server.url, whole, half)
    assert content(urljoin(server.url, final.headers["location"])) == b"abcde"


def test_only_parts_can_be_parts(server: EmbeddedServer) -> None:
    assert error(concatenate(server.url, created(server.url, 2, b"ab"))) == (400, "NOT_A_PART")
    assert concatenate(server.url, server.url + ENDPOINT + UNKNOWN).status_code == 404
    assert concatenate(server.url, "http://elsewhere.example.org/x").status_code == 400
    assert concatenate(server.url, "../" + ENDPOINT + "x").status_code == 400
    assert concatenate(server.url, "http://[" + ENDPOINT).status_code == 400
    assert concatenate(server.url).status_code == 400


def test_a_final_upload_takes_no_bytes(server: EmbeddedServer) -> None:
    whole = urljoin(server.url, concatenate(server.url, part(server.url, b"ab")).headers["location"])
    assert error(append(whole, 2, b"c")) == (403, "FINAL_UPLOAD")
    assert append(whole, 0, b"").status_code == 403
    refused = {**TUS, "Upload-Concat": "final;" + part(server.url, b"ab"), "Upload-Length": "2"}
    assert requests.post(server.url + ENDPOINT, headers=refused, timeout=DEADLINE).status_code == 400


def test_size_limit_applies_to_the_sum_of_parts(server: EmbeddedServer) -> None:
    parts = [part(server.url, bytes(3_000_000)), part(server.url, bytes(3_000_000))]
    assert error(concatenate(server.url, *parts)) == (413, "FILE_TOO_LARGE")
    assert [terminate(upload).status_code for upload in parts] == [204, 204]


def test_parts_may_have_a_deferred_length(server: EmbeddedServer) -> None:
    upload = urljoin(server.url, create(server.url, None, headers={"Upload-Concat": "partial"}).headers["location"])
    assert append(upload, 0, b"ab").status_code == 204
    assert append(upload, 2, b"cd", {"Upload-Length": "4"}).status_code == 204
    assert offset_of(upload) == 4
    whole = concatenate(server.url, upload)
    assert content(urljoin(server.url, whole.headers["location"])) == b"abcd"


def test_repeated_final_creation_returns_the_same_upload(server: EmbeddedServer) -> None:
    parts = [part(server.url, b"ab"), part(server.url, b"cd")]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: concatenate(server.url, *parts, uploadKey="final"), range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert {answer.headers["upload-offset"] for answer in answers} == {"4"}


def test_joined_upload_is_one_file_of_its_session(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    parts = [part(server.url, b"ab", sessionId=session), part(server.url, b"cd", sessionId=session)]
    known = progress(server.url, session).json()
    assert (known["overallStatus"], known["files"]) == ("uploading", [])
    whole = concatenate(server.url, *parts, sessionId=session, filename="f.txt", relativePath="top/f.txt")
    assert whole.headers["content-location"] == "/uploads/personal/top/f.txt"
    known = progress(server.url, session).json()
    assert (known["overallStatus"], known["completedFiles"], known["totalFiles"]) == ("completed", 1, 1)
    assert [file["id"] for file in known["files"]] == [whole.headers["upload-file-id"]]
