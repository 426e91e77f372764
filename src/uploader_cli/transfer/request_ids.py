"""Ids of HTTP calls: `X-Request-ID`, by which a line of the client's log is found again in the server's."""

from __future__ import annotations

import itertools
import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uploader_cli.core.events import CallMade

REQUEST_ID = "X-Request-ID"


class RequestIds:
    """Ids for the calls of one run, from any thread; `tell` hears of each call when it is over."""

    def __init__(self, run: str = "", tell: Callable[[CallMade], None] = lambda _call: None) -> None:
        """`run` begins each id; without one it is random."""
        self._run = run or secrets.token_hex(8)
        self._numbers = itertools.count(1)  # its `next` is one step for all threads
        self.tell = tell

    def new(self) -> str:
        """An id that no call had before."""
        return f"{self._run}-{next(self._numbers):06d}"

    def added(self, headers: Mapping[str, str]) -> dict[str, str]:
        """`headers` with an id for the call; one that they have already stays."""
        has_one = any(header.lower() == REQUEST_ID.lower() for header in headers)
        return dict(headers) if has_one else {**headers, REQUEST_ID: self.new()}


def shown(url: str) -> str:
    """`url` as a log may hold it: neither query nor user, in which secrets travel."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
