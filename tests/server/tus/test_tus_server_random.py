"""Random sequences of whole, cut, wrong and checked bodies end in equal bytes, with correct offsets."""

from __future__ import annotations

import hashlib
import random
import uuid
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server.tus.tus_client import (
    append,
    checksum,
    content,
    create,
    created,
    digest_of,
    offset_of,
    part,
    patching,
)
from serving import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server() as server:
        yield server


def data_files(server: EmbeddedServer) -> set[str]:
    return {path.name for path in (server.root / ".uploader" / "tus").iterdir()}


step = st.tuples(
    st.sampled_from(["whole", "checked", "wrong checksum", "cut", "cut and checked", "wrong offset", "create again"]),
    st.integers(0, 1_500_000),
)


@pytest.mark.thorough
@given(seed=st.integers(0, 2**32), length=st.integers(0, 2_000_000), steps=st.lists(step, max_size=12))
def test_random_requests_store_equal_bytes(
    server: EmbeddedServer, seed: int, length: int, steps: list[tuple[str, int]]
) -> None:
    rng = random.Random(seed)
    data, key = rng.randbytes(length), str(uuid.uuid4())
    upload = created(server.url, length, uploadKey=key)
    offset = 0
    for kind, size in steps:
        chunk = data[offset : offset + size]
        if kind == "whole":
            assert append(upload, offset, chunk).status_code == 204
            offset += len(chunk)
        elif kind == "checked":
            assert append(upload, offset, chunk, checksum(chunk, "sha1")).status_code == 204
            offset += len(chunk)
        elif kind == "wrong checksum" and chunk:
            assert append(upload, offset, chunk, checksum(chunk + b"!")).status_code == 460
        elif kind in {"cut", "cut and checked"} and chunk:
            headers = checksum(chunk) if "checked" in kind else None
            with patching(upload, offset, len(chunk), headers) as request:
                request.send(chunk[: len(chunk) // 2])
            told = offset_of(upload)
            assert offset <= told <= (offset if headers else offset + len(chunk) // 2)
            offset = told
        elif kind == "wrong offset":
            assert append(upload, offset + 1 + size, b"x").status_code == 409
        elif kind == "create again":
            again = create(server.url, length, uploadKey=key)
            assert (again.status_code, again.headers["upload-offset"]) == (200, str(offset))
        assert offset_of(upload) == offset
    if offset < length:
        assert append(upload, offset, data[offset:]).status_code == 204
    assert digest_of(upload) == hashlib.sha256(data).digest() == hashlib.sha256(content(upload)).digest()


@pytest.mark.thorough
@given(pieces=st.lists(st.binary(max_size=5000), min_size=1, max_size=6))
def test_random_parts_are_concatenated(server: EmbeddedServer, pieces: list[bytes]) -> None:
    parts = [part(server.url, piece) for piece in pieces]
    answer = create(server.url, None, headers={"Upload-Concat": "final;" + " ".join(parts)})
    assert answer.status_code == 201, answer.text
    assert content(urljoin(server.url, answer.headers["location"])) == b"".join(pieces)


@pytest.mark.thorough
@given(pieces=st.lists(st.binary(max_size=5000), min_size=1, max_size=6), order=st.randoms(use_true_random=False))
def test_random_parts_in_place_are_joined(server: EmbeddedServer, pieces: list[bytes], order: random.Random) -> None:
    key, total, start = str(uuid.uuid4()), sum(map(len, pieces)), 0
    before, urls = data_files(server), []
    for piece in pieces:
        place = {"finalKey": key, "finalLength": str(total), "partOffset": str(start)}
        answer = create(server.url, len(piece), headers={"Upload-Concat": "partial"}, **place)
        assert answer.status_code == 201, answer.text
        urls.append(urljoin(server.url, answer.headers["location"]))
        start += len(piece)
    steps = [(url, piece, at) for url, piece in zip(urls, pieces, strict=True) for at in range(0, len(piece), 2000)]
    order.shuffle(steps)
    for url, piece, at in sorted(steps, key=lambda step: step[2]):  # each part in its order, the parts in any
        chunk = piece[at : at + 2000]
        assert append(url, at, chunk, checksum(chunk) if order.random() < 0.5 else None).status_code == 204
    final = {"Upload-Concat": "final;" + " ".join(urls)}
    answer = create(server.url, None, headers=final, uploadKey=key)
    assert answer.status_code == 201, answer.text
    assert content(urljoin(server.url, answer.headers["location"])) == b"".join(pieces)
    assert not data_files(server) - before
