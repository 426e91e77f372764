"""Moments at which a process is killed: the proxy recognises them, and strikes there."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from counting_proxy import Cut, Onlooker

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from counting_proxy import Request

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

KINDS = {
    CREATION: ("create",),
    CREATED: ("create",),
    MID_CHUNK: ("patch",),
    UNANSWERED: ("patch",),
    FINISH: ("finish",),
    FINISH_UNANSWERED: ("finish",),
}
MOST_BEFORE = {CREATION: 4, CREATED: 4, MID_CHUNK: 4, UNANSWERED: 4, JOURNAL: 12}
"""How many such moments may pass before the one that counts: few enough that the files last for all accidents."""


@dataclass(frozen=True)
class Moment:
    """The `nth` of its kind from when it is waited for; `share` of the body, where it is within one."""

    kind: str
    nth: int = 1
    share: float = 0.5

    def __str__(self) -> str:
        return f"{self.kind} {self.nth} ({self.share:.3f})"


def moments(kinds: Iterable[str], source: random.Random) -> list[Moment]:
    """A seeded moment of each kind."""
    return [Moment(kind, source.randint(1, MOST_BEFORE.get(kind, 1)), source.random()) for kind in kinds]


class Trap(Onlooker):
    """Strikes once at the moment it was last set for, and cuts that connection. `struck` is what it hit, in order."""

    def __init__(self) -> None:
        self.struck: list[tuple[Moment, Request]] = []
        self.sprung = threading.Event()
        self._guard = threading.Lock()
        self._moment: Moment | None = None
        self._left = self._born = 0
        self._strike: Callable[[], None] = lambda: None

    def set(self, moment: Moment, strike: Callable[[], None], *, born: int = 0) -> None:
        """Wait for a moment; connections made before the epoch `born` are those of a dead client, and don't count."""
        with self._guard:
            self._moment, self._strike, self._left, self._born = moment, strike, moment.nth, born
            self.sprung.clear()

    def head(self, request: Request) -> None:
        moment = self._moment
        if moment is None or request.kind not in KINDS.get(moment.kind, ()):
            return
        in_body = moment.kind in (CREATION, MID_CHUNK)
        if in_body and request.length:
            request.mark = max(1, int(moment.share * request.length))
        elif moment.kind in (CREATION, FINISH):
            self._meet(moment, request)

    def at_mark(self, request: Request, piece: bytes) -> bytes:
        moment = self._moment
        if moment is not None and moment.kind in (CREATION, MID_CHUNK):
            self._meet(moment, request)
        return piece

    def at_answer(self, request: Request) -> None:
        moment = self._moment
        if moment is None or request.kind not in KINDS.get(moment.kind, ()) or request.status >= 300:
            return
        if moment.kind in (CREATED, UNANSWERED, FINISH_UNANSWERED):
            self._meet(moment, request)

    def _meet(self, moment: Moment, request: Request) -> None:
        with self._guard:
            if self._moment is not moment or request.born < self._born:
                return
            self._left -= 1
            if self._left:
                return
            self._moment = None
            self.struck.append((moment, request))
        self._strike()
        self.sprung.set()
        raise Cut
