"""The tested server: requests to it, counted and within the budget, and values shared by the checks."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from uploader_cli import errors
from uploader_cli.checks.smoke.made import Made
from uploader_cli.checks.smoke.verdicts import NotOffered, OutOfCalls, Prevented, Violation
from uploader_cli.core.protocol import error_code, parse_session, whole
from uploader_cli.core.tus import trusts
from uploader_cli.transfer.api import answer_error
from uploader_cli.transfer.http import Http
from uploader_cli.transfer.pacing import retry_after

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from uploader_cli.checks.smoke.payload import Payload
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.http import Answer

BUDGET = 100
"""Default budget: the reference backend allows 100 requests in 15 minutes (docs/protocol.md section 3.11)."""
ANSWER_LIMIT = 30.0
"""Seconds for a response to start: the reference backend takes 2.7 per file (docs/protocol.md section 3.2)."""
END_LIMIT = 1.0
"""Maximum seconds for live connections to end."""
PATIENCE = 10.0
"""Seconds to wait for expected events, which usually arrive within a fraction of one."""
UNAVAILABLE = (502, 503, 504)
"""Statuses of proxies for a server that is down or busy."""
NOBODY = "00000000-0000-4000-8000-000000000000"
"""An ID that no session and no file has."""
_FREE = ("/health", "/uploads/", "/socket.io/")

Value = TypeVar("Value")


class Metered(NamedTuple):
    """The rate limit headers of a counted response; None for a missing one."""

    limit: str | None
    remaining: str | None
    reset: str | None


class Site:
    """A server in one run. Counted requests never exceed the budget.

    These are all but those to `/health`, `/uploads` and `/socket.io` (docs/protocol.md section 3.11). Shared values are
    computed once, when first needed, and so are their errors (`once`).
    """

    def __init__(self, settings: Settings, *, budget: int = BUDGET, patience: float = PATIENCE) -> None:
        """Does not connect yet. Raises `UsageError` for an unreadable token."""
        self.settings = settings
        self.budget, self.patience = budget, patience
        self.token = settings.bearer()
        self.run = secrets.token_hex(4)
        """Part of all names of this run."""
        self.calls = 0
        self.made = Made()
        self.answered = self.speaks = False
        """Whether there was any response, and one of an upload server."""
        self.welcome = self.refusals = 0
        """Counted requests with our own token: accepted ones, and those with 401 or 403."""
        self.meter: list[Metered | None] = []
        """The rate limit headers of each counted request, in order of their starts; None without a response."""
        self.retry_after: float | None = None
        """Seconds until requests are accepted again, from a 429."""
        self.limited = False
        """Whether there was a 429."""
        self.gone = False
        """Whether the server no longer answers."""
        self.cleaning = False
        self.endings: list[threading.Thread] = []
        """Threads that end live connections."""
        self._remaining: int | None = None
        self._http, self._beside = Http(settings), Http(settings)
        self._once: dict[object, object] = {}

    # --- requests -----------------------------------------------------------------------------------------------------

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
        """Send a request to a path or URL of the server. `token`: None for none, empty for our own.

        `beside` is for a request during another one, `may_refuse` for one that may get a 403. `leaves` is the number of
        requests to delete what this one creates, `limit` the seconds for a response. Raises `OutOfCalls`,
        `NetworkError`, the error for 429, 502, 503 and 504, and for 401 and 403 with our own token.
        """
        url = where if "://" in where else self.settings.server + where
        counted, place = self._counts(url), len(self.meter)
        if counted:
            self._spend(leaves)
            self.meter.append(None)
        stranger = not trusts(self.settings.server, url)  # gets neither the token nor headers of --header
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
        """Return whether the server still answers, even with an error; uses an uncounted request."""
        try:
            self.call("GET", "/health", limit=PATIENCE)
        except errors.NetworkError:
            return False
        except errors.UploaderError:
            pass
        return True

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a stored file; None if the server does not return them."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        with self._http.stream(self.settings.server + path, headers) as (answer, pieces):
            return b"".join(pieces) if answer.status == 200 else None

    @property
    def may_delete(self) -> bool:
        """Whether requests carry an authorization for `DELETE`: a token, or a header."""
        return bool(self.token) or self.own_authorization

    @property
    def own_authorization(self) -> bool:
        """Whether `--header` sets one."""
        return any(name.lower() == "authorization" for name in self.settings.headers)

    @property
    def shut_out(self) -> bool:
        """Whether all requests so far got 401 or 403."""
        return self.refusals > 0 and not self.welcome

    @property
    def silent(self) -> bool:
        """Whether there was no response, or none of an upload server."""
        return not self.answered or (self.calls > 0 and not self.speaks)

    @property
    def left(self) -> int:
        """Remaining requests, by the budget and the server's rate limit."""
        own = self.budget - self.calls
        return max(0, own if self._remaining is None else min(own, self._remaining))

    @property
    def spare(self) -> int:
        """Remaining requests for checks, without those for the clean-up."""
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
        if place == len(self.meter) - 1:  # a longer request has older numbers
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

    # --- shared values ------------------------------------------------------------------------------------------------

    def once(self, make: Callable[[Site], Value]) -> Value:
        """Return `make(self)`, computed once; an error is raised again."""
        if make not in self._once:
            try:
                self._once[make] = make(self)
            except (errors.UploaderError, NotOffered, Prevented, Violation) as error:
                self._once[make] = error
        found = self._once[make]
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[return-value]  # the type of `make`
