"""Shares: how much of what a server has for all its clients one client may hold.

A client is the subject of a JWT that this server has signed, else an address (IPv6: its /64 network).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, TypeVar

from uploader_server.addresses import network
from uploader_server.auth import owner_of
from uploader_server.errors import Code, Refusal

logger = logging.getLogger(__name__)

T = TypeVar("T")
Kind = Literal["sessions", "uploads", "joins", "connections"]
MOST: dict[Kind, int] = {"sessions": 10_000, "uploads": 10_000, "joins": 200_000}
"""Maximum open sessions, unfinished tus uploads and joins of all clients together."""
ALL_USED: Mapping[Kind, Code] = {
    "sessions": "TOO_MANY_SESSIONS",
    "uploads": "TOO_MANY_UPLOADS",
    "joins": "TOO_MANY_JOINS",
    "connections": "SERVER_BUSY",
}
"""Code of the refusal if all clients together hold the maximum."""
USED: Code = "SHARE_USED"  # code of the refusal of a client that holds its share
RETRY_AFTER = 5  # seconds until a refused client should try again
EMPTY_TTL = 3600.0  # seconds after which a session or an upload that has received nothing expires
SPARED = 60.0  # the same, if the share of its client is used
LOG_EVERY = 60.0  # minimum seconds between two log lines about refusals of one kind


def holder_name(authorization: str, address: str, jwt_secret: str) -> str:
    """Return the client of a request: the subject of a JWT signed with `jwt_secret`, else the address."""
    subject = owner_of(authorization, jwt_secret) if authorization else ""
    return f"subject {subject}" if subject else network(address)


def holder_of(scope: Mapping[str, Any]) -> str:
    """Return the client of a request, which `RequestTracker` has found; empty if unknown."""
    return str(scope.get("holder", ""))


def share_used(most: int, what: str) -> Refusal:
    """Return the refusal of a client that holds `most` things and may hold no more."""
    message = f"You hold {most} {what}, the share of one client; end one of them, or wait"
    return Refusal(USED, message, retry_after=RETRY_AFTER)


class Share(Generic[T]):
    """Counts the things of one kind that each client holds. Not thread-safe: used on the event loop.

    Things are removed by `remove`, and by `prune` if `ended` says so, which also happens when a limit is reached.
    """

    def __init__(
        self,
        kind: Kind,
        percent: int,
        *,
        most: int = 0,
        cap: int = 0,
        ended: Callable[[T], bool] = lambda _thing: False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Let a client hold `percent` of `most` (0: of MOST), and at most `cap` (0: no cap).

        `now` is the clock of `touched`, for `make_room`.
        """
        self.kind = kind
        self.most = most or MOST[kind]
        share = max(1, self.most * percent // 100)
        self.each = min(share, cap) if cap else share
        self._ended = ended
        self._now = now
        self._things: dict[str, Counter[T]] = {}  # the things of each client, and how often each counts
        self._held: Counter[str] = Counter()  # their sum for each client
        self._total = 0
        self._logged = -LOG_EVERY

    def add(self, holder: str, thing: T) -> None:
        """Count a thing once more. One of an unknown client (an empty text) counts only for all together."""
        self._things.setdefault(holder, Counter())[thing] += 1
        self._held[holder] += 1
        self._total += 1

    def holds(self, holder: str, thing: T) -> bool:
        return thing in self._things.get(holder, ())

    def remove(self, holder: str, thing: T, times: int = 1) -> None:
        """Count a thing less often."""
        things = self._things.get(holder, Counter[T]())
        times = min(times, things[thing])
        things[thing] -= times
        self._held[holder] -= times
        self._total -= times
        if not things[thing]:
            del things[thing]
        if not self._held[holder]:
            del self._held[holder]
            self._things.pop(holder, None)

    def refusal(self, holder: str) -> Refusal | None:
        """Return the refusal of a client that may hold no more, or of any client if nothing is left."""
        if holder and self._is_used(holder):
            self._log(f"{holder} holds {self.each}, the share of one client (--max-share)")
            return share_used(self.each, self.kind)
        if self._total >= self.most:
            self.prune()
        if self._total >= self.most:
            self._log(f"all clients together hold {self.most}")
            message = f"All clients together hold {self.most} {self.kind}"
            return Refusal(ALL_USED[self.kind], message, retry_after=RETRY_AFTER)
        return None

    def make_room(self, holder: str) -> T | None:
        """Check that a client may hold one more. Raises Refusal as `refusal` returns it.

        If its share is used, the thing that has been `empty` since the earliest moment `touched`, SPARED seconds ago
        or earlier, no longer counts; it is returned, and the caller ends it.
        """
        refusal = self.refusal(holder)
        if refusal is None:
            return None
        things: list[Any] = list(self._things.get(holder, ())) if refusal.code == USED else []
        latest = self._now() - SPARED
        empty = [thing for thing in things if thing.empty and thing.touched < latest]
        if not empty:
            raise refusal
        oldest: T = min(empty, key=lambda thing: thing.touched)
        self.remove(holder, oldest)
        return oldest

    def prune(self) -> None:
        for client in list(self._things):
            self._drop_ended(client)

    def _is_used(self, holder: str) -> bool:
        if self._held[holder] >= self.each:
            self._drop_ended(holder)
        return self._held[holder] >= self.each

    def _drop_ended(self, holder: str) -> None:
        for thing, times in list(self._things.get(holder, Counter[T]()).items()):
            if self._ended(thing):
                self.remove(holder, thing, times)

    def _log(self, why: str) -> None:
        """Log a refusal, not each one."""
        now = time.monotonic()
        if now >= self._logged + LOG_EVERY:
            self._logged = now
            logger.error("more %s are refused: %r", self.kind, why)
