"""Moments at which a process is killed; the proxy recognises them."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.sent_bytes import kind_of
from proxy import Cut, Onlooker

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from proxy import Request

CREATION = "creation"
"""In the middle of a POST: of its body, or before the server hears of it."""
CREATED = "creation, not answered"
MID_CHUNK = "mid-chunk"
UNANSWERED = "stored, not answered"
"""The server has the chunk, its answer has come as far as the proxy."""
JOURNAL = "journal commit"
"""Not seen by the proxy: a write to the client's journal."""
FINISH = "session finish"
FINISH_UNANSWERED = "session finish, not answered"

IN_BODY = {"create": CREATION, "patch": MID_CHUNK}
AT_HEAD = {"create": CREATION, "finish": FINISH}
AT_ANSWER = {"create": CREATED, "patch": UNANSWERED, "finish": FINISH_UNANSWERED}
"""What moment it is, by the kind of the request."""

MOST_BEFORE = {CREATION: 4, CREATED: 4, MID_CHUNK: 4, UNANSWERED: 4, JOURNAL: 12}
"""How many such moments may pass before the one that counts: few enough that the files last for all accidents."""


@dataclass(frozen=True)
class Moment:
    """The `nth` event of a kind since the last kill; `share` is the part of the body that was forwarded."""

    kind: str
    nth: int = 1
    share: float = 0.5

    def __str__(self) -> str:
        return f"{self.kind} {self.nth} ({self.share:.3f})"


def moments(kinds: Iterable[str], source: random.Random) -> list[Moment]:
    """Return a seeded moment of each kind."""
    return [Moment(kind, source.randint(1, MOST_BEFORE.get(kind, 1)), source.random()) for kind in kinds]


class Trap(Onlooker):
    """Calls `strike` at the first of the moments that were set, and cuts that connection.

    `struck` lists the moments in order.
    """

    def __init__(self) -> None:
        self.struck: list[tuple[Moment, Request]] = []
        self.sprung = threading.Event()
        self._guard = threading.Lock()
        self._waiting: list[Moment] = []
        self._seen: Counter[str] = Counter()
        self._born = 0
        self._striking = False
        self._strike: Callable[[], None] = lambda: None

    def set(self, waiting: Iterable[Moment], strike: Callable[[], None], *, born: int = 0) -> None:
        """Wait for these moments; connections from before the epoch `born` belong to a dead client and do not count."""
        with self._guard:
            self._waiting, self._strike, self._born = list(waiting), strike, born
            self._seen.clear()
            self.sprung.clear()

    def head(self, request: Request) -> None:
        moment = self._next(IN_BODY.get(kind_of(request)))
        if moment is not None and request.length:
            request.mark = max(1, int(moment.share * request.length))
        else:
            self._meet(AT_HEAD.get(kind_of(request)), request)

    def at_mark(self, request: Request, piece: bytes) -> bytes:
        self._meet(IN_BODY.get(kind_of(request)), request)
        return piece

    def at_answer(self, request: Request) -> None:
        if request.status < 300:
            self._meet(AT_ANSWER.get(kind_of(request)), request)

    def _next(self, kind: str | None) -> Moment | None:
        return next((moment for moment in self._waiting if moment.kind == kind), None)

    def _meet(self, kind: str | None, request: Request) -> None:
        with self._guard:
            moment = self._next(kind)
            if moment is None or request.born < self._born or self._striking:
                return
            self._seen[moment.kind] += 1
            if self._seen[moment.kind] < moment.nth:
                return
            self._waiting.remove(moment)
            self._seen.clear()
            self.struck.append((moment, request))
            self._striking = True
        self._strike()
        self._striking = False
        self.sprung.set()
        raise Cut
