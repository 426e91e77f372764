"""Request ids and reports of calls, shared by the clients of a run."""

from __future__ import annotations

import itertools
import secrets
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from uploader_cli.core.events import CallMade
from uploader_cli.transfer.failures import origin_of, why

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REQUEST_ID = "X-Request-ID"


class RequestIds:
    """Request ids, reports of calls and the round trip, shared by the clients of a run."""

    round_trip: float | None = None  # seconds of the fastest call without a body, connecting excluded
    heard = False  # whether an answer shows that the server speaks the scheme of its URL

    def __init__(self, run: str = "", tell: Callable[[CallMade], None] = lambda _call: None) -> None:
        """`run` begins each id; it is random by default."""
        self._run = run or secrets.token_hex(8)
        self._numbers = itertools.count(1)  # `next` is atomic
        self.tell = tell

    def new(self) -> str:
        return f"{self._run}-{next(self._numbers):06d}"

    def answered(self, seconds: float) -> None:
        if self.round_trip is None or seconds < self.round_trip:
            self.round_trip = seconds

    def added(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return `headers` with an id, unless they have one."""
        has_one = any(header.lower() == REQUEST_ID.lower() for header in headers)
        return dict(headers) if has_one else {**headers, REQUEST_ID: self.new()}

    def report(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        began: float,
        status: int | None,
        error: BaseException | None = None,
        body: object = None,
    ) -> None:
        """Report a call that `began` at a time of `time.monotonic`; a `body` that is not in memory is that of files."""
        took = round(time.monotonic() - began, 6)
        shown = origin_of(url) + urlsplit(url).path  # a query may carry secrets
        words = None if error is None else why(error) or type(error).__name__
        carries = not isinstance(body, bytes | str | None)
        self.tell(CallMade(method, shown, headers.get(REQUEST_ID) or None, status, took, words, carries))
