"""Find the size of requests that a proxy refuses, without sending a whole body."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from uploader_cli.core.capabilities import TUS_VERSION, Capabilities, unknown_upload
from uploader_cli.core.protocol import error_code
from uploader_cli.core.sizes import FIRST_CHUNK, LEAST_AFTER_413
from uploader_cli.transfer.answers import Answer, is_tus
from uploader_cli.transfer.bodies import Body, Piece

Ask = Callable[..., Answer]

WAIT = 0.5  # seconds, beyond some round trips, for a proxy to refuse a request by its head
TRICKLE_PAUSE = 0.05
FIX = "Raise its limit, in nginx with client_max_body_size"


class _Unanswered(Exception):
    pass


class SizeLimit(NamedTuple):
    """The least refused size in bytes (0: none), the greatest that passes (0: none), and the last answer, if any."""

    refused: int
    passes: int
    answer: Answer | None


def find(ask: Ask, tus: Capabilities | None, *, most: int | None = None, round_trip: float = 0.0) -> SizeLimit:
    """Announce a chunk for an unknown upload, or without tus a batch, then halves of it until no proxy refuses one.

    `ask` is `call` of the target, `most` the server's own limit in bytes, `round_trip` is in seconds.
    """
    size, refused = min(FIRST_CHUNK, most or FIRST_CHUNK), 0
    while True:
        answer = _announced(ask, tus, size, WAIT + 4 * round_trip)
        if answer is None or answer.status != 413 or is_tus(answer) or error_code(answer.body):
            return SizeLimit(refused, size, answer)
        refused, size = size, size // 2
        if size < LEAST_AFTER_413:
            return SizeLimit(refused, 0, answer)


def _announced(ask: Ask, tus: Capabilities | None, size: int, seconds: float) -> Answer | None:
    """Return the answer that comes before the body, of which only a few bytes are sent; None without one."""
    until = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > until:
            raise _Unanswered

    def trickle(_: int) -> int:
        time.sleep(TRICKLE_PAUSE)
        return 1

    kind = "multipart/form-data; boundary=none" if tus is None else "application/offset+octet-stream"
    body = Body(kind, [Piece(size, memoryview(bytes(size)))], checkpoint=check, throttle=trickle)
    try:
        if tus is None:
            return ask("POST", "/api/upload/batch", body=body, early=True)
        headers = {"Tus-Resumable": TUS_VERSION, "Upload-Offset": "0"}
        return ask("PATCH", unknown_upload(tus.endpoint), headers=headers, body=body, early=True)
    except _Unanswered:
        return None
