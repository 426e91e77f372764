"""A network that misbehaves: each fault as often as asked for, in a seeded order, on every so-many-th body."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

from counting_proxy import Cut, Instead, Onlooker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from counting_proxy import Request

CUT = "body cut at a random byte"
FLIP = "one bit of a body flipped"
STALL = "stall within a body"
LOST = "answer dropped after storing"
RESET = "connection reset"
BUSY = "503 with Retry-After"
SLOW_DOWN = "429 with Retry-After"

FAULTS = (CUT, FLIP, STALL, LOST, RESET, BUSY, SLOW_DOWN)
IN_BODY = (CUT, FLIP, STALL)


class Chaos(Onlooker):
    """Gives out the faults that are `left`; `done` is who got which."""

    def __init__(self, faults: Sequence[str], times: int, seed: int, *, kinds: Sequence[str], every: int, stall: float):
        """`kinds` of requests (`Request.kind`) are met, `every` so-many-th of them; `stall` in seconds."""
        self._random = random.Random(seed)
        self.left = [fault for fault in faults for _ in range(times)]
        self._random.shuffle(self.left)
        self.done: dict[Request, str] = {}
        self._kinds, self._every, self._stall = kinds, every, stall
        self._seen = 0
        self._guard = threading.Lock()

    def hit_by(self, fault: str) -> list[Request]:
        """The requests that met this fault."""
        return [request for request, met in self.done.items() if met == fault]

    def head(self, request: Request) -> None:
        with self._guard:
            fault = self._give(request)
        if fault == RESET:
            raise Cut(reset=True)
        if fault in (BUSY, SLOW_DOWN):
            raise Instead(503 if fault == BUSY else 429, {"Retry-After": "1"})

    def at_mark(self, request: Request, piece: bytes) -> bytes:
        fault = self.done.get(request)
        if fault == CUT:
            raise Cut
        if fault == STALL:
            time.sleep(self._stall)
        return piece[:-1] + bytes([piece[-1] ^ 1]) if fault == FLIP else piece

    def at_answer(self, request: Request) -> None:
        if self.done.get(request) == LOST:
            assert request.status < 300, f"{request.method} {request.target}: {request.status}"
            raise Cut

    def _give(self, request: Request) -> str | None:
        if request.kind not in self._kinds or not self.left:
            return None
        self._seen += 1
        if self._seen % self._every or (self.left[-1] in IN_BODY and not request.length):
            return None
        fault = self.done[request] = self.left.pop()
        if fault in IN_BODY:
            request.mark = self._random.randint(1, request.length)
        return fault
