"""Find the size of requests that a proxy refuses, without sending a whole body."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from uploader_cli.core.protocol import error_code
from uploader_cli.core.sizes import FIRST_CHUNK, LEAST_CHUNK
from uploader_cli.transfer.api import is_tus
from uploader_cli.transfer.bodies import Body, Piece

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.transfer.http import Answer

WAIT = 0.5
"""Seconds, beyond some round trips, for a proxy to refuse a request by its head."""
TICK = 0.05
CHUNK, BATCH = "application/offset+octet-stream", "multipart/form-data; boundary=none"
"""The media types of a tus chunk and of a batch, of which no part comes."""
REMEDY = "Raise its limit, in nginx with client_max_body_size"


class _Unanswered(Exception):
    pass


class Found(NamedTuple):
    """The least refused size in bytes (0: none), the greatest that passes (0: none), and the last answer, if any."""

    refused: int
    passes: int
    answer: Answer | None


def find(ask: Callable[[Body], Answer], kind: str, *, most: int | None = None, round_trip: float = 0.0) -> Found:
    """Announce a body as large as a chunk, then halves of it until no proxy refuses one.

    `ask` sends a request with the body of the media type `kind`; `most` is the server's own limit in bytes,
    `round_trip` is in seconds.
    """
    size, refused = min(FIRST_CHUNK, most or FIRST_CHUNK), 0
    while True:
        answer = _announced(ask, kind, size, WAIT + 4 * round_trip)
        if answer is None or answer.status != 413 or is_tus(answer) or error_code(answer.body):
            return Found(refused, size, answer)
        refused, size = size, size // 2
        if size < LEAST_CHUNK:
            return Found(refused, 0, answer)


def _announced(ask: Callable[[Body], Answer], kind: str, size: int, seconds: float) -> Answer | None:
    """Return the answer that comes before the body, of which only a few bytes are sent; None without one."""
    until = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > until:
            raise _Unanswered

    def trickle(_: int) -> int:
        time.sleep(TICK)
        return 1

    try:
        return ask(Body(kind, [Piece(size, memoryview(bytes(size)))], check=check, throttle=trickle))
    except _Unanswered:
        return None
