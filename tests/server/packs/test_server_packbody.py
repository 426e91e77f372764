"""The parser of a pack's body, with any fragmentation."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server.packs.packing import body_of_pack, part
from starlette.requests import ClientDisconnect, Request

from uploader_server.batch.packbody import PackBody
from uploader_server.http.errors import ApiError
from uploader_server.http.memory import Held, Memory
from uploader_server.pace import Pace

if TYPE_CHECKING:
    from starlette.types import Message

NEAR_BOUNDARIES = st.lists(
    st.sampled_from([b"\r\n", b"--BOUNDARY", b"--", b"\r", b"-", b"x", b"\r\n--BOUNDARX"]), max_size=8
).map(b"".join)


def pieces(body: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(body) + 1) for cut in cuts} | {0, len(body)})
    return [body[start:end] for start, end in itertools.pairwise(ends)]


async def read(parts: list[bytes], length: int, total: int, memory: Memory | None = None) -> tuple[bytes, bytes]:
    """Return manifest and data. The client disconnects after the last piece unless the body is complete."""
    rest = iter(parts)
    received = 0

    async def receive() -> Message:
        nonlocal received
        piece = next(rest, None)
        if piece is None:
            return {"type": "http.disconnect"}
        received += len(piece)
        return {"type": "http.request", "body": piece, "more_body": received < length}

    headers = {"content-type": "multipart/form-data; boundary=BOUNDARY", "content-length": str(length)}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": "http", "headers": encoded, "held": Held(memory or Memory())}
    body = PackBody(Request(scope, receive), Pace(0, 60.0, 10.0))
    body.check(1 << 20)
    manifest = await body.manifest()
    await body.begin_data(total)
    data = await body.data(total)
    assert next(rest, None) is None
    return manifest, bytes(data)


@given(NEAR_BOUNDARIES, st.binary() | NEAR_BOUNDARIES, st.lists(st.integers(0, 10_000)))
def test_pack_is_parsed_for_any_fragmentation(manifest: bytes, data: bytes, cuts: list[int]) -> None:
    if b"\r\n--BOUNDARY\r\n" in b"\r\n\r\n" + manifest + b"\r\n--BOUNDARY":
        manifest = b"{}"
    body = body_of_pack(manifest, data)
    assert asyncio.run(read(pieces(body, cuts), len(body), len(data))) == (manifest, data)


@given(st.binary(max_size=100), st.integers(0, 10_000), st.lists(st.integers(0, 10_000)))
def test_truncated_pack_is_never_accepted(data: bytes, end: int, cuts: list[int]) -> None:
    body = body_of_pack(b"{}", data)
    with pytest.raises(ClientDisconnect):
        asyncio.run(read(pieces(body[: end % len(body)], cuts), len(body), len(data)))


@given(st.binary(max_size=100), st.integers(1, 10_000), st.integers(-5, 5).filter(bool))
def test_pack_with_another_size_than_its_manifest_is_refused(data: bytes, cut: int, difference: int) -> None:
    body = body_of_pack(b"{}", data)
    with pytest.raises(ApiError) as caught:
        asyncio.run(read(pieces(body, [cut]), len(body), max(0, len(data) + difference) or len(data) + 3))
    assert caught.value.status == 400


@pytest.mark.parametrize(("room", "refusal"), [(-1, ApiError), (0, ClientDisconnect)])
def test_pack_without_room_for_its_data_is_refused_before_they_arrive(room: int, refusal: type[Exception]) -> None:
    """A request may hold half of the memory; what has arrived of the data is counted once."""
    data, head = b"x" * 1000, part("manifest", b"{}") + b"--BOUNDARY\r\n"
    body = body_of_pack(b"{}", data)
    memory = Memory()
    memory.most = 2 * (len(head) + len(data) + room)
    with pytest.raises(refusal):
        asyncio.run(read([body[: body.index(data) + 100]], len(body), len(data), memory))
