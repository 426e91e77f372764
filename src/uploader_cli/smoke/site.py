"""The server under examination: calls to it, counted and within the budget, and what the checks share."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from uploader_cli import errors
from uploader_cli.core.protocol import error_code, parse_session, whole
from uploader_cli.core.tus import trusts
from uploader_cli.smoke.made import Made
from uploader_cli.smoke.verdicts import NotOffered, OutOfCalls, Prevented, Violation
from uploader_cli.transfer.api import answer_error
from uploader_cli.transfer.http import Http
from uploader_cli.transfer.pacing import retry_after

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from uploader_cli.settings import Settings
    from uploader_cli.smoke.payload import Payload
    from uploader_cli.transfer.http import Answer

BUDGET = 100
"""Calls that a run may make: the reference backend allows as many in 15 minutes (wire contract 3.11)."""
ANSWER_LIMIT = 30.0
"""Seconds for an answer to begin: the reference backend takes 2.7 for each file of a batch (wire contract 3.2)."""
END_LIMIT = 1.0
"""Seconds that live connections may take to end politely."""
PATIENCE = 10.0
"""Seconds to wait for events that are due: those of a server that keeps its promises come within a fraction of one."""
UNAVAILABLE = (502, 503, 504)
"""What proxies say for a server that is down or busy: it may pass."""
NOBODY = "00000000-0000-4000-8000-000000000000"
"""An id that no session and no file has."""
_FREE = ("/health", "/uploads/", "/socket.io/")

Value = TypeVar("Value")


class Metered(NamedTuple):
    """The rate limit headers of one counted answer, as they were sent; None for a missing one."""

    limit: str | None
    remaining: str | None
    reset: str | None


class Site:
    """One server, for one run: calls never exceed the budget, where servers count them.

    That is all calls but those to `/health`, `/uploads` and `/socket.io` (wire contract 3.11).

    What the checks share is made once, when it is first needed, whether that succeeds or not (`once`).
    """

    def __init__(self, settings: Settings, *, budget: int = BUDGET, patience: float = PATIENCE) -> None:
        """No connection is made yet. Raises `UsageError` for a token that can't be read."""
        self.settings = settings
        self.budget, self.patience = budget, patience
        self.token = settings.bearer()
        self.run = secrets.token_hex(4)
        """What all names of this run carry."""
        self.calls = 0
        self.made = Made()
        self.answered = self.speaks = False
        """Whether anything answered, and whether it did as an upload server does."""
        self.welcome = self.refusals = 0
        """Counted calls with our own token: how many were let in, and how many met 401 or 403."""
        self.meter: list[Metered | None] = []
        """What each counted call was told of the rate limit, in the order in which they began; None for no answer."""
        self.retry_after: float | None = None
        """Seconds until calls are taken again, as a 429 told."""
        self.limited = False
        """Whether the server said 429."""
        self.gone = False
        """Whether it answered once, and does not any more."""
        self.cleaning = False
        self.endings: list[threading.Thread] = []
        """Live connections that are being left."""
        self._remaining: int | None = None
        self._http, self._beside = Http(settings), Http(settings)
        self._once: dict[object, object] = {}

    # --- calls --------------------------------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        where: str,
        *,
        json: object = None,
        body: Payload | None = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = "",
        beside: bool = False,
        may_refuse: bool = False,
        leaves: int = 0,
        limit: float = ANSWER_LIMIT,
    ) -> Answer:
        """One call to a path or a URL of the server. `token`: None for none, empty for our own.

        `beside` is for a call that is made while another one is under way, `may_refuse` for one that 403 may answer.
        `leaves` is how many calls it may take to remove what this one makes, `limit` the seconds until it is answered.
        Raises `OutOfCalls`, `NetworkError`, and the error for 429, 502, 503, 504, and for 401 and 403 where they answer
        our own token.
        """
        url = where if "://" in where else self.settings.server + where
        counted, place = self._counts(url), len(self.meter)
        if counted:
            self._spend(leaves)
            self.meter.append(None)
        stranger = not trusts(self.settings.server, url)  # it gets neither the token nor what --header gives
        shown = None if stranger else self.token if token == "" else token
        answer = (self._beside if beside else self._http).request(
            method,
            url,
            json=json,
            body=body,
            headers={**({"Authorization": f"Bearer {shown}"} if shown else {}), **(headers or {})},
            read_timeout=limit,
        )
        self.answered = True
        if counted:
            self._note(answer, place)
        if answer.status in (429, *UNAVAILABLE):
            raise answer_error(answer)
        if counted and token == "" and not may_refuse:
            self._let_in(answer)
        return answer

    def answers(self) -> bool:
        """Whether it still does, be it with an error; a call that no server counts."""
        try:
            self.call("GET", "/health", limit=PATIENCE)
        except errors.NetworkError:
            return False
        except errors.UploaderError:
            pass
        return True

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a stored file; None where the server does not give them out."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        with self._http.stream(self.settings.server + path, headers) as (answer, pieces):
            return b"".join(pieces) if answer.status == 200 else None

    @property
    def may_delete(self) -> bool:
        """Whether calls carry what `DELETE` asks for: a token, or a header that stands for one."""
        return bool(self.token) or self.own_authorization

    @property
    def own_authorization(self) -> bool:
        """Whether `--header` gives one, which then goes with every call."""
        return any(name.lower() == "authorization" for name in self.settings.headers)

    @property
    def shut_out(self) -> bool:
        """Whether every call so far met 401 or 403, where that could be seen."""
        return self.refusals > 0 and not self.welcome

    @property
    def silent(self) -> bool:
        """Whether nothing answered, or nothing of the calls of an upload server as one does."""
        return not self.answered or (self.calls > 0 and not self.speaks)

    @property
    def left(self) -> int:
        """Calls that may still be made, by the budget and by what the server says."""
        own = self.budget - self.calls
        return max(0, own if self._remaining is None else min(own, self._remaining))

    @property
    def spare(self) -> int:
        """Calls for checks: what is made so far must still be removed."""
        return self.left - self.made.owed(with_token=self.may_delete)

    def close(self) -> None:
        """Close the connections."""
        until = time.monotonic() + END_LIMIT
        for ending in self.endings:
            ending.join(max(0.0, until - time.monotonic()))
        self._http.close()
        self._beside.close()

    def _counts(self, url: str) -> bool:
        path = url.removeprefix(self.settings.server)
        return not path.startswith(_FREE)

    def _spend(self, leaves: int) -> None:
        if (self.left if self.cleaning else self.spare) < 1 + leaves:
            raise OutOfCalls
        self.calls += 1

    def _note(self, answer: Answer, place: int) -> None:
        names = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
        metered = Metered(*(answer.headers.get(name) for name in names))
        self.meter[place] = metered
        if place == len(self.meter) - 1:  # a longer call tells how things stood when it began
            self._remaining = whole(metered.remaining)
        self.speaks |= bool(error_code(answer.body)) or parse_session(answer.body) is not None
        if answer.status == 429:
            self.limited, self._remaining, self.retry_after = True, 0, retry_after(answer.headers)

    def _let_in(self, answer: Answer) -> None:
        refused = answer.status in (401, 403)
        self.refusals += refused
        self.welcome += not refused
        if refused:
            raise answer_error(answer)

    # --- what is shared -----------------------------------------------------------------------------------------------

    def once(self, make: Callable[[Site], Value]) -> Value:
        """`make(self)`, the first time; then what it gave, or raised, again."""
        if make not in self._once:
            try:
                self._once[make] = make(self)
            except (errors.UploaderError, NotOffered, Prevented, Violation) as error:
                self._once[make] = error
        found = self._once[make]
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[return-value]  # what this very function gave
