"""Parts that are written in place (docs/extensions.md): ranges of one file, joined without a copy."""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest
import requests
from server.batches import eventually, new_session, progress
from server.tus.tus_client import (
    DEADLINE,
    ENDPOINT,
    TUS,
    append,
    checksum,
    concatenate,
    content,
    create,
    data_of,
    error,
    file_id,
    head,
    metadata,
    offset_of,
    part,
    patching,
    terminate,
)
from server_clock import ServerClock
from serving import inside, running_server, server_process

from uploader_server.auth import issue_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

PARTIAL = {"Upload-Concat": "partial"}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server(max_size=50_000_000) as server:
        yield server


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A `finalKey` of this test."""
    return str(request.node.name)


def data_files(root: Path) -> list[Path]:
    return list((root / ".uploader" / "tus").iterdir())


def claim(
    url: str,
    key: str,
    total: int,
    start: int,
    length: int | None,
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    **fields: str,
) -> requests.Response:
    """Create a part of the `total` bytes that the upload with `key` will have."""
    place = {"finalKey": key, "finalLength": str(total), "partOffset": str(start)}
    return create(url, length, data, headers={**PARTIAL, **(headers or {})}, **place, **fields)


def claimed(url: str, key: str, total: int, start: int, length: int | None, data: bytes | None = None) -> str:
    """The URL of a new part."""
    answer = claim(url, key, total, start, length, data)
    assert answer.status_code == 201, answer.text
    return urljoin(url, answer.headers["location"])


@pytest.mark.thorough
def test_parts_that_arrive_in_any_order_are_joined_without_a_copy(server: EmbeddedServer, key: str) -> None:
    data = os.urandom(10_000_001)
    ranges = [(7_000_000, 10_000_001), (0, 3_000_000), (3_000_000, 7_000_000)]
    with ThreadPoolExecutor(3) as pool:
        urls = list(pool.map(lambda r: claimed(server.url, key, len(data), r[0], r[1] - r[0]), ranges))
        answers = list(pool.map(lambda url, r: append(url, 0, data[slice(*r)]), urls, ranges))
    assert [answer.status_code for answer in answers] == [204] * 3
    (shared,) = data_files(server.root)
    inode = shared.stat().st_ino
    whole = concatenate(server.url, urls[1], urls[2], urls[0], uploadKey=key, filename="in place.bin")
    assert (whole.status_code, whole.headers["upload-offset"]) == (201, str(len(data)))
    stored = server.root / "tus" / "in place.bin"
    assert stored.stat().st_ino == inode
    assert stored.read_bytes() == content(urljoin(server.url, whole.headers["location"])) == data
    assert [head(url).status_code for url in urls] == [410] * 3
    assert not data_files(server.root)
    again = concatenate(server.url, urls[1], urls[2], urls[0], uploadKey=key, filename="in place.bin")
    assert (again.status_code, again.headers["location"]) == (200, whole.headers["location"])
    assert concatenate(server.url, *urls, uploadKey="another").status_code == 410


@pytest.mark.parametrize(
    ("total", "start", "length"), [(100, 39, 10), (100, 59, 1), (100, 0, 100), (100, 95, 6), (100, 101, 0), (99, 0, 10)]
)
def test_a_range_that_is_taken_or_impossible_is_a_409(
    server: EmbeddedServer, key: str, total: int, start: int, length: int
) -> None:
    taken = claimed(server.url, key, 100, 40, 20)
    assert error(claim(server.url, key, total, start, length, bytes(length))) == (409, "RANGE_CONFLICT")
    beside = [claimed(server.url, key, 100, 0, 40), claimed(server.url, key, 100, 60, 40)]
    assert [terminate(url).status_code for url in (taken, *beside)] == [204] * 3
    assert not data_files(server.root)


def test_metadata_of_a_place_come_all_or_not_at_all(
    subtests: pytest.Subtests, server: EmbeddedServer, key: str
) -> None:
    for fields in ({"finalKey": key}, {"finalKey": key, "finalLength": "5", "partOffset": "x"}, {"partOffset": "0"}):
        with subtests.test(fields=fields):
            assert error(create(server.url, 5, headers=PARTIAL, **fields)) == (400, "INVALID_METADATA")
    assert error(claim(server.url, key, 50_000_001, 0, 1)) == (413, "FILE_TOO_LARGE")


def test_owners_have_separate_files(server: EmbeddedServer, key: str) -> None:
    token = {"Authorization": f"Bearer {issue_token(server.config.jwt_secret)}"}
    mine = [claimed(server.url, key, 4, 0, 2, b"ab"), claimed(server.url, key, 4, 2, 2, b"cd")]
    theirs = claim(server.url, key, 4, 0, 4, b"WXYZ", token)
    assert theirs.status_code == 201
    final = {**TUS, **token, "Upload-Concat": "final;" + " ".join(mine), "Upload-Metadata": metadata(uploadKey=key)}
    refused = requests.post(server.url + ENDPOINT, headers=final, timeout=DEADLINE)
    assert error(refused) == (400, "PARTS_NOT_IN_ORDER")
    whole = concatenate(server.url, *mine, uploadKey=key)
    assert content(urljoin(server.url, whole.headers["location"])) == b"abcd"
    assert terminate(urljoin(server.url, theirs.headers["location"])).status_code == 204


def test_a_wrong_final_upload_is_refused_and_the_parts_stay(
    subtests: pytest.Subtests, server: EmbeddedServer, key: str
) -> None:
    first, second = claimed(server.url, key, 6, 0, 2, b"ab"), claimed(server.url, key, 6, 2, 2, b"cd")
    other = part(server.url, b"ef")
    assert error(concatenate(server.url, first, second, uploadKey=key)) == (400, "PARTS_NOT_IN_ORDER")  # not all
    third = claimed(server.url, key, 6, 4, 2, b"e")
    assert error(concatenate(server.url, first, second, third, uploadKey=key)) == (400, "PART_UNFINISHED")
    assert append(third, 1, b"f").status_code == 204
    for urls, name in [
        ((second, first, third), key),
        ((first, second, other), key),
        ((first, second, third), "another"),
    ]:
        with subtests.test(urls=urls, name=name):
            assert error(concatenate(server.url, *urls, uploadKey=name)) == (400, "PARTS_NOT_IN_ORDER")
    whole = concatenate(server.url, first, second, third, uploadKey=key)
    assert content(urljoin(server.url, whole.headers["location"])) == b"abcdef"
    assert terminate(other).status_code == 204


def test_a_part_of_deferred_length_can_be_split_later(server: EmbeddedServer, key: str) -> None:
    whole = claimed(server.url, key, 10, 0, None)
    assert error(claim(server.url, key, 10, 0, 6)) == (409, "RANGE_CONFLICT")  # its first byte will come
    assert append(whole, 0, b"abcd").status_code == 204
    assert error(claim(server.url, key, 10, 3, 7)) == (409, "RANGE_CONFLICT")
    with patching(whole, 4, 6):
        pass  # it breaks off: what was announced is free again
    assert offset_of(whole) == 4
    with patching(whole, 4, 1):
        eventually(lambda: inside(server).backend.tus.known.get(whole.rpartition("/")[2]).claimed == 5)
        rest = claimed(server.url, key, 10, 6, 4, b"ghij")
    assert append(whole, 4, b"efX").status_code == 413
    assert append(whole, 4, iter([b"efX"])).status_code == 413  # chunked: the server learns the length by reading
    assert error(append(whole, 4, b"ef", {"Upload-Length": "7"})) == (400, "INVALID_HEADER")
    assert append(whole, 4, b"ef", {"Upload-Length": "6"}).status_code == 204
    final = concatenate(server.url, whole, rest, uploadKey=key)
    assert content(urljoin(server.url, final.headers["location"])) == b"abcdefghij"


@pytest.mark.parametrize("length", [4, None], ids=["length", "chunked"])
def test_a_part_of_deferred_length_may_be_the_whole(server: EmbeddedServer, key: str, length: int | None) -> None:
    whole = claimed(server.url, key, 4, 0, None)
    with patching(whole, 0, length) as request:
        request.send(b"ab")
        eventually(lambda: inside(server).backend.tus.known.get(whole.rpartition("/")[2]).claimed == 4)
        assert error(claim(server.url, key, 4, 2, 2)) == (409, "RANGE_CONFLICT")  # it is on its way
        request.send(b"cd")
        if length is None:
            request.finish()
        assert request.status() == 204
    assert append(whole, 4, b"", {"Upload-Length": "4"}).status_code == 204
    final = concatenate(server.url, whole, uploadKey=key)
    assert content(urljoin(server.url, final.headers["location"])) == b"abcd"


def test_a_terminated_part_frees_its_range_and_the_last_one_the_file(server: EmbeddedServer, key: str) -> None:
    first, second = claimed(server.url, key, 6, 0, 3, b"abc"), claimed(server.url, key, 6, 3, 3, b"XY")
    assert terminate(second).status_code == 204
    assert len(data_files(server.root)) == 1
    third = claimed(server.url, key, 6, 3, 3, b"def")
    assert terminate(first).status_code == 204
    first = claimed(server.url, key, 6, 0, 3, b"ABC")
    final = concatenate(server.url, first, third, uploadKey=key)
    assert content(urljoin(server.url, final.headers["location"])) == b"ABCdef"
    assert terminate(claimed(server.url, key, 3, 0, 3, b"ab")).status_code == 204
    assert not data_files(server.root)


def test_expired_parts_free_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerClock(monkeypatch)
    with running_server() as server:
        urls = [claimed(server.url, "old", 6, 0, 3, b"abc"), claimed(server.url, "old", 6, 3, 3, b"d")]
        clock.ahead += server.config.upload_ttl + 1
        eventually(lambda: not data_files(server.root), "the sweep")
        assert [head(url).status_code for url in urls] == [410, 410]
        clock.ahead = 0.0  # a new upload has the real time
        assert claim(server.url, "old", 7, 0, 7).status_code == 201


def test_failed_chunk_of_one_part_keeps_the_others(server: EmbeddedServer, key: str) -> None:
    data = os.urandom(6_000_000)
    first, second = (
        claimed(server.url, key, len(data), 0, 3_000_000),
        claimed(server.url, key, len(data), 3_000_000, 3_000_000),
    )
    assert append(second, 0, data[3_000_000:]).status_code == 204
    wrong = bytes(3_000_000)
    assert append(first, 0, wrong, checksum(data[:3_000_000])).status_code == 460
    with patching(first, 0, 3_000_000, checksum(data[:3_000_000])) as request:
        request.send(data[:2_000_000])
    assert offset_of(first) == 0
    with patching(first, 0, 3_000_000) as request:
        request.send(data[:1_000_000])
        eventually(lambda: inside(server).backend.tus.known.get(first.rpartition("/")[2]).file.size == 1_000_000)
    assert offset_of(first) == 1_000_000
    assert append(first, 1_000_000, data[1_000_000:3_000_000], checksum(data[1_000_000:3_000_000])).status_code == 204
    final = concatenate(server.url, first, second, uploadKey=key)
    assert content(urljoin(server.url, final.headers["location"])) == data


@pytest.mark.parametrize("repeats", [True, False])
def test_parts_go_to_the_session_that_names_them_last(server: EmbeddedServer, key: str, repeats: bool) -> None:
    """A client that lost its session opens another one, and repeats or adds parts there."""
    lost, found = new_session(server.url), new_session(server.url)
    first = claim(server.url, key, 6, 0, 2, b"ab", sessionId=lost, uploadKey=f"{key}-1")
    second = claim(server.url, key, 6, 2, 2, b"cd", sessionId=lost)
    assert error(claim(server.url, key, 6, 4, 2, b"ef")) == (409, "RANGE_CONFLICT")  # belongs to no session
    if repeats:
        again = claim(server.url, key, 6, 0, 2, sessionId=found, uploadKey=f"{key}-1")
        assert (again.status_code, again.headers["upload-offset"]) == (200, "2")
    third = claim(server.url, key, 6, 4, 2, b"ef", sessionId=found)
    assert requests.post(f"{server.url}/api/upload/cancel/{lost}", timeout=DEADLINE).status_code == 200
    urls = [urljoin(server.url, answer.headers["location"]) for answer in (first, second, third)]
    assert [offset_of(url) for url in urls] == [2, 2, 2]
    whole = concatenate(server.url, *urls, sessionId=found, uploadKey=key, filename="moved.txt")
    assert whole.headers["content-location"] == "/uploads/personal/moved.txt"
    assert progress(server.url, found).json()["overallStatus"] == "completed"


def test_a_refused_part_moves_no_other_part_to_its_session(server: EmbeddedServer, key: str) -> None:
    here, other = new_session(server.url), new_session(server.url)
    first = urljoin(server.url, claim(server.url, key, 6, 0, 4, b"abcd", sessionId=here).headers["location"])
    assert error(claim(server.url, key, 6, 2, 4, sessionId=other)) == (409, "RANGE_CONFLICT")
    assert requests.post(f"{server.url}/api/upload/cancel/{other}", timeout=DEADLINE).status_code == 200
    assert offset_of(first) == 4
    assert terminate(first).status_code == 204


def test_cancelled_session_deletes_its_parts(server: EmbeddedServer, key: str) -> None:
    session = new_session(server.url)
    done = claim(server.url, key, 6, 0, 3, b"abc", sessionId=session).headers["location"]
    half = claim(server.url, key, 6, 3, 3, b"d", sessionId=session).headers["location"]
    assert requests.post(f"{server.url}/api/upload/cancel/{session}", timeout=DEADLINE).status_code == 200
    assert [head(url).status_code for url in (done, half)] == [410, 410]
    assert not data_files(server.root)


@pytest.mark.thorough
def test_saved_offset_of_a_part_survives_a_kill(tmp_path: Path) -> None:
    data = os.urandom(48 << 20)
    middle = 24 << 20
    with server_process("--root", str(tmp_path)) as server:
        old = server.url
        first = claimed(old, "killed", len(data), 0, middle)
        second = claimed(old, "killed", len(data), middle, middle, data[middle:])
        with patching(first, 0, middle) as request:
            request.send(bytes(20 << 20))  # not what will be sent in the end
            eventually(lambda: _saved(tmp_path, first) >= (12 << 20), "the offset in the database")
            server.kill()
    with server_process("--root", str(tmp_path)) as server:
        first, second = (url.replace(old, server.url) for url in (first, second))
        told = offset_of(first)
        assert (20 << 20) - (8 << 20) <= told <= 20 << 20
        assert told == _saved(tmp_path, first)
        assert offset_of(second) == middle
        assert append(first, told, data[told:middle]).status_code == 204
        final = concatenate(server.url, first, second, uploadKey="killed", filename="killed.bin")
        assert final.status_code == 201, final.text
    assert (tmp_path / "tus" / "killed.bin").read_bytes() == bytes(told) + data[told:]


def _saved(root: Path, upload: str) -> int:
    """The offset of a part as the database has it."""
    with closing(sqlite3.connect(root / ".uploader" / "server.sqlite3", timeout=DEADLINE)) as database:
        query = "SELECT counted FROM tus_uploads WHERE id = ?"
        return int(database.execute(query, (upload.rpartition("/")[2],)).fetchone()[0])


def test_part_that_lost_bytes_on_disk_is_incomplete_again(tmp_path: Path) -> None:
    with running_server(root=tmp_path) as server:
        old = server.url
        urls = [claimed(old, "lost", 6, 0, 3, b"abc"), claimed(old, "lost", 6, 3, 3, b"def")]
        alone = part(old, b"alone")
    (shared,) = [path for path in data_files(tmp_path) if path.name != file_id(tmp_path, alone)]
    os.truncate(shared, 4)
    with running_server(root=tmp_path) as server:
        first, second, alone = (url.replace(old, server.url) for url in (*urls, alone))
        assert [offset_of(first), offset_of(second)] == [3, 1]
        assert append(second, 1, b"ef").status_code == 204
        os.truncate(shared, 5)
        assert error(concatenate(server.url, first, second, uploadKey="lost")) == (400, "PART_UNFINISHED")
        assert append(second, offset_of(second), b"f").status_code == 204
        final = concatenate(server.url, first, second, uploadKey="lost")
        assert content(urljoin(server.url, final.headers["location"])) == b"abcdef"

        os.truncate(data_of(server.root, alone), 2)
        assert error(concatenate(server.url, alone)) == (400, "PART_UNFINISHED")
        assert append(alone, 2, b"one").status_code == 204
        final = concatenate(server.url, alone)
        assert content(urljoin(server.url, final.headers["location"])) == b"alone"
